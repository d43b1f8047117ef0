"""The connections to one URL: over real sockets on loopback, and over a network whose order the test decides."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from mlproxy.backend import BackendCall, BackendFailure, BackendResponse, BackendUrl, ConnectionPool
from mlproxy.units import NS_PER_MS, NS_PER_S

T = TypeVar("T")
Result = BackendResponse | BackendFailure
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


# --- over real sockets ---------------------------------------------------------------------------------------


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
        assert all(isinstance(result, BackendResponse) for result in self.results), self.results
        return [result.body for result in self.results if isinstance(result, BackendResponse)]

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


def test_calls_one_after_the_other_share_one_connection() -> None:
    async def main() -> None:
        async with backend(echo) as (client, accepted):
            for number in range(10):
                result = await client.ask(b"%d" % number)
                assert result == BackendResponse(200, b"", b"%d" % number)
            assert [connection.requests for connection in accepted] == [10]
            assert "1 open, 1 idle, 0 connecting, 0 waiting" in repr(client.pool)

    run(main())


def test_a_request_is_the_callers_bytes_under_one_head() -> None:
    async def main() -> bytes:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            client = Client(listener.getsockname()[1])
            client.pool.send(b"/p", b"accept: x\r\n", [b"ab", memoryview(b"cd")], LONG_NS, client.results.append)
            peer, _ = await asyncio.get_running_loop().sock_accept(listener)
            with peer:
                received = b""
                while not received.endswith(b"\r\n\r\nabcd"):
                    received += await asyncio.get_running_loop().sock_recv(peer, 1000)
            await client.pool.close()
            return received.replace(b"%d" % listener.getsockname()[1], b"PORT")

    assert run(main()) == b"POST /p HTTP/1.1\r\nhost: 127.0.0.1:PORT\r\naccept: x\r\ncontent-length: 4\r\n\r\nabcd"


def test_beyond_max_connections_calls_wait_in_line_and_leave_in_order() -> None:
    held: list[tuple[Backend, bytes]] = []

    async def main() -> None:
        async with backend(lambda *call: held.append(call), max_connections=2) as (client, accepted):
            for number in range(6):
                client.send(b"%d" % number)
            served: list[bytes] = []
            while len(served) < 6:
                await until(lambda: bool(held))
                connection, body = held.pop(0)
                served.append(body)
                echo(connection, body)
            await until(lambda: len(client.results) == 6)
            assert sorted(served[:2]) == [b"0", b"1"]
            assert sorted(client.bodies()) == [b"%d" % number for number in range(6)]
            assert served[2:] == [b"2", b"3", b"4", b"5"]
            assert len(accepted) == 2

    run(main())


def test_a_call_that_is_aborted_in_the_line_is_never_sent() -> None:
    seen: list[bytes] = []
    held: list[tuple[Backend, bytes]] = []

    def script(connection: Backend, body: bytes) -> None:
        seen.append(body)
        held.append((connection, body))

    async def main() -> None:
        async with backend(script, max_connections=1) as (client, _):
            client.send(b"first")
            client.send(b"gone").abort()
            client.send(b"last")
            while len(client.results) < 2:
                await until(lambda: bool(held) or len(client.results) == 2)
                for connection, body in held:
                    echo(connection, body)
                held.clear()
            assert client.bodies() == seen == [b"first", b"last"]

    run(main())


def test_an_aborted_call_makes_room_for_the_next_in_line() -> None:
    async def main() -> None:
        async with backend(silence, max_connections=1) as (client, accepted):
            first = client.send(b"first")
            await until(lambda: len(accepted) == 1 and accepted[0].requests == 1)
            client.send(b"second")
            first.abort()
            await until(lambda: len(accepted) == 2 and accepted[1].requests == 1)
            echo(accepted[1], b"second")
            await until(lambda: bool(client.results))
            assert client.bodies() == [b"second"]

    run(main())


def test_a_kept_connection_that_the_backend_closed_is_replaced_silently() -> None:
    def second_request_meets_the_close(connection: Backend, body: bytes) -> None:
        if connection.requests == 1:
            echo(connection, body)
        else:
            connection.transport.close()

    async def main() -> None:
        async with backend(second_request_meets_the_close) as (client, accepted):
            for number in range(4):
                await client.ask(b"%d" % number)
            assert client.bodies() == [b"0", b"1", b"2", b"3"]
            assert len(accepted) == 4

    run(main())


def test_a_call_on_a_replaced_connection_that_ends_too_is_a_reset() -> None:
    def only_the_first(connection: Backend, body: bytes) -> None:
        if body == b"first":
            echo(connection, body)
        else:
            connection.transport.close()

    async def main() -> None:
        async with backend(only_the_first) as (client, accepted):
            await client.ask(b"first")
            await client.ask(b"second")
            assert client.kinds() == ["answered", "reset"]
            assert len(accepted) == 2

    run(main())


def test_a_connection_closed_while_idle_is_not_used() -> None:
    async def main() -> None:
        async with backend(echo) as (client, accepted):
            await client.ask()
            accepted[0].transport.close()
            await until(lambda: "0 open, 0 idle" in repr(client.pool))
            await client.ask()
            assert client.kinds() == ["answered", "answered"]
            assert len(accepted) == 2

    run(main())


def test_a_backend_that_hangs_up_on_every_caller_costs_each_call_one_reset_and_no_room() -> None:
    async def main() -> None:
        async with backend(silence, max_connections=2) as (client, accepted):
            server_side = Backend.connection_made

            def hang_up(connection: Backend, transport: asyncio.BaseTransport) -> None:
                server_side(connection, transport)
                connection.transport.abort()

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Backend, "connection_made", hang_up)
                for _ in range(100):
                    client.send()
                await until(lambda: len(client.results) == 100)
            assert set(client.kinds()) == {"reset"}
            await until(lambda: "0 open, 0 idle, 0 connecting, 0 waiting" in repr(client.pool))
            assert len(accepted) == 100

    run(main())


def test_nobody_listening_is_a_connect_failure_for_each_call() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = reserved.getsockname()[1]
        client = Client(port, max_connections=1)
        for _ in range(3):
            client.send()
        await until(lambda: len(client.results) == 3)
        assert client.kinds() == ["connect"] * 3
        detail = cast(BackendFailure, client.results[0]).detail
        assert detail.startswith(f"cannot connect to http://127.0.0.1:{port}: ")

    run(main())


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 64])
def test_a_name_that_no_address_can_be_found_for_is_a_connect_failure(host: str) -> None:
    async def main() -> None:
        client = Client(80, host=host)
        await client.ask()
        assert client.kinds() == ["connect"]

    run(main())


# --- time ----------------------------------------------------------------------------------------------------


def test_the_timeout_covers_a_backend_that_does_not_answer() -> None:
    async def main() -> None:
        async with backend(silence) as (client, accepted):
            await client.ask(timeout_ns=SHORT_NS)
            assert client.kinds() == ["timeout"]
            await until(lambda: "0 open" in repr(client.pool))
            assert [connection.requests for connection in accepted] == [1]

    run(main())


def test_the_timeout_covers_waiting_in_line() -> None:
    async def main() -> None:
        async with backend(silence, max_connections=1) as (client, accepted):
            client.send(b"holds the connection")
            await client.ask(b"waits", timeout_ns=SHORT_NS)
            assert client.kinds() == ["timeout"]
            assert [connection.requests for connection in accepted] == [1]

    run(main())


class Network:
    """A loop whose connections are made when the test says so."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.time = self._loop.time
        self.call_later = self._loop.call_later
        self.create_task = self._loop.create_task
        self.attempts: list[asyncio.Future[bool]] = []
        self.lines: list[Line] = []

    async def create_connection(
        self, factory: Callable[[], asyncio.Protocol], *_: object, **__: object
    ) -> tuple[Line, asyncio.Protocol]:
        attempt: asyncio.Future[bool] = self._loop.create_future()
        self.attempts.append(attempt)
        if not await attempt:
            raise ConnectionRefusedError("refused")
        protocol = factory()
        line = Line(protocol)
        self.lines.append(line)
        protocol.connection_made(line)
        return line, protocol

    def open_attempts(self) -> list[asyncio.Future[bool]]:
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
    return Client(80, cast(asyncio.AbstractEventLoop, network), **settings)


