"""Bodies that come compressed (`Content-Encoding`, RFC 9110 §8.4), inflated within a bound. **Pure.**

The two codings that Triton takes, and so its clients send; nginx and Envoy forward such bodies as they are, but what is
to be cut and joined has to be read.
"""

from __future__ import annotations

import zlib
from io import BytesIO

from mlproxy.errors import BadRequest, BodyTooLarge, UnsupportedMediaType
from mlproxy.units import format_size

#: What zlib has to be told of the wrapper that is to be around the data, its checksum among it.
_WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
#: For callers whose coding is none of these. (`x-gzip` is an old name of gzip, §8.4.1.3.)
ACCEPTED = "gzip, deflate"
#: So many bytes at a time, which may become a thousand times as many.
_STEP_BYTES = 4096


class UnsupportedCoding(UnsupportedMediaType):
    """A content coding that is not taken; the answer says which are (§15.5.16)."""


def known_coding(value: bytes) -> bytes:
    """The coding that a ``Content-Encoding`` names, in lower case; nothing for none. `UnsupportedCoding` for others."""
    coding = value.lower()
    if coding == b"identity":
        return b""
    if coding not in _WINDOW_BITS:
        text = value.decode("latin-1")
        raise UnsupportedCoding(
            f"content encoding {text!r} is not supported; send gzip or deflate, or the body as it is"
        )
    return coding


def inflate(coding: bytes, body: bytes, max_bytes: int) -> bytes:
    """What ``coding`` has made ``body`` of. Raises the error that refuses it, and never holds more than it may have."""
    name = coding.decode()
    inflater, view, result = zlib.decompressobj(_WINDOW_BITS[coding]), memoryview(body), BytesIO()
    position = size_bytes = 0
    while position < len(body) and not inflater.eof:
        try:
            size_bytes += result.write(
                inflater.decompress(view[position : position + _STEP_BYTES], max_bytes + 1 - size_bytes)
            )
        except zlib.error as error:
            raise BadRequest(f"the body is not what its content encoding {name} says: {error}") from None
        if size_bytes > max_bytes:
            raise BodyTooLarge(f"the body, inflated, exceeds limits.body ({format_size(max_bytes)})")
        position += _STEP_BYTES
    if not inflater.eof:
        raise BadRequest(f"the body ends before its {name} data do")
    if inflater.unused_data or position < len(body):
        raise BadRequest(f"the body goes on behind its {name} data")
    return result.getvalue()
