"""KServe v2 under any input: each caller gets its own rows, and none can touch another's."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings

from mlproxy.protocols import KServeV2, ParsedRequest, Text
from mlproxy.protocols.codec import Answer
from tests.property.tensor_worlds import (
    Caller,
    Read,
    read,
)  # fmt: skip

pytestmark = pytest.mark.timeout(300)
#: A busy machine is no reason to fail: speed is not tested here.
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
more = settings(many, max_examples=200)

CODEC = KServeV2()
INPUTS, OUTPUTS = ("x", "ids", 'a"b:[é'), ("y", "score", "labels")


def _json_bytes(headers: bytes) -> int:
    found = re.search(rb"inference-header-content-length: (\d+)\r\n", headers)
    return int(found[1]) if found else 0


def batch_of(lane_key: bytes, items: Sequence[Text]) -> Read:
    """What the backend reads."""
    headers, buffers = CODEC.join(lane_key, items)[:2]
    return read(b"".join(buffers), _json_bytes(headers), "inputs")


def answer_of(answer: Answer) -> Read:
    """What the caller reads."""
    headers, body = answer
    return read(body, _json_bytes(headers), "outputs")


def parse(caller: Caller) -> ParsedRequest:
    return CODEC.parse_request(caller.body, 0, caller.json_bytes)