async def _turn() -> None:
    for _ in range(4):  # a task's start, its end, its callbacks, what those call soon
        await asyncio.sleep(0)


def test_the_timeout_covers_connecting_and_a_connection_that_comes_too_late_serves_the_next_call() -> None:
    async def main() -> None:
        network = Network()
        client = client_of(network)
        await client.ask(timeout_ns=SHORT_NS)
        assert client.kinds() == ["timeout"]
        network.attempts[0].set_result(True)
        await _turn()
        client.send(b"next")
        assert [line.unanswered for line in network.lines] == [[b"next"]]
        assert len(network.attempts) == 1
        await client.pool.close()

    run(main())


def test_a_connection_that_takes_too_long_is_a_connect_failure() -> None:
    async def main() -> None:
        client = client_of(Network(), connect_timeout_ns=SHORT_NS)
        await client.ask()
        assert client.results == [BackendFailure("connect", "no connection to http://127.0.0.1 within 30ms")]

    run(main())


def test_a_closed_pool_opens_nothing_again() -> None:
    async def main() -> None:
        network = Network()
        client = client_of(network, max_connections=2)
        client.send(b"kept")
        await _turn()
        network.attempts[0].set_result(True)
        await _turn()
        network.lines[0].answer()
        for number in range(4):  # one on the kept connection, one connecting, two in the line
            client.send(b"%d" % number)
        await _turn()
        await client.pool.close()
        await _turn()
        assert network.open_attempts() == []
        assert client.bodies() == [b"kept"]

    run(main())


