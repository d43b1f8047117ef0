"""Requests that are not batched: at once when a slot is free, with nobody, and not before everybody else for ever."""

from __future__ import annotations

import pytest

from mlproxy.engine import (
    Abort,
    Arrived,
    Batch,
    Cancelled,
    Drain,
    Engine,
    Failed,
    Failure,
    QueueBounds,
    Reject,
    Relay,
    StaticBatching,
)
from mlproxy.engine.autoscaler import AutoscalerSpec
from mlproxy.engine.policies import SloBatching
from mlproxy.engine.slo.pods import ShadowPods
from mlproxy.errors import DeadlineExceeded, Draining, Overloaded
from tests.unit.engine.world import MS, SLO_NS, World, answer, dispatched, failure, only_batch


def alone(world: World, *counts: int, deadline_ms: int = 0) -> Arrived:
    return Arrived([world.request(count, deadline_ms=deadline_ms) for count in counts], alone=True)


def test_it_leaves_at_once_and_with_nobody() -> None:
    world = World(StaticBatching(8, 100 * MS, 4))
    world.at(0, Arrived([world.request()]))
    batches = dispatched(world.at(1, alone(world, 1, 1)))
    assert [(batch.reason, len(batch.members)) for batch in batches] == [("alone", 1), ("alone", 1)]
    batch = only_batch(world.at(100))
    assert (batch.reason, batch.instances) == ("deadline", 1)


def test_it_waits_for_a_slot_within_the_bounds_and_until_its_deadline() -> None:
    world = World(StaticBatching(8, 0, 1), max_queued=10)
    running = only_batch(world.arrive(0, 1)[1])
    refused = world.at(1, alone(world, 2, 2, 2, deadline_ms=30))
    assert [type(command.error) for command in refused if isinstance(command, Reject)] == [Overloaded]
    assert world.engine.queued_instances == 4
    assert world.engine.next_wakeup_ns() == 30 * MS
    expired = world.at(30)
    assert [type(command.error) for command in expired if isinstance(command, Reject)] == [DeadlineExceeded] * 2
    assert world.engine.queued_instances == 0
    assert dispatched(world.at(31, answer(running))) == []
    assert world.engine.idle


def test_a_caller_that_leaves_is_not_sent() -> None:
    world = World(StaticBatching(8, 0, 1))
    running = only_batch(world.arrive(0, 1)[1])
    arrival = alone(world, 1, 1)
    world.at(1, arrival)
    world.at(2, Cancelled(arrival.requests[0]))
    assert only_batch(world.at(3, answer(running))).members == [arrival.requests[1]]


def test_who_has_less_time_goes_first() -> None:
    world = World(StaticBatching(8, 0, 1))
    running = only_batch(world.arrive(0, 1)[1])
    world.at(1, alone(world, 1), hurried := alone(world, 1, deadline_ms=200))
    assert only_batch(world.at(3, answer(running))).members == list(hurried.requests)


def test_whoever_sends_much_that_goes_alone_gets_every_other_turn_and_half_of_the_queue() -> None:
    world = World(StaticBatching(4, 0, 1), max_queued=100)
    running = only_batch(world.at(0, alone(world, *[1] * 60)))
    turns: list[Batch] = []
    for ms in range(1, 21):
        world.at(ms, alone(world, *[1] * 10))  # ten times as many as there are turns
        refused = world.at(ms, Arrived([world.request() for _ in range(2)]))
        assert refused == []
        running = only_batch(world.at(ms, answer(running)))
        turns.append(running)
    assert [batch.reason == "alone" for batch in turns] == [turn % 2 == 1 for turn in range(20)]
    assert sum(batch.instances for batch in turns if batch.reason != "alone") == 2 + 9 * 4


@pytest.mark.parametrize("size_bytes", [1, 100])
def test_those_of_all_endpoints_share_half_of_the_queue(size_bytes: int) -> None:
    bounds = QueueBounds(20 if size_bytes == 1 else 1000, 20 * size_bytes)
    worlds = [World(StaticBatching(4, 0, 1)) for _ in range(2)]
    running = []
    for world in worlds:
        world.engine = Engine(StaticBatching(4, 0, 1), bounds, slo_ns=SLO_NS, retry_attempts=0)
        running.append(only_batch(world.arrive(0, 1)[1]))
        world.at(1, Arrived([world.request(size_bytes=size_bytes) for _ in range(11)], alone=True))
    assert [world.engine.queued_instances for world in worlds] == [10, 0]
    assert (bounds.alone_instances, bounds.alone_bytes) == (10, 10 * size_bytes)
    worlds[0].at(2, answer(running[0]), *[Cancelled(member.owner) for member in worlds[0].engine._queue.alone.members])
    assert (bounds.alone_instances, bounds.alone_bytes, bounds.instances) == (0, 0, 0)


