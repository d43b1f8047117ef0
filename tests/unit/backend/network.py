"""A network whose order the test decides, and a world of callers on it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

from mlproxy.backend import BackendCall, BackendFailure
from tests.unit.backend.client import LONG_NS, Client, Result, reply


class Network:
    """A loop whose connections are made when the test says so."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.time = self._loop.time
        self.call_later = self._loop.call_later
        self.create_task = self._loop.create_task
        self.attempts: list[asyncio.Future[str]] = []
        self.lines: list[Line] = []

    async def dial(self, *_: object) -> socket.socket:
        attempt: asyncio.Future[str] = self._loop.create_future()
        self.attempts.append(attempt)
        self.outcome = await attempt
        if self.outcome == "refused":
            raise ConnectionRefusedError("refused")
        return socket.socket()  # never used: `create_connection` makes a line

    async def create_connection(
        self, factory: Callable[[], asyncio.Protocol], *, sock: socket.socket
    ) -> tuple[Line, asyncio.Protocol]:
        sock.close()
        protocol = factory()
        line = Line(protocol)
        self.lines.append(line)
        protocol.connection_made(line)
        if self.outcome == "lost":  # before this very function returns
            line.abort()
            await turn()
        return line, protocol

    def open_attempts(self) -> list[asyncio.Future[str]]:
        return [attempt for attempt in self.attempts if not attempt.done()]


class Line(asyncio.Transport):
    """A connection: counts requests on it that were neither answered nor cut off."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._closing = False
        self.unanswered: list[bytes] = []
        self.most_unanswered = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._closing, "a request on a closed connection"
        self.unanswered.append(bytes(data).rpartition(b"\r\n\r\n")[2])
        self.most_unanswered = max(self.most_unanswered, len(self.unanswered))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self._closing

    def abort(self) -> None:
        """Either side ends it."""
        if not self._closing:
            self._closing = True
            self.unanswered.clear()
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def answer(self) -> None:
        self._protocol.data_received(reply(self.unanswered.pop(0)))


def client_of(network: Network, **settings: Any) -> Client:
    return Client(80, cast(asyncio.AbstractEventLoop, network), dial=network.dial, **settings)


async def turn() -> None:
    for _ in range(4):  # a task's start, its end, its callbacks, what those call soon
        await asyncio.sleep(0)


class World:
    """Callers, the network and the backend, one step at a time."""

    def __init__(self, network: Network, client: Client) -> None:
        self.network = network
        self._pool = client.pool
        self._calls: list[BackendCall] = []
        self._aborted: set[int] = set()
        self.ended: list[int] = []  #: numbers of the calls whose ``on_done`` was called
        self._steps: dict[str, Callable[[int], Awaitable[None] | None]] = {
            "send": self._send, "connected": self._settle("connected"), "refused": self._settle("refused"),
            "lost": self._settle("lost"),
            "answer": self._answer, "cut": self._cut, "abort": self._abort, "turn": lambda _: turn(),
        }  # fmt: skip

    async def take(self, step: str, choice: int) -> None:
        done = self._steps[step](choice)
        if done is not None:
            await done

    def expected(self) -> list[int]:
        return [number for number in range(len(self._calls)) if number not in self._aborted]

    def connections(self) -> int:
        return len(self.network.open_attempts()) + sum(not line.is_closing() for line in self.network.lines)

    def counted(self) -> int:
        """As many connections as the pool believes to have."""
        return len(self._pool._open) + len(self._pool._connecting)

    async def answer_everything(self) -> None:
        for _ in range(3 * len(self._calls) + 3):
            await turn()
            for attempt in self.network.open_attempts():
                attempt.set_result("connected")
            for choice in range(len(self.network.lines)):
                self._answer(choice)
        await turn()

    def _send(self, _: int) -> None:
        number = len(self._calls)
        body = b"%d" % number

        def done(result: Result) -> None:
            assert isinstance(result, BackendFailure) or result.body == body
            self.ended.append(number)

        self._calls.append(self._pool.send(b"/p", b"", [body], LONG_NS, done))

    def _settle(self, outcome: str) -> Callable[[int], None]:
        def settle(choice: int) -> None:
            if attempts := self.network.open_attempts():
                attempts[choice % len(attempts)].set_result(outcome)

        return settle

    def _answer(self, choice: int) -> None:
        if busy := [line for line in self.network.lines if line.unanswered]:
            busy[choice % len(busy)].answer()

    def _cut(self, choice: int) -> None:
        if self.network.lines:
            self.network.lines[choice % len(self.network.lines)].abort()

    def _abort(self, choice: int) -> None:
        if self._calls:
            number = choice % len(self._calls)
            if number not in self.ended:
                self._aborted.add(number)
            self._calls[number].abort()
