"""A pool as a test uses it, and a scripted server for it to call, over real sockets on loopback. **Effects.**"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import uvloop

from mlproxy.backend import BackendCall, BackendFailure, BackendReply, BackendUrl, ConnectionPool
from mlproxy.units import NS_PER_MS, NS_PER_S

T = TypeVar("T")
Result = BackendReply | BackendFailure
LONG_NS = 30 * NS_PER_S
SHORT_NS = 30 * NS_PER_MS


def reply(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def run(main: Coroutine[Any, Any, T]) -> T:
    """On the loop that the batcher runs on. A defect within a callback or a task fails the test."""
    defects: list[dict[str, Any]] = []

    async def watched() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: defects.append(context))
        async with asyncio.timeout(20):
            return await main

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(watched())
    assert defects == []
    return result


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until ``condition`` holds; `run` bounds the wait."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.001)


class Backend(asyncio.Protocol):
    """A connection of the scripted server: hands every whole request to the script."""

    def __init__(self, script: Callable[[Backend, bytes], None], accepted: list[Backend]) -> None:
        self._script = script
        self._received = b""
        self.accepted = accepted
        self.requests = 0  #: on this connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.accepted.append(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if separator and len(body) == int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            self._received = b""
            self.requests += 1
            self._script(self, body)


def echo(backend: Backend, body: bytes) -> None:
    """Answer with the request's body."""
    backend.transport.write(reply(body))


def silence(backend: Backend, body: bytes) -> None:
    """Never answer."""


class Client:
    """A pool, and the results of its calls in the order in which they came."""

    def __init__(self, port: int, loop: asyncio.AbstractEventLoop | None = None, **settings: Any) -> None:
        settings = {"max_connections": 4, "connect_timeout_ns": LONG_NS, "max_reply_bytes": 1000} | settings
        url = BackendUrl("http", settings.pop("host", "127.0.0.1"), port, "")
        self.pool = ConnectionPool(url, loop or asyncio.get_running_loop(), **settings)
        self.results: list[Result] = []

    def send(self, body: bytes = b"1", timeout_ns: int = LONG_NS) -> BackendCall:
        return self.pool.send(b"/p", b"accept: x\r\n", [body], timeout_ns, self.results.append)

    async def ask(self, body: bytes = b"1", timeout_ns: int = LONG_NS) -> Result:
        """Send, and wait for the result."""
        before = len(self.results)
        self.send(body, timeout_ns)
        await until(lambda: len(self.results) > before)
        return self.results[-1]

    def bodies(self) -> list[bytes]:
        assert all(isinstance(result, BackendReply) for result in self.results), self.results
        return [result.body for result in self.results if isinstance(result, BackendReply)]

    def kinds(self) -> list[str]:
        return [result.kind if isinstance(result, BackendFailure) else "answered" for result in self.results]


@asynccontextmanager
async def backend(
    script: Callable[[Backend, bytes], None], **settings: Any
) -> AsyncIterator[tuple[Client, list[Backend]]]:
    """A server that follows ``script``, a client of it, and the connections that the server accepted so far."""
    accepted: list[Backend] = []
    server = await asyncio.get_running_loop().create_server(lambda: Backend(script, accepted), "127.0.0.1", 0)
    client = Client(server.sockets[0].getsockname()[1], **settings)
    try:
        yield client, accepted
    finally:
        server.close()
        await client.pool.close()
        for connection in accepted:
            connection.transport.abort()
        await server.wait_closed()
