"""The same requests with and without batching: callers that know what the backend answers to each of them alone.
**Effects**: sockets on loopback.

A model server that transforms item by item, refuses a call with poison in it, and now and then is busy, resets the
connection or answers an item too few; callers of every protocol that send their requests through a proxy to it, at
once, and sometimes leave. Which of a request's calls went wrong is known, so that a refusal without a reason is seen.
What a protocol is to it, `tests.system.differential_kinds` says.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson

from bench.soak_caller import Connection
from tests.system.differential_kinds import Kind, Message

#: Beyond three calls that fail, and what an engine does about it.
ANSWER_WITHIN_S = 20.0
CONNECTIONS = 96
POISON_SHARE, LEAVING_SHARE, TROUBLE_SHARE = 0.01, 0.03, 0.02
SERVICE_S = 0.004
#: What a caller may be told whose call went wrong as often as it may be made.
REFUSALS = frozenset({"backend-unavailable", "backend-contract", "overloaded"})


def answer_of(kind: Kind, message: Message) -> tuple[int, Message]:
    """What the model server answers: a function of the call alone."""
    items = kind.read(message)
    poisoned = {item.request for item in items if item.poison}
    if poisoned and len({item.request for item in items}) > 1:
        return 400, Message("", orjson.dumps({"error": "somebody in this batch", "requests": len(items)}))
    if poisoned:
        return 422, Message("", orjson.dumps({"error": "poison", "request": poisoned.pop()}))
    return 200, kind.write(message, items)


class Double:
    """The model server of all endpoints, each below a path of its own."""

    def __init__(self, kinds: Sequence[Kind], rng: random.Random) -> None:
        self.troubled: set[int] = set()  #: requests that were in a call that went wrong
        self.alone: Counter[int] = Counter()  #: calls that had nothing but that poison request
        self.sizes: Counter[int] = Counter()  #: requests per call
        self.defects: list[str] = []
        self._kinds = {f"/{kind.name}": kind for kind in kinds}
        self._random = rng
        self._open: dict[asyncio.StreamWriter, asyncio.Future[None]] = {}

    async def close(self) -> None:
        """End every connection."""
        for writer in self._open:
            writer.transport.abort()
        await asyncio.gather(*self._open.values())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the proxy's."""
        self._open[writer] = ended = asyncio.get_running_loop().create_future()
        with suppress(EOFError, ConnectionError):
            while True:
                path, message = await _read_call(reader)
                await asyncio.sleep(self._random.uniform(0, SERVICE_S))
                kind = self._kinds[path]
                try:
                    whole = await self._answer(kind, message, writer)
                except (ValueError, KeyError, TypeError) as error:
                    self.defects.append(f"{error!r} in {message!r}")
                    whole = False
                if not whole:
                    break
        writer.close()
        del self._open[writer]
        ended.set_result(None)

    async def _answer(self, kind: Kind, message: Message, writer: asyncio.StreamWriter) -> bool:
        items = kind.read(message)
        requests = {item.request for item in items}
        self.sizes[len(requests)] += 1
        status, reply = answer_of(kind, message)
        if status == 422:
            self.alone.update(requests)
        elif self._random.random() < TROUBLE_SHARE:
            self.troubled |= requests
            match self._random.choice(("busy", "reset", "short")):
                case "busy":
                    status, reply = 503, Message("", b'{"error": "busy"}')
                case "reset":
                    Connection(_NOBODY, writer).leave()
                    return False
                case _ if status == 200 and len(items) > 1:
                    reply = kind.write(message, items[:-1])
                case _:
                    status, reply = 500, Message("", b'{"error": "nothing to leave out"}')
        writer.write(b"HTTP/1.1 %d Said\r\n" % status + _head_of(reply) + reply.body)
        await writer.drain()
        return True


_NOBODY = asyncio.StreamReader()


async def _read_call(reader: asyncio.StreamReader) -> tuple[str, Message]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
    body = await reader.readexactly(int(headers["content-length"]))
    return head[0].split(" ")[1], Message(headers.get("inference-header-content-length", ""), body)


def _type_of(message: Message) -> bytes:
    return b"application/octet-stream" if message.json_bytes else b"application/json"


