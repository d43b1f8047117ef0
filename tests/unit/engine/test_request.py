"""What a batch says of its members together."""

from __future__ import annotations

import pytest

from mlproxy.engine import Batch, Request
from mlproxy.engine.request import split


@pytest.mark.parametrize(
    ("deadlines_ns", "last_ns"), [([5], 5), ([5, 9, 7], 9), ([5, 0, 9], 0), ([0, 9], 0), ([9, 0], 0), ([0], 0)]
)
def test_the_last_deadline_of_a_batch_is_that_of_its_most_patient_member(deadlines_ns: list[int], last_ns: int) -> None:
    members = [Request(number, b"", 1, 1, 0, deadline_ns) for number, deadline_ns in enumerate(deadlines_ns)]
    assert Batch(1, b"", list(members), len(members), "full").last_deadline_ns == last_ns


def test_a_part_gives_up_with_its_request() -> None:
    parts = split(Request(1, b"", 5, 1, 0, 7), 2)
    assert Batch(1, b"", [parts[1]], 2, "full").last_deadline_ns == 7
