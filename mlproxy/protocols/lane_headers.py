"""Request headers that separate lanes and go to the backend with the batch (`batching.lane_headers`). **Pure.**

An ingress worker puts the lines of a request's lane headers, behind their length, in front of its lane key; the
batcher's codec takes them off again. So a batch has the headers that all of its members have, as they were sent:
absent, empty and said twice are three different things.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from mlproxy.protocols.codec import BatchBody, Codec, Cut, Text

_LENGTH = struct.Struct("<I")


class LaneHeaders:
    """The names of an endpoint's lane headers, in lower case; in their order, so that the caller's does not matter."""

    __slots__ = ("names",)

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(name.encode() for name in names)

    def __repr__(self) -> str:
        return f"<LaneHeaders {b', '.join(self.names).decode()}>"

    def of(self, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
        """What those of a request add to its lane key, never nothing; names of ``headers`` are in lower case.

        A header that comes twice stays two lines: to join them is wrong for some (Authorization, Cookie), and who
        takes lists takes lines (RFC 9110 §5.3).
        """
        lines = b"".join([b"%b: %b\r\n" % header for name in self.names for header in headers if header[0] == name])
        return _LENGTH.pack(len(lines)) + lines


def split_lane_key(lane_key: bytes) -> tuple[bytes, bytes]:
    """The header lines in a lane key, and the codec's own key behind them."""
    [length] = _LENGTH.unpack_from(lane_key)
    end = _LENGTH.size + length
    return lane_key[_LENGTH.size : end], lane_key[end:]


class WithLaneHeaders:
    """A codec for lane keys that begin with header lines: these are a batch's first headers."""

    def __init__(self, codec: Codec[Any]) -> None:
        self._codec = codec
        self.name = codec.name
        self.parse_request = codec.parse_request
        self.split_reply = codec.split_reply
        self.render = codec.render
        self.values = codec.values

    def join(self, lane_key: bytes, items: Sequence[Text]) -> BatchBody:
        """As the codec does, with the header lines."""
        lines, key = split_lane_key(lane_key)
        body = self._codec.join(key, items)
        return body._replace(headers=lines + body.headers)

    def cut(self, lane_key: bytes, items: Text) -> Cut:
        """As the codec does."""
        return self._codec.cut(split_lane_key(lane_key)[1], items)
