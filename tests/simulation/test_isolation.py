"""Isolation against a backend that fails every call with a poison request in it: who pays, and for how long."""

from __future__ import annotations

import random
from collections import Counter
from heapq import heappop, heappush
from itertools import count
from math import log2

import pytest

from mlproxy.engine import (
    Answered,
    Arrived,
    Batch,
    Cancelled,
    Command,
    Complete,
    Dispatch,
    Engine,
    Event,
    Failed,
    Failure,
    FailureKind,
    QueueBounds,
    Reject,
    Relay,
    Request,
    StaticBatching,
)  # fmt: skip
from mlproxy.errors import BackendContract
from mlproxy.units import NS_PER_MS

OWN = Failure("status", "", 422, b"", b"its own words")


class World:
    """A saturated engine: the next full batch is there whenever a slot is free."""

    def __init__(self, size: int, slots: int, poison_share: float, failure: Failure = OWN, seed: int = 1) -> None:
        policy = StaticBatching(size, 0, slots)
        self.engine = Engine(policy, QueueBounds(10**6, 10**9), slo_ns=10**9, retry_attempts=2)
        self.size, self.failure, self.poison_share = size, failure, poison_share
        self.rng = random.Random(seed)
        self.poison: set[int] = set()
        self.calls: Counter[str] = Counter()
        self.ended: dict[int, Command] = {}
        self._calls: list[tuple[int, int, Batch]] = []
        self._numbers = count()
        self._now_ns = 0

    def run(self, batches: int) -> None:
        """Until so many full batches more have been answered, whatever became of them."""
        first = next(self._numbers)
        requests = [Request(next(self._numbers), b"", 1, 1, self._now_ns) for _ in range(batches * self.size)]
        self.poison |= {request.id for request in requests if self.rng.random() < self.poison_share}
        self._handle(Arrived(requests))
        while self._calls or not self.engine.idle:
            self._step()
        assert {request.id for request in requests} == {number for number in self.ended if number > first}

    def _step(self) -> None:
        wakeup_ns = self.engine.next_wakeup_ns()
        if not self._calls or (wakeup_ns is not None and wakeup_ns < self._calls[0][0]):
            assert wakeup_ns is not None, "somebody waits for nothing"
            self._now_ns = wakeup_ns
            self._handle()
            return
        self._now_ns, _, batch = heappop(self._calls)
        poisoned = any(member.owner.id in self.poison for member in batch.members)
        self._handle(Failed(batch, self.failure) if poisoned else Answered(batch, batch.instances, batch))

    def _handle(self, *events: Event) -> None:
        for command in self.engine.handle(events, self._now_ns):
            match command:
                case Dispatch(batch):
                    self.calls["first" if batch.first_call else "retry" if batch.attempt else "extra"] += 1
                    time_ns = int((1 + batch.instances / self.size) * NS_PER_MS * self.rng.uniform(0.9, 1.1))
                    heappush(self._calls, (self._now_ns + time_ns, batch.id, batch))
                case Complete(_, answers):
                    self.ended |= {request.id: command for request, _ in answers}
                case Reject(request) | Relay(request):
                    self.ended[request.id] = command


def assert_only_poison_failed(world: World) -> None:
    failed = {number for number, command in world.ended.items() if not isinstance(command, Complete)}
    assert failed == world.poison


@pytest.mark.parametrize("slots", [1, 4, 16])
@pytest.mark.parametrize(("size", "poison_share"), [(32, 0.03), (128, 0.01), (128, 0.03), (32, 0.1)])
def test_siblings_are_answered_and_poison_gets_its_own_words_for_ever(
    size: int, poison_share: float, slots: int
) -> None:
    world = World(size, slots, poison_share)
    world.run(200)
    assert_only_poison_failed(world)
    for number in world.poison:
        command = world.ended[number]
        assert isinstance(command, Relay)
        assert command.failure is OWN
    assert 0 < world.calls["extra"] <= len(world.poison) * (2 * log2(size) + 2)


@pytest.mark.parametrize("size", [2, 3, 5, 8, 9, 33, 100, 128])
def test_one_poison_request_costs_few_calls_wherever_it_stands(size: int) -> None:
    for position in range(size):
        world = World(size, 1, 0)
        world.poison = {1 + position}
        world.run(1)
        assert_only_poison_failed(world)
        assert world.calls["extra"] <= 2 * log2(size) + 2


@pytest.mark.parametrize(
    ("kind", "status"), [("status", 503), ("contract", 0), ("protocol", 0), ("too_large", 0), ("reset", 0)]
)
def test_poison_of_any_kind_fails_alone(kind: FailureKind, status: int) -> None:
    failure = Failure(kind, "it failed", status)
    world = World(32, 4, 0.03, failure)
    world.run(100)
    assert_only_poison_failed(world)
    for number in world.poison:
        command = world.ended[number]
        if kind == "status":
            assert isinstance(command, Relay)
        else:
            assert isinstance(command, Reject)
            assert command.error.status == 502
            assert (type(command.error) is BackendContract) is (kind == "contract")


@pytest.mark.parametrize("size", [1, 32])
@pytest.mark.parametrize(
    "failure",
    [OWN, Failure("status", "", 503), Failure("contract", "not one item per instance"), Failure("connect", "refused")],
    ids=["422", "503", "contract", "connect"],
)
def test_a_backend_that_fails_everything_gets_few_calls_more(failure: Failure, size: int) -> None:
    world = World(size, 4, 1.0, failure)
    world.run(70)
    assert sum(world.calls.values()) <= 1.2 * world.calls["first"]
    assert sum(world.calls.values()) > world.calls["first"] or (size == 1 and failure.kind != "connect")


def test_a_backend_that_breaks_after_it_has_worked_gets_few_calls_more_too() -> None:
    world = World(8, 4, 0.02)
    world.run(500)
    assert_only_poison_failed(world)
    world.poison_share = 1.0
    world.calls.clear()
    world.run(140)
    assert sum(world.calls.values()) <= 1.2 * world.calls["first"]


def test_isolation_works_again_once_the_backend_does() -> None:
    world = World(32, 4, 1.0)
    world.run(100)
    world.poison_share, world.poison, world.ended = 0.03, set(), {}
    world.run(20)  # the first answers bring the tokens back
    world.poison, world.ended = set(), {}
    world.run(100)
    assert_only_poison_failed(world)


def test_who_remains_of_a_batch_that_failed_is_not_taken_for_the_cause() -> None:
    world = World(2, 1, 0)
    world._handle(Arrived([Request(1, b"", 1, 1, 0), poison := Request(2, b"", 1, 1, 0)]))
    world.poison = {2}
    world._handle(Cancelled(poison))
    while not world.engine.idle:
        world._step()
    assert isinstance(world.ended[1], Complete)
