"""What a worker keeps for the batcher is counted, whole, for as long as it is memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from mlproxy.config import Configuration
from mlproxy.errors import Overloaded
from mlproxy.ipc.channel import DirectionFds, Receiver, Sender
from mlproxy.ipc.records import REQUEST_HEADER
from mlproxy.protocols import ParsedRequest
from workers.ingress.batcher_client import BatcherClient
from workers.ingress.cycle import PredictCycle
from workers.ingress.retained import Retained
from workers.ingress.routes import RouteTable

RING_BYTES = 65536
BODY_BYTES = 40_000
MAX_RETAINED_BYTES = 200_000


class Loop:
    """Keeps what it is told to call."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], object]] = []
        self.readers: dict[int, Callable[[], object]] = {}

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.soon.append(callback)

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        self.readers.pop(fd, None)

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for callback in [*soon, *self.readers.values()]:
            callback()


class World:
    """A client with a ring to a batcher that takes records when the test says so."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.retained = Retained(MAX_RETAINED_BYTES)
        unexpected = cast(Callable[..., None], None)
        self.client = BatcherClient(
            cast(asyncio.AbstractEventLoop, self.loop), address="", worker=0, ring_bytes=RING_BYTES,
            retained=self.retained, on_answers=unexpected, on_relay=unexpected, on_error=unexpected,
        )  # fmt: skip
        fds = DirectionFds.create("test", RING_BYTES)
        self.client._requests = Sender(fds, REQUEST_HEADER)
        self.batcher = Receiver(fds, REQUEST_HEADER)
        endpoint = {"name": "iris", "backend": {"urls": ["http://127.0.0.1:1"]}}
        [self._route] = RouteTable(Configuration.model_validate({"endpoints": [endpoint]}).endpoints).routes

    def cycle(self) -> PredictCycle:
        return PredictCycle(cast(Any, None), self._route, True, 0)

    def admit(self) -> PredictCycle:
        cycle = self.cycle()
        self.client.admit(cycle, ParsedRequest(b"x" * BODY_BYTES, 1, b""), BODY_BYTES)
        return cycle

    @property
    def has_room(self) -> bool:
        """For one body more; it is not kept."""
        cycle = self.cycle()
        cycle.received_bytes = BODY_BYTES
        try:
            self.retained.hold(cycle)
        except Overloaded:
            return False
        self.retained.release(cycle)
        return True


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.batcher._ring.close()
    assert world.client._requests is not None
    world.client._requests.close()


def test_the_bytes_of_a_caller_that_left_are_given_back_when_they_have_left_the_backlog(world: World) -> None:
    cycles = [world.admit() for _ in range(MAX_RETAINED_BYTES // BODY_BYTES)]
    world.loop.turn()
    assert not world.has_room
    for cycle in cycles[2:]:
        world.client.cancel(cycle)
    world.loop.turn()
    assert not world.has_room, "the bodies still stand in the backlog"
    while world.client._requests is not None and world.client._requests.blocked:
        world.batcher.receive()
        world.loop.turn()
    assert world.has_room


def test_the_bytes_of_a_caller_that_left_are_given_back_at_once_when_nothing_waits(world: World) -> None:
    cycle = world.admit()
    while world.client._requests is not None and world.client._requests.blocked:
        world.loop.turn()
        world.batcher.receive()
    world.client.cancel(cycle)
    assert world.retained.size_bytes == 0


def test_the_backlog_of_a_batcher_that_died_is_no_memory_any_more(world: World) -> None:
    cycles = [world.admit() for _ in range(MAX_RETAINED_BYTES // BODY_BYTES)]
    for cycle in cycles:
        world.client.cancel(cycle)
    assert not world.has_room
    world.retained.give_back(cast(Sender, world.client._requests).backlog_end)  # as `close` does
    assert repr(world.client) == "<BatcherClient 0 without a batcher, <Retained 0 unanswered, 0 bytes>>"


def test_bodies_that_come_in_share_the_bound_with_those_that_wait(world: World) -> None:
    for _ in range(MAX_RETAINED_BYTES // BODY_BYTES - 1):
        world.admit()
    coming = world.cycle()
    for coming.received_bytes in (10_000, 25_000, 39_999):
        world.retained.hold(coming)
    other = world.cycle()
    other.received_bytes = 2
    with pytest.raises(Overloaded) as refusal:
        world.retained.hold(other)
    assert refusal.value.retry_after_s == 1
    world.retained.release(coming)
    world.retained.hold(other)


def test_a_body_that_came_in_is_not_counted_twice_when_it_is_admitted(world: World) -> None:
    cycle = world.cycle()
    cycle.received_bytes = MAX_RETAINED_BYTES
    world.retained.hold(cycle)
    world.client.admit(cycle, ParsedRequest(b"x", 1, b"key"), MAX_RETAINED_BYTES - 3)
    assert (len(world.retained.unanswered), world.retained.size_bytes) == (1, MAX_RETAINED_BYTES)