def _head_of(message: Message) -> bytes:
    length = f"Inference-Header-Content-Length: {message.json_bytes}\r\n" if message.json_bytes else ""
    return b"Content-Type: %b\r\n%bContent-Length: %d\r\n\r\n" % (_type_of(message), length.encode(), len(message.body))


class Answer(NamedTuple):
    """What a caller got."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    def is_exactly(self, status: int, expected: Message) -> bool:
        """Byte for byte, and with the same words about the body."""
        json_bytes = self.headers.get(b"inference-header-content-length", b"").decode()
        said = (self.status, self.headers[b"content-type"], json_bytes, self.body)
        return said == (status, _type_of(expected), expected.json_bytes, expected.body)

    def is_refusal(self) -> bool:
        """The proxy's own, or the double's words to a request that was alone with it."""
        if self.status < 500:
            return False
        document: dict[str, Any] = orjson.loads(self.body)
        slug = str(document.get("type", "")).removeprefix("urn:mlproxy:error:")
        return slug in REFUSALS or document.get("error") in ("busy", "nothing to leave out")


class Callers:
    """So many requests of mixed protocols and shapes, some with poison, and what became of them."""

    def __init__(self, kinds: Sequence[Kind], rng: random.Random, double: Double) -> None:
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.poisonous: set[int] = set()  #: those with poison whose callers stayed
        self.refused: set[int] = set()  #: whose call went wrong as often as it may be made
        self._kinds = kinds
        self._random = rng
        self._double = double

    async def send(self, url: str, requests: int) -> None:
        """All of them, on connections that each have one at a time."""
        numbers = iter(range(1, requests + 1))
        async with asyncio.TaskGroup() as connections:
            for _ in range(CONNECTIONS):
                connections.create_task(self._one_connection(url, numbers))

    async def _one_connection(self, url: str, numbers: Iterator[int]) -> None:
        address = urlsplit(url)
        connection: Connection | None = None
        for number in numbers:
            if connection is None:
                connection = Connection(*await asyncio.open_connection(address.hostname, address.port, limit=2**24))
            kind = self._random.choice(self._kinds)
            poison, leaving = self._random.random() < POISON_SHARE, self._random.random() < LEAVING_SHARE
            message = kind.request(self._random, number, poison)
            head = b"POST %b HTTP/1.1\r\nHost: proxy\r\n" % kind.route.encode() + _head_of(message)
            if leaving:
                await self._leave(connection, head + message.body)
                connection = None
                continue
            if poison:
                self.poisonous.add(number)
            try:
                connection.send(head + message.body)
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    status, headers, body = await connection.response()
            except (TimeoutError, EOFError, ConnectionError) as error:
                self.wrong.append(f"{kind.name} {number}: no answer: {error!r}")
                connection = None
                continue
            self._compare(kind, number, message, Answer(status, headers, body))
        if connection is not None:
            connection.writer.close()

    async def _leave(self, connection: Connection, data: bytes) -> None:
        connection.send(data if self._random.random() < 0.7 else data[: self._random.randrange(1, len(data))])
        await asyncio.sleep(self._random.uniform(0, 2 * SERVICE_S))
        connection.leave()
        self.outcomes["left"] += 1

    def _compare(self, kind: Kind, number: int, message: Message, answer: Answer) -> None:
        status, expected = answer_of(kind, message)
        if answer.is_exactly(status, expected):
            self.outcomes[f"{kind.name} {status}"] += 1
        elif number in self._double.troubled and answer.is_refusal():
            self.refused.add(number)
            self.outcomes[f"refused with {answer.status}, the backend having failed"] += 1
        else:
            self.wrong.append(
                f"{kind.name} {number}: {answer!r:.400}\n  instead of {status} {expected!r:.400}\n  to {message!r:.400}"
            )


async def compare(
    kinds: Sequence[Kind], proxy_url: str, listening: Any, requests: int, seed: int
) -> tuple[Double, Callers]:
    """Serve on the socket ``listening`` and send through ``proxy_url``, until every request has had its end."""
    rng = random.Random(seed)
    double = Double(kinds, random.Random(rng.random()))
    callers = Callers(kinds, random.Random(rng.random()), double)
    server = await asyncio.start_server(double.serve, sock=listening, limit=2**24)
    try:
        await callers.send(proxy_url, requests)
    finally:
        server.close()
        await double.close()
    return double, callers
