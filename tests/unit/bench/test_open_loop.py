"""The load generator against scripted servers on loopback."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import pytest

from bench.load import (
    BAD_RESPONSE,
    CONNECTION_CLOSED,
    NO_ANSWER_IN_TIME,
    NOT_CONNECTED,
    NOT_SENT,
    Load,
    Result,
    poisson_ns,
)
from bench.open_loop import OpenLoop
from mlproxy.units import NS_PER_MS, NS_PER_S

BODY = b'{"instances": [[1]]}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

Script = Callable[["ScriptedServer", asyncio.Transport], None]


class ScriptedServer:
    """Calls ``script`` for every whole request; remembers what it saw."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.bodies: list[bytes] = []
        self.waiting: list[asyncio.Transport] = []
        self.transports: list[asyncio.Transport] = []

    def answer_waiting(self) -> None:
        """Everybody who was kept waiting."""
        for transport in self.waiting:
            transport.write(OK)


class _ServerSide(asyncio.Protocol):
    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.transports.append(self._transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if separator and len(body) == int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            self._received = b""
            self._server.bodies.append(body)
            self._server.script(self._server, self._transport)


def answer(server: ScriptedServer, transport: asyncio.Transport) -> None:
    transport.write(OK)


def keep_waiting(server: ScriptedServer, transport: asyncio.Transport) -> None:
    server.waiting.append(transport)


def drive(
    script: Script,
    meanwhile: Callable[[ScriptedServer], Awaitable[None]] | None = None,
    *,
    bodies: tuple[bytes, ...] = (BODY,),
    due_ns: Sequence[int] | None = None,
    duration_s: float = 0.2,
    answer_within_s: float = 10.0,
    max_outstanding: int = 1000,
    started_ns: int | None = None,
) -> tuple[Result, ScriptedServer]:
    """Run a load against ``script``, and ``meanwhile`` beside it."""

    async def run() -> tuple[Result, ScriptedServer]:
        server = ScriptedServer(script)
        listening = await asyncio.get_running_loop().create_server(lambda: _ServerSide(server), "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/predict"
        load = Load(
            url=url, bodies=bodies, due_ns=poisson_ns(200, duration_s) if due_ns is None else due_ns,
            answer_within_s=answer_within_s, max_outstanding=max_outstanding,
        )  # fmt: skip
        try:
            async with asyncio.TaskGroup() as group:
                if meanwhile is not None:
                    group.create_task(_as_coroutine(meanwhile(server)))
                result = await OpenLoop(load).run(started_ns)
        finally:
            listening.close()
            for transport in server.transports:
                transport.abort()
            await asyncio.sleep(0)
        return result, server

    return asyncio.run(run())


async def _as_coroutine(work: Awaitable[None]) -> None:
    await work


def test_answered_requests_are_counted_and_timed() -> None:
    result, server = drive(answer)
    assert result.due == result.sent == result.answered == len(server.bodies) > 10
    assert not result.failed
    assert result.share_within(10 * NS_PER_S) == 1.0
    assert result.percentile_ms(50) is not None


def test_bodies_are_sent_in_turn() -> None:
    _, server = drive(answer, bodies=(b"a", b"bb", b"ccc"))
    assert server.bodies[:6] == [b"a", b"bb", b"ccc"] * 2


def test_connections_are_used_again() -> None:
    result, server = drive(answer, duration_s=0.5)
    assert len(server.transports) < result.due


def test_a_server_that_stalls_does_not_slow_the_load_and_is_charged_for_all_of_the_wait() -> None:
    load_s, stall_s = 0.2, 0.4

    async def end_the_stall(server: ScriptedServer) -> None:
        await asyncio.sleep(stall_s)
        server.answer_waiting()

    result, server = drive(keep_waiting, end_the_stall, duration_s=load_s)
    assert len(server.waiting) == result.due == result.answered > 10
    assert min(result.latencies_ns) >= (stall_s - load_s) * NS_PER_S
    assert max(result.latencies_ns) - min(result.latencies_ns) >= load_s / 2 * NS_PER_S


def test_a_request_that_leaves_late_is_timed_from_the_instant_it_was_due() -> None:
    load_s, blocked_s = 0.1, 0.4

    async def block_the_generator(server: ScriptedServer) -> None:
        time.sleep(blocked_s)  # noqa: ASYNC251 - nothing can leave meanwhile, which is the point

    result, _ = drive(answer, block_the_generator, duration_s=load_s)
    assert result.answered == result.due > 5
    assert min(result.latencies_ns) >= (blocked_s - load_s) * NS_PER_S


def test_refused_connections_are_counted() -> None:
    with socket.socket() as not_listening:
        not_listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{not_listening.getsockname()[1]}/"
        result = asyncio.run(OpenLoop(Load(url=url, bodies=[BODY], due_ns=poisson_ns(200, 0.1))).run())
    assert result.failed == {NOT_CONNECTED: result.due}
    assert result.due > 5
    assert result.sent == 0


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "503"),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "400"),
        (b"what is HTTP?\r\n\r\n", BAD_RESPONSE),
    ],
)
def test_a_failure_is_counted_under_its_reason(reply: bytes, reason: str) -> None:
    result, _ = drive(lambda server, transport: transport.write(reply), duration_s=0.1)
    assert result.failed == {reason: result.due}
    assert result.due > 5