@pytest.mark.parametrize(
    ("failed", "calls"),
    [(Failure("connect", ""), 2), (Failure("reset", ""), 1), (failure(503), 1), (Failure("timeout", ""), 1)],
)
def test_who_is_remembered_is_sent_again_only_if_nobody_was_there(failed: Failure, calls: int) -> None:
    world = World(StaticBatching(4, 0, 1), attempts=1)
    arrival = alone(world, 1)
    arrival.requests[0].remembered = True
    batch = only_batch(world.at(0, arrival))
    again = dispatched([*world.at(1, Failed(batch, failed)), *world.at(1000)])
    assert 1 + len(again) == calls


def test_a_large_one_goes_in_parts_each_of_them_alone() -> None:
    world = World(StaticBatching(4, 0, 9))
    batches = dispatched(world.at(0, alone(world, 6, 6)))
    assert [batch.instances for batch in batches] == [4, 2, 4, 2]


def test_a_retry_is_alone_too_and_draining_waits_for_it() -> None:
    world = World(StaticBatching(4, 0, 1))
    batch = only_batch(world.at(0, alone(world, 1)))
    world.at(1, Failed(batch, Failure("connect", "refused")), Drain())
    world.at(1, Arrived([world.request()]))
    (running,) = world.engine._in_flight
    assert (running.reason, running.attempt, len(running.members)) == ("alone", 1, 1)


def spare(world: World) -> Arrived:
    return Arrived([world.request()], spare=True)


def test_what_is_spare_leaves_while_a_slot_is_free_that_nobody_needs_and_counts_as_nobody() -> None:
    world = World(StaticBatching(8, 0, 1))
    running = only_batch(world.arrive(0, 1)[1])
    world.at(1, spare(world))
    assert world.engine.queued_instances == 0
    world.at(2, Arrived([world.request()]), alone(world, 1))
    for reason in ("alone", "idle", "verify"):
        running = only_batch(world.at(3, answer(running)))
        assert running.reason == reason
    assert world.engine.in_flight == 1


def test_what_is_spare_is_not_sent_again() -> None:
    world = World(StaticBatching(8, 0, 1))
    batch = only_batch(world.at(0, spare(world)))
    tokens = world.engine.statistics()["extra_call_budget"]
    (rejected,) = world.at(1, Failed(batch, Failure("connect", "refused")))
    assert isinstance(rejected, Reject | Relay)
    assert world.engine.statistics()["extra_call_budget"] == tokens
    assert world.engine.idle


def test_draining_waits_for_nothing_that_is_spare() -> None:
    world = World(StaticBatching(8, 0, 1))
    batch = only_batch(world.at(0, spare(world)))
    world.at(1, spare(world))
    commands = world.at(2, Drain())
    assert commands[0] == Abort(batch)
    assert [type(command.error) for command in commands if isinstance(command, Reject)] == [Draining] * 2
    assert world.engine.idle
    (late,) = world.at(3, spare(world))
    assert isinstance(late, Reject)


def test_who_waits_for_a_slot_is_looked_at_again_as_pods_may_come() -> None:
    world = World(SloBatching(SLO_NS, 0.01, 8, ShadowPods(AutoscalerSpec(), 1)))
    requests = [world.request() for _ in range(9)]
    commands = world.at(0, Arrived(requests, alone=True))
    assert 1 <= len(dispatched(commands)) < 9
    left, until_ns = len(dispatched(commands)), 120 * 1000 * MS
    while left < 9:  # pods come by the calls in flight alone: nothing else happens
        wakeup_ns = world.engine.next_wakeup_ns()
        assert wakeup_ns is not None
        assert world.now_ns < wakeup_ns < until_ns
        world.now_ns = wakeup_ns
        left += len(dispatched(world.engine.handle((), wakeup_ns)))
