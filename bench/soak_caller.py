"""A caller in a soak: sends what it is told to, and checks what it gets. **Effects.**

It sends what nobody else sends, so an answer that is not its own is seen. What kinds of exchanges there are, is
`bench.soak_kinds`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import socket
import struct
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import orjson

from mlproxy.units import NS_PER_S

#: Beyond a backend that stalls in every attempt, a batcher that hangs and is found out, and its successor's start.
ANSWER_WITHIN_S = 45.0
#: Documented ways to be told no, beside what a caller brought on itself.
REFUSALS = frozenset({
    "overloaded", "backend-unavailable", "backend-contract", "backend-timeout", "suspect-request",
    "relayed-503",  # of a backend that was busy, for a request that was alone in its call
})  # fmt: skip
Kind: TypeAlias = "Callable[[Caller], Awaitable[None]]"


class Wrong(AssertionError):
    """An answer that must not be."""


class Tally:
    """What became of all exchanges, and everything that was wrong."""

    def __init__(self) -> None:
        self.sent = 0  #: predictions
        self.outcomes: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()  #: of predictions on predict routes that are counted by the proxy
        self.wrong: list[str] = []
        self.slowest_s = 0.0
        self.worker_killed_ns = 0  #: the last time that connections were lost for a reason

    def saw(self, outcome: str) -> None:
        """One exchange ended."""
        self.outcomes[outcome] += 1


class Connection:
    """A connection, with the instant from which on it may be lost for a reason."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.opened_ns = time.monotonic_ns()

    def send(self, data: bytes) -> None:
        """Without waiting."""
        if self.writer.transport.is_closing():  # uvloop would raise RuntimeError
            raise ConnectionResetError("the other side closed")
        self.writer.write(data)

    def leave(self) -> None:
        """With a reset."""
        raw = self.writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def response(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """The next final one: status, headers, body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        status = int(lines[0].split(b" ")[1])
        if status == 100:
            return await self.response()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:-2])}
        return status, headers, await self.reader.readexactly(int(headers[b"content-length"]))


class Caller:
    """One exchange, of one kind."""

    def __init__(self, address: tuple[str, int], tally: Tally, rng: random.Random, number: int) -> None:
        self.rng = rng
        self.number = number
        self._address = address
        self._tally = tally
        self._sequence = 0
        self._connection: Connection | None = None

    async def run(self, kind: Kind) -> None:
        """Make the exchange, within its bound."""
        name, began = kind.__name__, time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await kind(self)
        except TimeoutError:
            self._tally.wrong.append(f"{name} {self.number}: no end within {ANSWER_WITHIN_S:g} s")
        except (Wrong, ValueError) as error:  # what comes is no HTTP, or no JSON
            self._tally.wrong.append(f"{name} {self.number}: {error}")
        except (OSError, EOFError) as error:
            self._lost(name, error)
        finally:
            self._tally.slowest_s = max(self._tally.slowest_s, time.monotonic() - began)
            if self._connection is not None:
                self._connection.writer.close()

    def _lost(self, name: str, error: Exception) -> None:
        opened_ns = self._connection.opened_ns if self._connection else time.monotonic_ns()
        if self._tally.worker_killed_ns < opened_ns - NS_PER_S // 10:
            self._tally.wrong.append(f"{name} {self.number}: cut off without a reason: {error!r}")
        self._tally.saw("lost with its worker")

    # --- what kinds are made of ------------------------------------------------------------------------------

    async def open(self, receive_bytes: int = 0) -> Connection:
        """A new connection."""
        raw = socket.socket()
        raw.setblocking(False)
        if receive_bytes:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        await asyncio.get_running_loop().sock_connect(raw, self._address)
        self._connection = Connection(*await asyncio.open_connection(sock=raw, limit=2**24))
        return self._connection

    def instances(self, count: int = 1, padding: int = 0, poison: bool = False) -> list[Any]:
        """That nobody else sends."""
        self._sequence += 1
        word = "poison" if poison else "fine"
        return [[f"{self.number}-{self._sequence}-{i}", word, "x" * padding] for i in range(count)]

    def garbage(self, data: bytes) -> bytes:
        """``data``, which may count as one prediction, refused."""
        self._tally.sent += 1
        return data

    def request(
        self, instances: Sequence[Any], *headers: bytes, version: bytes = b"1.1", chunked: int = 0, coding: str = "",
    ) -> bytes:  # fmt: skip
        """A prediction, to one of the two endpoints and one of a few lanes."""
        route, document = b"/v1/models/a:predict", {"instances": instances, "signature_name": f"s{self.number % 3}"}
        body = orjson.dumps(document)
        if self.number % 4 == 0:
            route, body = b"/b/predict", orjson.dumps(instances)
        head = b"POST %b HTTP/%b\r\nHost: soak\r\nContent-Type: application/json\r\n" % (route, version)
        head += b"".join(header + b"\r\n" for header in headers)
        if coding:
            body = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
            head += b"Content-Encoding: %b\r\n" % coding.encode()
        self._tally.sent += 1
        if not chunked:
            return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        pieces = (body[start : start + chunked] for start in range(0, len(body), chunked))
        text = b"".join(b"%x;why=not\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + text + b"0\r\nX-Trailer: yes\r\n\r\n"

    async def expect(self, connection: Connection, instances: Sequence[Any], *excuses: str) -> None:
        """The answer to ``instances``, or a documented refusal."""
        status, headers, body = await connection.response()
        self._tally.statuses[str(status)] += 1
        document = orjson.loads(body)
        if status == 200:
            answer = document["predictions"] if isinstance(document, dict) else document
            if answer != instances:
                raise Wrong(f"somebody else's answer: {body[:200]!r} to {str(instances)[:200]}")
            self._tally.saw("answered")
            return
        slug = document.get("type", f"relayed-{status}").removeprefix("urn:mlproxy:error:")
        if slug not in REFUSALS and slug not in excuses:
            raise Wrong(f"{status} {body[:300]!r}")
        if b"x-request-id" not in headers:
            raise Wrong("an error without a request id")
        self._tally.saw(slug)
