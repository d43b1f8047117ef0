"""The conformance suite finds what it is there to find: codecs with the mistakes that batching proxies make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mlproxy.errors import BadRequest
from mlproxy.protocols import Answer, ParsedRequest, Text
from mlproxy.protocols.codec import BatchBody
from mlproxy.protocols.json_list import JsonList
from mlproxy.protocols.kserve_v1 import KServeV1
from mlproxy.testing.conformance import PROPERTIES, Property
from tests.property.dialects import Listed, Rows

each_alone, corrupt_request, corrupt_reply, whatever, before_a_body = PROPERTIES


class LastCallerWins(KServeV1):
    """What is said beside the instances does not separate lanes."""

    def parse_request(self, text: bytes, start: int = 0, json_bytes: int = 0) -> ParsedRequest:
        parsed = super().parse_request(text, start)
        return ParsedRequest(parsed.items, parsed.instances, b"")


class OffByOne(KServeV1):
    """Gives the second caller of a batch what belongs to the first."""

    def render(self, pieces: Sequence[tuple[Any, int, int]], own: bytes) -> Answer:
        return super().render([(reply, max(0, first - 1), count) for reply, first, count in pieces], own)


class PartsOutOfOrder(KServeV1):
    """Puts an oversized request together as its parts come back."""

    def render(self, pieces: Sequence[tuple[Any, int, int]], own: bytes) -> Answer:
        return super().render(pieces[::-1], own)


class Reencoding(JsonList):
    """Writes numbers anew."""

    def join(self, lane_key: bytes, items: Sequence[Text]) -> BatchBody:
        return super().join(lane_key, [bytes(one).replace(b"e+", b"e") for one in items])


class Unchecked(JsonList):
    """Believes that what begins and ends like an array is one."""

    def parse_request(self, text: bytes, start: int = 0, json_bytes: int = 0) -> ParsedRequest:
        body = text[start:].strip()
        if body[:1] == b"[" and body[-1:] == b"]" and len(body) > 2:
            try:
                return super().parse_request(text, start)
            except BadRequest:
                return ParsedRequest(body[1:-1], 1 + body.count(b","), b"")
        return super().parse_request(text, start)


class Crashing(JsonList):
    """Takes it that every reply is UTF-8."""

    def split_reply(self, headers: bytes, body: bytes, asked: object = None) -> Any:
        return super().split_reply(headers, body.decode().encode(), asked)


class FromTheHead(JsonList):
    """Finds the body wherever the first bracket of the buffer is."""

    def parse_request(self, text: bytes, start: int = 0, json_bytes: int = 0) -> ParsedRequest:
        return super().parse_request(text, max(0, text.find(b"[")) if start else 0)


@pytest.mark.parametrize(
    ("holds", "codec"),
    [
        (each_alone, LastCallerWins()), (each_alone, OffByOne()), (each_alone, PartsOutOfOrder()),
        (each_alone, Reencoding()), (corrupt_request, Unchecked()), (corrupt_reply, Crashing()),
        (whatever, Crashing()), (before_a_body, FromTheHead()),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "name") else value.__name__,
)  # fmt: skip
def test_a_mistake_is_found(holds: Property, codec: Any) -> None:
    dialect = Rows() if isinstance(codec, KServeV1) else Listed()
    dialect.codec = codec

    @settings(
        max_examples=300, deadline=None, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @given(data=st.data())
    def conforms(data: st.DataObject) -> None:
        holds(dialect, data)

    with pytest.raises((AssertionError, ValueError)):
        conforms()
