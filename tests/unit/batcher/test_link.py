"""The batcher's end of a channel whose worker does not take its answers."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from mlproxy.ipc.channel import DirectionFds, Receiver, Sender
from mlproxy.ipc.records import ANSWER_HEADER, REQUEST_HEADER, Kind, unpack_answers
from mlproxy.ipc.rendezvous import Offer
from workers.batcher import link as link_module
from workers.batcher.link import STALLED_AFTER_NS, LinkedRequest, WorkerLink

RING_BYTES = 65536
ANSWER = b"x" * 70_000  # more than the ring holds
MAX_BACKLOG_BYTES = 100_000


class World:
    """A link with requests in hand, the worker's ends of its rings, and a clock."""

    def __init__(self, requests: int) -> None:
        self.now_ns = 10**12
        requests_fds, answers_fds = (DirectionFds.create(name, RING_BYTES) for name in ("requests", "answers"))
        self.requests = Sender(DirectionFds(*map(os.dup, requests_fds)), REQUEST_HEADER)
        self.answers = Receiver(DirectionFds(*map(os.dup, answers_fds)), ANSWER_HEADER)
        peer, self.peer = socket.socketpair()
        self.arrived: list[LinkedRequest] = []
        self.cancelled: list[LinkedRequest] = []
        self.closed: list[WorkerLink] = []
        loop = SimpleNamespace(add_reader=lambda *_: None, remove_reader=lambda _: None)
        self.link = WorkerLink(
            cast(asyncio.AbstractEventLoop, loop), peer, Offer(0, requests_fds, answers_fds),
            max_backlog_bytes=MAX_BACKLOG_BYTES, on_requests=self.arrived.extend, on_cancel=self.cancelled.append,
            on_closed=self.closed.append,
        )  # fmt: skip
        for number in range(requests):
            self.requests.send(REQUEST_HEADER.pack(1, Kind.REQUEST, 0, 0, 0, 1, number, 0, 0, 0), b"1")
        self.requests.publish()
        self.link._receive()

    def answer(self, count: int) -> None:
        """The next ``count`` requests, and the end of the turn."""
        answered = [self.arrived.pop(0) for _ in range(count)]
        self.link.answer([request.id for request in answered], [(b"", ANSWER)] * count, count, 0, 0)
        self.link.flush()

    def close(self) -> None:
        self.link.close()
        self.requests.close()
        self.answers.close()
        self.peer.close()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(requests=10)
    monkeypatch.setattr(link_module, "time", SimpleNamespace(monotonic_ns=lambda: world.now_ns))
    yield world
    world.close()


def test_a_worker_that_takes_no_answers_while_too_many_wait_loses_its_channel(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.answer(5)
    world.now_ns += STALLED_AFTER_NS + 1
    with caplog.at_level(logging.ERROR):
        world.answer(1)
    assert world.closed == [world.link]
    assert len(world.cancelled) == 4, "what it had asked for is not computed any more"
    assert "takes no answers" in caplog.text
    assert world.peer.recv(1) == b"", "the worker finds out when it wakes up"


def test_one_turn_may_answer_with_more_than_the_bound(world: World) -> None:
    world.answer(10)
    assert world.closed == []


def test_a_slow_worker_keeps_its_channel_as_long_as_it_takes_something(world: World) -> None:
    world.answer(5)
    for _ in range(5):
        world.now_ns += 2 * STALLED_AFTER_NS
        world.answers.receive()
        world.answer(1)
    assert world.closed == []


def test_a_few_answers_may_wait_for_any_time(world: World) -> None:
    world.answer(2)
    world.now_ns += 100 * STALLED_AFTER_NS
    world.answer(1)
    assert world.closed == []


def test_a_request_is_its_lane_key_what_is_its_own_and_its_items(world: World) -> None:
    world.requests.send(REQUEST_HEADER.pack(9, Kind.REQUEST, 3, 2, 4, 5, 77, 1, 2, 3), b"kkown!iii")
    world.requests.publish()
    world.link._receive()
    request = world.arrived[-1]
    assert (request.lane_key, request.own, request.items) == (b"kk", b"own!", b"iii")
    assert (request.id, request.endpoint, request.count, request.deadline_ns, request.priority) == (77, 3, 5, 2, 3)


def test_answers_whose_headers_are_not_the_usual_take_these_along(world: World) -> None:
    first, second = world.arrived[:2]
    world.link.answer([first.id, second.id], [(b"a: 1\r\n", b"\0x"), (b"", b"{}")], 2, 0, 0)
    world.link.flush()
    [(fields, body)] = world.answers.receive()
    assert fields[1] == Kind.ENTITIES
    assert list(unpack_answers(2, body)) == [(first.id, b"a: 1\r\n\0\0x"), (second.id, b"\0{}")]
