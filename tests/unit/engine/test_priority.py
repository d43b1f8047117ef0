"""Urgent requests go first and the others are served all the same. Times are milliseconds, the objective is 500."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from mlproxy.engine import Arrived, Batch, Complete, Dispatch, Event, Policy, Request, StaticBatching
from mlproxy.engine.lane import Lane
from mlproxy.engine.policies import SloBatching
from mlproxy.engine.policies.static import NoBatching
from mlproxy.engine.request import State, split
from mlproxy.engine.slo.pods import FixedPods
from tests.unit.engine.world import MS, SLO_NS, World, answer, dispatched, only_batch

CALL_NS, CALL_SIZE = 40 * MS, 4


def arrive(world: World, ms: float, *priorities: int, lane: bytes = b"") -> list[Request]:
    world.now_ns = int(ms * MS)
    requests = [world.request(lane=lane) for _ in priorities]
    for request, priority in zip(requests, priorities, strict=True):
        request.priority = priority
    world.at(ms, Arrived(requests))
    return requests


@pytest.mark.parametrize(
    ("priority", "deadline_ms", "due_ms"),
    [(0, 0, 500), (1, 0, 250), (2, 0, 333), (3, 0, 375), (255, 0, 498), (1, 400, 250), (1, 100, 100), (0, 400, 400)],
)
def test_who_has_a_priority_is_due_after_a_share_of_the_objective(priority: int, deadline_ms: int, due_ms: int) -> None:
    lane = Lane(b"", SLO_NS, 0)
    request = Request(1, b"", 1, 1, 0, deadline_ms * MS)
    request.priority = priority
    assert lane.append([request]) // MS == due_ms
    assert (lane.due_ns or 0) // MS == due_ms


def test_a_lane_serves_its_urgent_members_first_and_then_those_in_order_of_arrival() -> None:
    world = World(StaticBatching(1, 0, 1))
    first = only_batch(world.arrive(0, 1)[1])
    [usual], [less, most] = arrive(world, 1, 0), arrive(world, 2, 2, 1)
    served, batches = [], [first]
    while batches:
        batches = dispatched(world.at(10, *map(answer, batches)))
        served += [member for batch in batches for member in batch.members]
    assert served == [most, less, usual]


def test_the_lane_with_an_urgent_member_goes_first() -> None:
    world = World(StaticBatching(8, 0, 1))
    first = only_batch(world.arrive(0, 1)[1])
    arrive(world, 1, 0, lane=b"a")
    [request] = arrive(world, 2, 1, lane=b"b")
    assert only_batch(world.at(10, answer(first))).members == [request]


def test_urgent_ones_that_came_much_later_do_not_overtake_who_is_due_before_them() -> None:
    world = World(StaticBatching(1, 0, 1))
    first = only_batch(world.arrive(0, 1)[1])
    [usual], _ = arrive(world, 1, 0), arrive(world, 252, 1)
    assert only_batch(world.at(260, answer(first))).members == [usual]


def test_a_part_is_as_urgent_as_its_request() -> None:
    request = Request(1, b"", 5, 1, 0)
    request.priority = 7
    assert [part.priority for part in split(request, 2)] == [7, 7, 7]


def test_an_urgent_member_lingers_for_that_much_less() -> None:
    world = World(StaticBatching(8, 300 * MS, 1))
    arrive(world, 0, 1)
    assert world.engine.next_wakeup_ns() == 50 * MS


def test_who_is_hopeless_is_judged_by_the_objective_and_not_by_when_it_is_due() -> None:
    lane = Lane(b"", SLO_NS, 0)
    hurried = Request(1, b"", 1, 1, 0, 200 * MS, priority=1)
    members = [hurried, Request(2, b"", 1, 1, 0, priority=1), Request(3, b"", 1, 1, 0)]
    lane.append(members)
    lane.put_aside(lambda _, late_from_ns, __: late_from_ns < 300 * MS)
    assert [member.state for member in members] == [State.LATE, State.QUEUED, State.QUEUED]


def test_those_who_are_hopeless_behind_an_urgent_one_that_is_not_are_put_aside() -> None:
    lane = Lane(b"", SLO_NS, 0)
    usual = [Request(number, b"", 1, 1, number * 100 * MS) for number in range(3)]
    late_comer = Request(9, b"", 1, 1, 240 * MS, priority=1)
    gone = Request(10, b"", 1, 1, 0)
    lane.append([gone, *usual, late_comer])
    gone.state = State.DONE
    lane.leave(gone, late=False)
    lane.put_aside(lambda _, late_from_ns, __: late_from_ns < 650 * MS)
    assert [member.state for member in usual] == [State.LATE, State.LATE, State.QUEUED]
    assert (late_comer.state, lane.instances, lane.late_instances) == (State.QUEUED, 2, 2)
    assert lane.take(9) == [late_comer, usual[2]]


# --- overload --------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What became of requests."""

    urgent_ms: list[float]  #: latencies
    usual_ms: list[float]
    oldest_ms: float  #: how long the oldest that has not been answered has waited


