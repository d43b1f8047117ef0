"""A connection's own state, with a transport that only pretends: what the watchdog will see."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any, cast

import pytest
import uvicorn

from mlproxy.config import Configuration
from mlproxy.observe import IngressMetrics, MetricPage, PageLayout
from workers.ingress.door import Door
from workers.ingress.phase import Phase
from workers.ingress.protocol import IngressProtocol

HEAD = b"POST /v1/models/iris:predict HTTP/1.1\r\nHost: proxy\r\nContent-Length: %d\r\n\r\n"
BODY = b'{"instances": [1]}'


class Transport:
    """Remembers what was written, and whether it reads."""

    def __init__(self) -> None:
        self.written = b""
        self.reading = True
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.closing = True

    abort = close

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default


class World:
    """A door without a batcher, and connections through it."""

    def __init__(self, **limits: Any) -> None:
        endpoint = {"name": "iris", "backend": {"urls": ["http://127.0.0.1:1"]}}
        limits.setdefault("body", limits.get("queue_bytes", "16MiB"))
        configuration = Configuration.model_validate({"endpoints": [endpoint], "limits": limits})
        self.loop = asyncio.new_event_loop()
        self.page = MetricPage.create(PageLayout.of(configuration), "test")
        self.door = Door(
            configuration, self.loop, worker=0, workers=1, max_connections=2, rendezvous="", batcher_page=self.page,
            metrics=[IngressMetrics(self.page, 0, 10**9)],
        )  # fmt: skip
        self._config = uvicorn.Config(_no_app, log_config=None, ws="none", lifespan="off", interface="asgi3")
        self._server = uvicorn.Server(self._config)

    def connect(self) -> tuple[IngressProtocol, Transport]:
        transport = Transport()
        connection = IngressProtocol(self._config, self._server.server_state, {}, self.loop, door=self.door)
        connection.connection_made(cast(Any, transport))
        return connection, transport

    def finish_turns(self, count: int = 5) -> None:
        """Whatever is ready runs."""
        for _ in range(count):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def close(self) -> None:
        self.page.words.release()
        os.close(self.page.fd)
        self.loop.close()


async def _no_app(scope: object, receive: object, send: object) -> None:
    """Never called: only predictions are made here."""


@pytest.fixture
def world() -> Iterator[World]:
    world = World(queue_bytes=1000)
    yield world
    world.close()


@pytest.mark.parametrize("in_next_read", [1, 1000])
def test_a_long_head_is_refused_also_if_it_began_in_the_read_that_ended_the_request_before(
    world: World, in_next_read: int
) -> None:
    connection, transport = world.connect()
    refused_at_once = HEAD % 2 + b"{}"
    long = (HEAD % len(BODY)).replace(b"Host", b"X: %b\r\nHost" % (b"x" * 2**15))
    connection.data_received(refused_at_once + long[:-in_next_read])
    assert transport.written.startswith(b"HTTP/1.1 400 ")
    transport.written = b""
    connection.data_received(long[-in_next_read:] + BODY)
    assert transport.written.startswith(b"HTTP/1.1 431 ")


def test_what_comes_in_one_read_behind_a_request_that_ends_the_connection_is_discarded(world: World) -> None:
    connection, transport = world.connect()
    unsupported = (HEAD % len(BODY)).replace(b"Host", b"Content-Encoding: br\r\nHost")
    connection.data_received(unsupported + BODY + 3 * (HEAD % len(BODY) + BODY))
    assert transport.written.count(b"HTTP/1.1 415 ") == transport.written.count(b"HTTP/1.1 ") == 1
    # So the watchdog closes it, and that its caller closed it is seen: else it would stay for ever.
    assert (connection.phase, transport.reading) == (Phase.DISCARDING, True)


def test_line_ends_between_requests_are_no_sign_of_life(world: World) -> None:
    connection, _ = world.connect()
    for world.door.tick in range(1, 5):
        connection.data_received(b"\r\n")
    assert connection.active_tick == 0
    connection.data_received(HEAD % len(BODY) + BODY)
    assert connection.active_tick == 4
    for world.door.tick in range(5, 9):
        connection.data_received(b"\r\n")
    assert connection.active_tick == 4


def test_a_pipelined_body_is_counted_until_its_caller_leaves(world: World) -> None:
    connection, _ = world.connect()
    connection.data_received(HEAD % len(BODY) + BODY + HEAD % 400 + b" " * 300)
    assert f"1 unanswered, {300 + len(BODY)} bytes" in repr(world.door.client)
    connection.data_received(b" " * 100)
    assert f"1 unanswered, {400 + len(BODY)} bytes" in repr(world.door.client)
    connection.connection_lost(ConnectionResetError())
    assert "0 unanswered, 0 bytes" in repr(world.door.client)


def test_a_pipelined_body_that_does_not_fit_is_refused_in_its_turn(world: World) -> None:
    connection, transport = world.connect()
    connection.data_received(HEAD % len(BODY) + BODY + HEAD % 990 + b" " * 990)
    assert (transport.written, transport.reading) == (b"", False)
    assert f"1 unanswered, {len(BODY)} bytes" in repr(world.door.client)
    assert world.door.give_up() == 1
    world.loop.call_soon(world.loop.stop)
    world.loop.run_forever()
    first, second = transport.written.split(b"HTTP/1.1 ")[1:]
    assert (first[:3], b"urn:mlproxy:error:draining" in first) == (b"503", True)
    assert (second[:3], b"urn:mlproxy:error:overloaded" in second) == (b"503", True)
    assert transport.reading


def test_a_connection_too_many_is_told_so_when_it_asks_and_closed_at_once_when_there_are_far_too_many(
    world: World,
) -> None:
    served = [world.connect() for _ in range(2)]
    connection, transport = world.connect()
    assert transport.written == b""
    connection.data_received(HEAD % len(BODY))
    connection.data_received(BODY)
    assert transport.written.count(b"HTTP/1.1 503") == 1
    crowd = [world.connect() for _ in range(100)]
    assert [transport.closing for _, transport in crowd] == [False] * 99 + [True]
    for connection, _ in served:
        connection.connection_lost(None)
    connection, transport = world.connect()
    assert transport.closing is False


def test_a_connection_says_where_it_stands(world: World) -> None:
    connection, _ = world.connect()
    request, seen = HEAD % len(BODY) + BODY, [repr(connection)]
    for piece in (request[:10], request[10:-1], request[-1:], request):
        connection.data_received(piece)
        seen.append(repr(connection))
    phases = ["idle, 0", "in a head, 0", "in the body of a prediction, 0", "answering, 0", "answering, 1"]
    assert seen == [f"<IngressProtocol from nobody: {phase} behind>" for phase in phases]


def test_reading_goes_on_only_when_neither_requests_nor_answers_wait(world: World) -> None:
    connection, transport = world.connect()
    connection.data_received(2 * (HEAD % len(BODY) + BODY))
    assert transport.reading is False
    connection.flow.resume_reading()  # as Uvicorn does for an application that asks whether its caller is there
    assert transport.reading is False
    connection.pause_writing()
    connection.pipeline.clear()
    connection.flow.resume_reading()
    assert transport.reading is False
    connection.resume_writing()
    assert transport.reading is True


def test_an_answer_that_begins_before_the_body_is_whole_says_that_it_is_the_last_and_is(world: World) -> None:
    whole = asyncio.Event()

    async def answers_early(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await whole.wait()
        await send({"type": "http.response.body", "body": b"ok"})

    connection, transport = world.connect()
    connection.app = answers_early
    connection.data_received(b"PUT /other HTTP/1.1\r\nHost: proxy\r\nContent-Length: 3\r\n\r\na")
    world.finish_turns()
    assert b"connection: close\r\n" in transport.written
    connection.data_received(b"bc")
    whole.set()
    assert not transport.closing
    world.finish_turns()
    assert transport.written.endswith(b"\r\n\r\nok")
    assert transport.closing