def test_a_connection_that_ends_before_the_answer_is_a_failure() -> None:
    result, _ = drive(lambda server, transport: transport.abort(), duration_s=0.1)
    assert result.failed == {CONNECTION_CLOSED: result.due}
    assert result.due > 5


def test_an_interim_response_is_not_the_answer() -> None:
    def answer_twice(server: ScriptedServer, transport: asyncio.Transport) -> None:
        transport.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK)

    result, server = drive(answer_twice, duration_s=0.1)
    assert result.answered == result.due == len(server.bodies) > 5


def test_waiting_for_answers_has_a_bound() -> None:
    result, _ = drive(keep_waiting, duration_s=0.1, answer_within_s=0.05)
    assert result.failed == {NO_ANSWER_IN_TIME: result.due}
    assert result.percentile_ms(50) is None
    assert result.share_within(NS_PER_S) == 0.0


def test_outstanding_requests_have_a_bound() -> None:
    result, server = drive(keep_waiting, duration_s=0.1, answer_within_s=0.05, max_outstanding=3)
    assert len(server.transports) == result.sent == 3
    assert result.failed == {NOT_SENT: result.due - 3, NO_ANSWER_IN_TIME: 3}


def test_requests_are_due_at_the_given_instants_after_the_given_start() -> None:
    due_ns = [0, 0, 30 * NS_PER_MS, 50 * NS_PER_MS]
    result, _ = drive(answer, due_ns=due_ns, started_ns=time.monotonic_ns() - NS_PER_S)
    assert sorted(result.answered_numbers) == [0, 1, 2, 3]
    for number, latency_ns in zip(result.answered_numbers, result.latencies_ns, strict=True):
        assert latency_ns >= NS_PER_S - due_ns[number]
    assert result.elapsed_ns >= NS_PER_S


def test_a_load_of_nothing_ends_at_once() -> None:
    result, _ = drive(answer, due_ns=[])
    assert (result.due, result.answered, result.failed) == (0, 0, {})


def test_every_due_request_counts_in_the_percentiles() -> None:
    result = Result(due=10, latencies_ns=[ms * NS_PER_MS for ms in (9, 1, 8, 2, 7, 3, 6, 4, 5)])
    result.failed["503"] += 1
    assert result.percentile_ms(50) == 5
    assert result.percentile_ms(90) == 9
    assert result.percentile_ms(99) is None
    assert result.share_within(4 * NS_PER_MS) == 0.4
