"""Lane headers: equal exactly when what was sent is equal, and given back to the batch as it was sent."""

from __future__ import annotations

import pytest

from mlproxy.protocols import LaneHeaders, WithLaneHeaders
from mlproxy.protocols.kserve_v1 import KServeV1
from mlproxy.protocols.kserve_v2 import KServeV2
from mlproxy.protocols.lane_headers import split_lane_key

HEADERS = LaneHeaders(("authorization", "x-tenant"))


@pytest.mark.parametrize(
    ("headers", "lines"),
    [
        ([], b""),
        ([(b"x-other", b"1"), (b"x-tenant-id", b"2")], b""),
        ([(b"x-tenant", b"")], b"x-tenant: \r\n"),
        (
            [(b"x-tenant", b"a: b"), (b"authorization", b"Bearer \xff")],
            b"authorization: Bearer \xff\r\nx-tenant: a: b\r\n",
        ),
        ([(b"x-tenant", b"a"), (b"x-tenant", b"b")], b"x-tenant: a\r\nx-tenant: b\r\n"),
    ],
)
def test_the_configured_headers_are_taken_as_they_are(headers: list[tuple[bytes, bytes]], lines: bytes) -> None:
    for key in (b"", b"\x00codec's own\r\n"):
        assert split_lane_key(HEADERS.of(headers) + key) == (lines, key)


def test_a_header_cannot_be_taken_for_a_part_of_the_codecs_key_or_of_another() -> None:
    said = [
        [], [(b"x-tenant", b"")], [(b"x-tenant", b"a")], [(b"authorization", b"a")], [(b"x-tenant", b"a, b")],
        [(b"x-tenant", b"a"), (b"x-tenant", b"b")], [(b"x-tenant", b"b"), (b"x-tenant", b"a")],
    ]  # fmt: skip
    keys = {HEADERS.of(headers) + key for headers in said for key in (b"", b"x-tenant: a\r\n", b"a")}
    assert len(keys) == 3 * len(said)
    assert HEADERS.of([(b"x-tenant", b"a"), (b"authorization", b"b")]) == HEADERS.of(
        [(b"authorization", b"b"), (b"x-tenant", b"a")]
    ), "the order in which a caller names its headers separates nobody"


def test_a_batch_has_its_members_headers_and_else_what_its_codec_says() -> None:
    for codec, body in (
        (KServeV1(), b'{"instances": [1, 2]}'),
        (KServeV2("3"), b'{"inputs":[{"name":"x","shape":[2],"datatype":"INT8","data":[1,2]}]}'),
    ):
        parsed = codec.parse_request(body)
        key = HEADERS.of([(b"x-tenant", b"a")]) + parsed.lane_key
        alone, batch = codec.join(parsed.lane_key, [parsed.items]), WithLaneHeaders(codec).join(key, [parsed.items])
        assert batch.headers == b"x-tenant: a\r\n" + alone.headers
        assert b"".join(batch.buffers) == b"".join(alone.buffers)
        assert batch.version == alone.version
        cut, expected = WithLaneHeaders(codec).cut(key, parsed.items), codec.cut(parsed.lane_key, parsed.items)
        assert bytes(cut.part(1, 1)) == bytes(expected.part(1, 1))
