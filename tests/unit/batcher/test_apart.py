"""Who goes alone after a call has failed, and what is counted of it."""

from __future__ import annotations

from collections import Counter
from typing import cast

import pytest

from mlproxy.calls import FlushReason
from mlproxy.engine import Batch, Failure
from mlproxy.engine.request import split
from mlproxy.observe import BatcherMetrics
from workers.batcher.apart import Apart, UnbatchedLanes
from workers.batcher.link import LinkedRequest
from workers.batcher.poison import KEEP_NS

TIMEOUT, POISON = Failure("timeout", ""), Failure("status", "", 422)


class World:
    """Calls that end, and the verdicts that were counted."""

    def __init__(self) -> None:
        self.verdicts: Counter[str] = Counter()
        self.now_ns = 0
        self.apart = Apart(cast(BatcherMetrics, self))

    def isolated(self, verdict: str) -> None:
        self.verdicts[verdict] += 1

    def call(self, failure: Failure | None, *items: bytes, isolating: bool = False) -> None:
        """A batch of these ends, or one goes alone as it would."""
        requests = [LinkedRequest(1, b"", 1, len(text), 0, items=text) for text in items]
        alone, _ = self.apart.divide(requests)
        reason: FlushReason = "alone" if alone else "full"
        assert not alone or len(items) == 1
        self.apart.observe(Batch(1, b"", [*requests], len(items), reason, isolating=isolating), failure, self.now_ns)

    def remembers(self, items: bytes) -> bool:
        alone, _ = self.apart.divide([LinkedRequest(1, b"", 1, len(items), 0, items=items)])
        assert [request.remembered for request in alone] == [True] * len(alone)
        return bool(alone)


def test_after_a_timeout_each_of_the_batch_goes_alone_until_it_is_answered() -> None:
    world = World()
    world.call(TIMEOUT, b"good", b"hangs")
    assert world.apart.some
    world.call(None, b"good")
    world.call(TIMEOUT, b"hangs")
    assert (world.remembers(b"good"), world.remembers(b"hangs")) == (False, True)
    assert world.verdicts == {"cleared": 1}  # that the time was over may be anybody's fault
    world.call(None, b"hangs")
    assert not world.remembers(b"hangs")


def test_what_hangs_again_is_remembered_for_longer() -> None:
    world = World()
    world.call(TIMEOUT, b"good", b"hangs")
    world.now_ns = KEEP_NS // 2
    world.call(TIMEOUT, b"hangs")
    world.apart.look(KEEP_NS)
    assert (world.remembers(b"good"), world.remembers(b"hangs")) == (False, True)


def test_of_timeouts_in_a_row_the_first_is_remembered() -> None:
    world = World()
    world.call(TIMEOUT, b"1", b"2")
    world.call(TIMEOUT, b"3", b"4")
    assert (world.remembers(b"1"), world.remembers(b"3")) == (True, False)
    world.call(None, b"5", b"6")
    world.call(TIMEOUT, b"3", b"4")
    assert world.remembers(b"3")


@pytest.mark.parametrize("kind", ["connect", "timeout"])
def test_a_failure_that_is_not_its_own_is_no_verdict(kind: str) -> None:
    world = World()
    world.call(Failure(kind, ""), b"1", isolating=True)  # type: ignore[arg-type]
    assert (world.verdicts, world.remembers(b"1")) == ({}, False)
    world.call(POISON, b"1", isolating=True)
    world.call(Failure(kind, ""), b"1")  # type: ignore[arg-type]
    world.call(POISON, b"1")
    assert (world.verdicts, world.remembers(b"1")) == ({"poison": 2}, True)


def test_parts_of_a_request_are_not_remembered() -> None:
    world = World()
    parts = split(LinkedRequest(1, b"", 2, 3, 0, items=b"1,2"), 1)
    world.apart.observe(Batch(1, b"", [*parts], 2, "full"), TIMEOUT, 0)
    world.apart.observe(Batch(2, b"", [parts[0]], 1, "split", isolating=True), POISON, 0)
    assert not world.apart.some
    assert world.verdicts == {"poison": 1}


def test_lanes_with_long_keys_take_no_more_room() -> None:
    lanes, key = UnbatchedLanes(), b"k" * 10_000
    lanes.add(key)
    assert lanes.holds(key)
    assert not lanes.holds(key + b"k")
    assert sum(map(len, lanes._keys)) <= 64
