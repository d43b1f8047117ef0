"""Compressed bodies: whole and right, or refused, and never larger than they may be."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from mlproxy.errors import BadRequest, BodyTooLarge
from workers.ingress.coding import ACCEPTED, UnsupportedCoding, inflate, known_coding
from workers.ingress.response import error_headers

MAX_BYTES = 100_000
TEXT = b'{"instances": [%b]}' % b", ".join(b"%d" % n for n in range(5000))
LARGE_BYTES = 8 * 2**20


def compress(coding: bytes, body: bytes) -> bytes:
    return zlib.compress(body) if coding == b"deflate" else gzip.compress(body)


@pytest.mark.parametrize("coding", [b"gzip", b"x-gzip", b"deflate"])
@pytest.mark.parametrize("body", [b"", b"x", TEXT, b"0" * MAX_BYTES], ids=["empty", "short", "a body", "at the limit"])
def test_what_was_compressed_comes_out_again(coding: bytes, body: bytes) -> None:
    assert inflate(coding, compress(coding, body), MAX_BYTES) == body


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_a_body_cut_anywhere_is_refused(coding: bytes) -> None:
    whole = compress(coding, b"123456789")
    for length in range(len(whole)):
        with pytest.raises(BadRequest, match="the body"):
            inflate(coding, whole[:length], MAX_BYTES)


@pytest.mark.parametrize(
    ("coding", "body", "words"),
    [
        (b"gzip", gzip.compress(TEXT) + b"x", "goes on behind"),
        (b"gzip", gzip.compress(TEXT) + b"\0" * 5000, "goes on behind"),
        (b"gzip", gzip.compress(TEXT) + gzip.compress(TEXT), "goes on behind"),
        (b"deflate", zlib.compress(TEXT) + b"\n", "goes on behind"),
        (b"gzip", TEXT, "not what its content encoding gzip says"),
        (b"gzip", zlib.compress(TEXT), "not what its content encoding gzip says"),
        (b"deflate", gzip.compress(TEXT), "not what its content encoding deflate says"),
        (b"gzip", gzip.compress(TEXT)[:-8] + b"\0" * 8, "incorrect data check"),
        (b"gzip", b"", "ends before"),
    ],
    ids=[
        "a byte",
        "padding",
        "a second member",
        "a line end",
        "plain",
        "zlib's",
        "gzip's",
        "a wrong checksum",
        "nothing",
    ],
)
def test_what_is_not_exactly_one_compressed_body_is_refused(coding: bytes, body: bytes, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        inflate(coding, body, MAX_BYTES)


def test_one_byte_more_than_the_limit_is_too_large() -> None:
    with pytest.raises(BodyTooLarge, match=r"inflated, exceeds limits.body \(100000B\)"):
        inflate(b"gzip", gzip.compress(b"0" * (MAX_BYTES + 1)), MAX_BYTES)


def test_a_bomb_costs_no_more_memory_than_a_body_may_have() -> None:
    bomb = gzip.compress(b"[" * 8 * LARGE_BYTES, 1)
    tracemalloc.start()
    with pytest.raises(BodyTooLarge):
        inflate(b"gzip", bomb, LARGE_BYTES)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1.25 * LARGE_BYTES


@pytest.mark.parametrize("value", [b"br", b"zstd", b"gzip, gzip"])
def test_who_sends_another_coding_is_told_which_are_taken(value: bytes) -> None:
    with pytest.raises(UnsupportedCoding) as refusal:
        known_coding(value)
    assert refusal.value.slug == "unsupported-media-type"
    headers = error_headers(refusal.value, "id", problem_json=False)
    assert headers["accept-encoding"] == ACCEPTED == "gzip, deflate"
    assert "accept-encoding" not in error_headers(BadRequest("x"), "id", problem_json=False)