def overload(policy: Policy, *, lanes: int) -> Outcome:
    """Half as much again as the backend can do, for as long as 60 objectives; every tenth request is urgent."""
    world = World(policy, max_queued=10**6, attempts=0)
    every_ns = CALL_NS // CALL_SIZE * 2 // 3
    waiting: dict[Request, bool] = {}
    outcome: dict[bool, list[float]] = {True: [], False: []}
    calls: list[tuple[int, Batch]] = []
    arrivals, now_ns = 0, 0
    while now_ns < 60 * SLO_NS:
        wakeup_ns = world.engine.next_wakeup_ns()
        instants = [arrivals * every_ns, *(at_ns for at_ns, _ in calls)]
        now_ns = min(instants if wakeup_ns is None else [*instants, wakeup_ns])
        events: list[Event] = [answer(batch) for at_ns, batch in calls if at_ns <= now_ns]
        calls = [call for call in calls if call[0] > now_ns]
        if arrivals * every_ns <= now_ns:
            is_urgent = arrivals % 10 == 0
            request = Request(arrivals, b"%d" % (arrivals % lanes), 1, 1, now_ns, priority=int(is_urgent))
            waiting[request] = is_urgent
            events.append(Arrived([request]))
            arrivals += 1
        for command in world.engine.handle(events, now_ns):
            if isinstance(command, Dispatch):
                calls.append((now_ns + CALL_NS, command.batch))
            elif isinstance(command, Complete):
                for request, _ in command.answers:
                    outcome[waiting.pop(request)].append((now_ns - request.arrived_ns) / MS)
    oldest_ns = now_ns - min(request.arrived_ns for request in waiting)
    return Outcome(outcome[True], outcome[False], oldest_ns / MS)


def slo() -> Policy:
    policy = SloBatching(SLO_NS, 0.01, CALL_SIZE, FixedPods(1))
    for call in range(300):
        policy.controller.service.learn((1, 2, 4)[call % 3], CALL_NS, 0.3, 0)
    policy.controller.service.size_cap.seen(CALL_SIZE)
    return policy


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize(
    "make",
    [lambda: StaticBatching(CALL_SIZE, 0, 1), lambda: StaticBatching(CALL_SIZE, 20 * MS, 1), slo],
    ids=["static", "static with linger", "slo"],
)
def test_in_an_overload_that_lasts_urgent_requests_are_in_time_and_usual_ones_are_served_all_the_same(
    make: Callable[[], Policy], lanes: int
) -> None:
    urgent_ms, usual_ms, oldest_ms = overload(make(), lanes=lanes)
    assert max(urgent_ms) < SLO_NS / MS
    assert sum(latency_ms > SLO_NS / MS for latency_ms in usual_ms) > len(usual_ms) / 4, "it is an overload"
    # A third of what comes can never be answered; the queue of those who are late is served in turn all the same.
    assert oldest_ms < 45 * SLO_NS / MS
    assert len(urgent_ms) + len(usual_ms) > 0.98 * 60 * SLO_NS / CALL_NS * CALL_SIZE, "nothing was wasted on it"


def test_when_the_last_urgent_request_is_late_or_gone_those_put_aside_go_first_again() -> None:
    world = World(NoBatching(1))
    first = only_batch(world.arrive(0, 1)[1])
    (old,), _ = arrive(world, 1, 0), arrive(world, 499, 1)
    (young,) = arrive(world, 510, 0)
    batch = only_batch(world.at(600, answer(first)))
    assert batch.members[0] not in (old, young), "the urgent one can be in time, the old one cannot"
    assert only_batch(world.at(1000, answer(batch))).members == [old]
