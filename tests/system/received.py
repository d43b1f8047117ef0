"""What a scripted backend receives: requests, and the instances in their bodies. **Effects**: reads sockets.

Like the backend itself it imports nothing of the product.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_value_at = json.JSONDecoder().raw_decode
_SPACE = re.compile(r"[ \t\r\n]*")


class NotABatch(ValueError):
    """What came is not a batch that the proxy may send."""


@dataclass(eq=False)
class Recorded:
    """A request that the backend got; its body grows while it arrives."""

    connection: int
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False

    def header(self, name: str) -> str | None:
        """The first header of that name, if any."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def instances(self) -> list[bytes]:
        """The text of each instance."""
        return instances_of(bytes(self.body))


def read_head(source: Any, connection: int) -> Recorded | None:
    """The next request on a connection, without its body; None when there is none."""
    first = source.readline()
    if not first.endswith(b"\r\n"):
        return None
    method, target, _ = first.decode("latin-1").split(" ")
    headers = []
    while (line := source.readline()) != b"\r\n":
        if not line:
            return None
        name, _, value = line.decode("latin-1").partition(":")
        headers.append((name, value.strip()))
    return Recorded(connection, method, target, headers)


def read_body(source: Any, request: Recorded) -> None:
    """Piece by piece, so that a test can watch it grow."""
    if request.header("transfer-encoding") == "chunked":
        while size := _chunk_size(source):
            _read_exactly(source, size, request.body)
            source.readline()
        while source.readline() not in (b"\r\n", b""):  # trailers
            pass
    else:
        _read_exactly(source, int(request.header("content-length") or 0), request.body)
    request.complete = True


def _chunk_size(source: Any) -> int:
    line = source.readline()
    if not line:
        raise ConnectionResetError("the proxy left between two chunks")
    return int(line, 16)


def _read_exactly(source: Any, size: int, into: bytearray) -> None:
    while size:
        piece = source.read1(size)
        if not piece:
            raise ConnectionResetError("the proxy left in the middle of a body")
        into += piece
        size -= len(piece)


def instances_of(body: bytes) -> list[bytes]:
    """The text of each instance of a batch; `NotABatch` unless it is one, whole and well-formed."""
    return elements_of(body) if body.startswith(b"[") else elements_of(body, "instances")


def elements_of(body: bytes, *names: str) -> list[bytes]:
    """The text of each element of the array to which ``names`` lead; `NotABatch` unless there is one."""
    try:
        text = body.decode()
        json.loads(text)
        for name in names:
            text = text[_value_of(text, name) :]
        return [element.encode() for element in _elements(text)]
    except (ValueError, RecursionError) as error:
        raise NotABatch(f"not a batch: {error}") from None


def _value_of(text: str, wanted: str) -> int:
    """Where the value of member ``wanted`` starts."""
    position = 1
    while True:
        name, position = _value_at(text, _skip(text, position))
        position = _skip(text, _skip(text, position) + 1)
        if name == wanted:
            return position
        _, position = _value_at(text, position)
        position = _skip(text, position)
        if text[position] == "}":
            raise ValueError(f"no {wanted}")
        position += 1


def _elements(text: str) -> Iterator[str]:
    position = _skip(text, 1)
    if text[position] == "]":
        raise ValueError("a batch of nothing")
    while text[position - 1] != "]":
        _, end = _value_at(text, position)
        yield text[position:end]
        position = _skip(text, _skip(text, end) + 1) if text[_skip(text, end)] == "," else _skip(text, end) + 1


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()
