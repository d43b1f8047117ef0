"""A tiny HTTP/1.1 caller: sends what it is told, byte for byte, and never waits without a bound. **Effects.**"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

WITHIN_S = 10.0


class ConnectionEnded(Exception):
    """The other side closed before a whole response had come."""


class Response(NamedTuple):
    """One response, as it came."""

    status: int
    version: str
    headers: list[tuple[str, str]]  #: names in lower case
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of that header; more than one is a defect."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"{name} stands {len(values)} times"
        return values[0] if values else None

    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


class Caller:
    """One connection. Every read is bounded; TimeoutError says that the other side is silent."""

    def __init__(self, url: str, *, within_s: float = WITHIN_S, receive_buffer_bytes: int | None = None) -> None:
        address = urlsplit(url)
        self._socket = socket.socket()
        if receive_buffer_bytes is not None:  # before connecting: it decides the window
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._socket.settimeout(within_s)
        try:
            self._socket.connect((address.hostname, address.port))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self._socket.close()
            raise
        self._source = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave."""
        self._source.close()
        self._socket.close()

    def send(self, *pieces: bytes) -> None:
        """Each piece in a write of its own."""
        for piece in pieces:
            self._socket.sendall(piece)

    def renew(self) -> None:
        """Read on after a TimeoutError."""
        self._source.close()
        self._source = self._socket.makefile("rb")

    def call(self, data: bytes, *, to_head: bool = False) -> Response:
        """Send and read the response."""
        self.send(data)
        return self.read_response(to_head=to_head)

    def read_response(self, *, to_head: bool = False) -> Response:
        """Exactly one response, also an interim one. ``to_head``: it answers a HEAD and so has no body."""
        response = self.read_head()
        if to_head or response.status < 200 or response.status in (204, 304):
            return response
        length = response.header("content-length")
        if response.header("transfer-encoding") == "chunked":
            body = b"".join(iter(self.read_chunk, b""))
        elif length is not None:
            body = self._exactly(int(length))
        else:
            body = self._source.read()
        return response._replace(body=body)

    def read_head(self) -> Response:
        """A response up to its body."""
        version, status, _ = self._line().split(" ", 2)
        headers = []
        while line := self._line():
            name, _, value = line.partition(":")
            headers.append((name.lower(), value.strip()))
        return Response(int(status), version, headers, b"")

    def read_chunk(self) -> bytes:
        """The next chunk of a chunked body; nothing when it was the last."""
        size = int(self._line(), 16)
        chunk = self._exactly(size)
        if self._line():
            raise AssertionError("a chunk is longer than it says")
        return chunk

    def read_to_end(self) -> bytes:
        """All that comes until the other side closes."""
        pieces = []
        try:
            while piece := self._source.read1(65536):
                pieces.append(piece)
        except ConnectionResetError:
            pass
        return b"".join(pieces)

    def _line(self) -> str:
        try:
            line = self._source.readline()
        except ConnectionError as error:
            raise ConnectionEnded(repr(error)) from None
        if not line.endswith(b"\r\n"):
            raise ConnectionEnded(f"after {line!r}")
        return line[:-2].decode("latin-1")

    def _exactly(self, size: int) -> bytes:
        body = self._source.read(size)
        if len(body) < size:
            raise ConnectionEnded(f"after {len(body)} of {size} bytes of a body")
        return body


def request(method: str, target: str, headers: Sequence[str] = (), body: bytes | None = None) -> bytes:
    """A request; with a body, also its length."""
    lines = [f"{method} {target} HTTP/1.1", "Host: proxy", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def chunked(pieces: Sequence[bytes]) -> bytes:
    """A chunked body of these pieces."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def ask(url: str, data: bytes, *, to_head: bool = False) -> Response:
    """One request on a connection of its own."""
    with Caller(url) as caller:
        return caller.call(data, to_head=to_head)


def read_metric(admin_url: str, series: str) -> float:
    """The value of one series, such as ``mlproxy_cancelled_total{endpoint="iris"}``; 0 when it is not there."""
    text = ask(admin_url, request("GET", "/metrics")).body.decode()
    match = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return float(match[1]) if match else 0.0