# --- any order -----------------------------------------------------------------------------------------------

STEPS = st.sampled_from(["send", "connected", "refused", "answer", "cut", "abort", "turn"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(STEPS, st.integers(0, 5)), max_size=40), st.integers(1, 3))
def test_no_connection_ever_has_two_calls_and_every_call_ends_once(
    steps: list[tuple[str, int]], max_connections: int
) -> None:
    async def main() -> None:
        network = Network()
        client = client_of(network, max_connections=max_connections)
        world = World(network, client)
        for step, choice in steps:
            await world.take(step, choice)
            assert all(line.most_unanswered <= 1 for line in network.lines)
            assert world.connections() <= max_connections
        await world.answer_everything()
        assert sorted(world.ended) == world.expected()
        await client.pool.close()

    logging.getLogger("mlproxy.backend").setLevel(logging.WARNING)
    run(main())


class World:
    """Callers, the network and the backend, one step at a time."""

    def __init__(self, network: Network, client: Client) -> None:
        self.network = network
        self._pool = client.pool
        self._calls: list[BackendCall] = []
        self._aborted: set[int] = set()
        self.ended: list[int] = []  #: numbers of the calls whose ``on_done`` was called
        self._steps: dict[str, Callable[[int], Awaitable[None] | None]] = {
            "send": self._send, "connected": self._connected, "refused": self._refused,
            "answer": self._answer, "cut": self._cut, "abort": self._abort, "turn": lambda _: _turn(),
        }  # fmt: skip

    async def take(self, step: str, choice: int) -> None:
        done = self._steps[step](choice)
        if done is not None:
            await done

    def expected(self) -> list[int]:
        return [number for number in range(len(self._calls)) if number not in self._aborted]

    def connections(self) -> int:
        return len(self.network.open_attempts()) + sum(not line.is_closing() for line in self.network.lines)

    async def answer_everything(self) -> None:
        for _ in range(3 * len(self._calls) + 3):
            await _turn()
            for attempt in self.network.open_attempts():
                attempt.set_result(True)
            for choice in range(len(self.network.lines)):
                self._answer(choice)
        await _turn()

    def _send(self, _: int) -> None:
        number = len(self._calls)
        body = b"%d" % number

        def done(result: Result) -> None:
            assert isinstance(result, BackendFailure) or result.body == body
            self.ended.append(number)

        self._calls.append(self._pool.send(b"/p", b"", [body], LONG_NS, done))

    def _connected(self, choice: int) -> None:
        self._settle(choice, reachable=True)

    def _refused(self, choice: int) -> None:
        self._settle(choice, reachable=False)

    def _settle(self, choice: int, *, reachable: bool) -> None:
        if attempts := self.network.open_attempts():
            attempts[choice % len(attempts)].set_result(reachable)

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
