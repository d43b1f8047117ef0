"""Deadline-driven, paced batching: when a batch leaves, and why. Times are milliseconds, the objective is 500."""

from __future__ import annotations

import pytest

from mlproxy.config import Configuration
from mlproxy.engine import Arrived, Batch, Cancelled, Command, Dispatch, Drain, Failed, Failure, Pods, policy_for
from mlproxy.engine.autoscaler import AutoscalerSpec
from mlproxy.engine.policies import SloBatching
from mlproxy.engine.slo.pods import FixedPods, ShadowPods
from mlproxy.engine.slo.pods import Pods as View
from tests.unit.engine.world import MS, SLO_NS, World, answer, dispatched, only_batch

MEAN_MS, SLOPE_MS = 40, 1


def slo_world(
    *, pods: View | None = None, max_size: int = 128, seen: int = 128, paced: bool = False,
    max_linger_ms: int | None = None, mean_ms: float = MEAN_MS, sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128),
) -> tuple[World, SloBatching]:  # fmt: skip
    """One slot; a backend of 40 ms + 1 ms per instance that is well known, its largest batch so far ``seen``."""
    linger_ns = None if max_linger_ms is None else max_linger_ms * MS
    policy = SloBatching(SLO_NS, 0.01, max_size, pods or FixedPods(1), paced=paced, max_linger_ns=linger_ns)
    service = policy.controller.service
    for call in range(2000):
        size = sizes[call % len(sizes)]
        service.learn(size, (mean_ms + SLOPE_MS * size) * MS, 0.3, 0)
    service.size_cap.seen(seen)
    world = World(policy)
    world.at(0)
    return world, policy


def lead_ms(policy: SloBatching, instances: int) -> float:
    return policy.controller.lead_ns(instances) / MS


def wakeup_ms(world: World) -> float:
    wakeup_ns = world.engine.next_wakeup_ns()
    assert wakeup_ns is not None
    return wakeup_ns / MS


def wake(world: World) -> list[Command]:
    return world.at(wakeup_ms(world))


def spend_all(policy: SloBatching) -> None:
    """Nothing is left to pay with for the next seconds."""
    policy.controller.tokens.value_ns = -3.9 * policy.controller.tokens.capacity_ns


def gone(batch: Batch) -> list[Cancelled]:
    """Its callers left: a slot is free, and nothing is learned."""
    return [Cancelled(member.owner) for member in batch.members]


# --- why a batch leaves ----------------------------------------------------------------------------------------


def test_a_batch_waits_until_its_oldest_member_must_leave() -> None:
    world, policy = slo_world()
    world.arrive(0, 1)
    _, commands = world.arrive(200, 1, 1)
    assert not dispatched(commands)
    assert wakeup_ms(world) == pytest.approx(500 - lead_ms(policy, 3))
    batch = only_batch(wake(world))
    assert (batch.instances, batch.reason) == (3, "deadline")


def test_a_full_batch_leaves_at_once() -> None:
    world, _ = slo_world(max_size=8)
    _, commands = world.arrive(0, *[1] * 9)
    batch = only_batch(commands)
    assert (batch.instances, batch.reason) == (8, "full")


def test_an_idle_proxy_that_has_tokens_sends_at_once() -> None:
    world, _ = slo_world(paced=True)
    _, commands = world.arrive(0, 1)
    assert only_batch(commands).reason == "paced"


def test_one_without_tokens_waits_until_they_pay() -> None:
    world, policy = slo_world(paced=True)
    policy.controller.tokens.value_ns = 0.0
    _, commands = world.arrive(0, 1)
    assert not dispatched(commands)
    assert wakeup_ms(world) == pytest.approx(41 / 0.8, rel=0.01)
    assert only_batch(wake(world)).reason == "paced"


def test_a_paced_batch_waits_for_a_slot_whatever_the_tokens() -> None:
    world, policy = slo_world(paced=True)
    _, first = world.arrive(0, 1)
    policy.controller.tokens.value_ns = policy.controller.tokens.capacity_ns
    _, commands = world.arrive(1, 1)
    assert not dispatched(commands)
    assert only_batch(world.at(41, answer(only_batch(first)))).reason == "paced"


def test_without_pacing_nothing_leaves_early() -> None:
    configured = Configuration.model_validate(
        {"endpoints": [{"name": "a", "backend": {"urls": ["http://b"]}, "batching": {"bill": "busy"}}]}
    )
    policy = policy_for(configured.endpoints[0])
    assert isinstance(policy, SloBatching)
    policy.controller.service.size_cap.seen(128)
    world = World(policy)
    _, commands = world.arrive(0, 1)
    assert not dispatched(commands)
    assert wakeup_ms(world) > 200


def test_a_configured_linger_is_never_exceeded() -> None:
    world, policy = slo_world(max_linger_ms=30)
    world.arrive(0, 1)
    assert wakeup_ms(world) == 30
    assert only_batch(wake(world)).reason == "deadline"
    assert lead_ms(policy, 1) < 100


# --- what is late already --------------------------------------------------------------------------------------


def blocked(
    pods: View | None = None, max_size: int = 8, *, paced: bool = False
) -> tuple[World, SloBatching, Batch]:  # fmt: skip
    """The only slot is taken since 0."""
    world, policy = slo_world(pods=pods, max_size=max_size, paced=paced)
    _, commands = world.arrive(0, *[1] * max_size)
    return world, policy, only_batch(commands)


def test_those_that_can_be_answered_in_time_go_before_those_that_cannot() -> None:
    world, _, running = blocked()
    late, _ = world.arrive(10, 1, 1)
    world.arrive(400, 1)
    commands = world.at(600, answer(running))
    assert not [batch for batch in dispatched(commands) if batch.reason != "late"]
    (batch,) = dispatched(commands)
    assert batch.members == late  # a slot is free, and the one in time may wait

    fresh, _ = world.arrive(700, *[1] * 8)  # with the one from before, more than a batch
    (after,) = dispatched(world.at(701, answer(batch)))
    assert after.reason == "full"
    assert after.members[1:] == fresh[:7]


@pytest.mark.parametrize(("behind", "goes"), [(128, "those behind"), (127, "the first")])
def test_who_would_be_late_in_a_full_batch_leaves_it_to_those_behind_who_would_not(behind: int, goes: str) -> None:
    world, _, running = blocked(max_size=128)
    first, _ = world.arrive(10, 1)
    others, _ = world.arrive(300, *[1] * behind)
    batch = only_batch(world.at(400, *gone(running)))  # 110 ms are left for the first: enough alone, not for 168 ms
    assert batch.members == (others if goes == "those behind" else first + others)


def test_the_late_fill_the_places_of_a_batch_that_leaves_as_far_as_its_time_allows() -> None:
    world, policy, running = blocked(max_size=128, paced=True)
    world.arrive(10, *[1] * 60)
    in_time, _ = world.arrive(450, 1)
    batch = only_batch(world.at(850, *gone(running)))
    assert batch.reason == "paced"
    assert batch.members[:1] == in_time
    assert batch.instances == policy.controller.service.most_within(100 * MS, 128) == 54  # 1.03 × (40 + 54) + 3


def test_a_late_request_whose_caller_gives_up_is_forgotten_at_once() -> None:
    world, _, _ = blocked()
    requests, _ = world.arrive(10, *[1] * 5)
    world.at(600)
    (lane,) = world.engine._queue.lanes._lanes.values()
    assert lane.late_instances == 5
    world.at(601, *[Cancelled(request) for request in requests])
    assert not lane._late
    assert world.engine.queued_instances == 0


def test_a_drain_takes_the_late_along_within_the_size() -> None:
    world, _, running = blocked(max_size=4)
    for _ in range(5):  # one call at a time from here on
        world.at(1, Failed(running, Failure("timeout", "")))
        _, commands = world.arrive(1, *[1] * 4)
        running = dispatched(commands)[0] if dispatched(commands) else running
    world.arrive(2, 1, 1, 1)
    world.at(600)
    _, commands = world.arrive(600, 1, 1, 1)
    sent = dispatched(commands) + dispatched(world.at(601, Drain()))
    assert sent
    assert all(batch.instances <= 4 for batch in sent)


# --- slots and pods --------------------------------------------------------------------------------------------


def test_a_fixed_backend_never_gets_a_call_too_many() -> None:
    world, policy, running = blocked()
    world.arrive(10, 1)
    latest_ms = 510 - lead_ms(policy, 1)
    assert wakeup_ms(world) == pytest.approx(latest_ms)
    assert not dispatched(world.at(latest_ms))
    batch = only_batch(world.at(latest_ms + 2.5, *gone(running)))
    assert batch.reason == "deadline"
    assert policy._held_up  # more than 2 ms


def test_with_slots_enough_for_the_load_a_batch_that_must_leave_waits_for_one() -> None:
    world, policy, _ = blocked(ShadowPods(AutoscalerSpec(), 1))
    world.arrive(10, 1)
    world.at(510 - lead_ms(policy, 1))
    assert world.engine.in_flight == 1
    assert wakeup_ms(world) == policy.controller.demand.next_tick_ns / MS  # the load may have grown by then


def test_where_pods_are_missing_it_leaves_all_the_same() -> None:
    world, policy, _ = blocked(ShadowPods(AutoscalerSpec(), 1))
    world.arrive(10, 1)
    policy.controller.demand.middle = policy.controller.demand.fast = 2.0
    assert not dispatched(world.at(400))  # not before it must
    assert only_batch(world.at(510 - lead_ms(policy, 1))).reason == "deadline"
    assert world.engine.in_flight == 2


def test_a_backend_without_pods_is_woken_by_one_call() -> None:
    world, _ = slo_world(pods=ShadowPods(AutoscalerSpec(), 1), paced=True)
    world.at(0, Pods(0))
    _, commands = world.arrive(1, 1)
    assert only_batch(commands).reason == "paced"
    _, commands = world.arrive(2, 1, 1)
    assert not dispatched(commands)
    assert dispatched(world.at(3, Pods(3)))


def test_a_retry_too_keeps_to_the_pods_that_there_are_by_now() -> None:
    world, _ = slo_world(pods=ShadowPods(AutoscalerSpec(), 1), max_size=1)
    world.at(0, Pods(3))
    _, commands = world.arrive(1, 1, 1, 1)
    first, *_ = dispatched(commands)
    world.at(2, Failed(first, Failure("connect", "refused")))
    assert not dispatched(world.at(100, Pods(1)))
    assert world.engine.in_flight == 2


def test_after_failures_in_a_row_one_call_a_second_asks_until_one_succeeds() -> None:
    world, _ = slo_world(max_size=1)
    for ms in range(5):
        _, commands = world.arrive(ms, 1)
        world.at(ms + 0.5, Failed(only_batch(commands), Failure("timeout", "")))
    _, commands = world.arrive(10, 1, 1, 1)
    assert not dispatched(commands)
    assert wakeup_ms(world) == 1004.5
    probe = only_batch(wake(world))
    assert world.engine.next_wakeup_ns() is None or not dispatched(wake(world))
    assert len(dispatched(world.at(1100, answer(probe)))) == 1


@pytest.mark.parametrize("kind", ["alone", "spare"])
def test_who_goes_alone_and_checks_ask_no_more_often_while_probing(kind: str) -> None:
    world, _ = slo_world(max_size=1)
    for ms in range(5):
        _, commands = world.arrive(ms, 1)
        world.at(ms + 0.5, Failed(only_batch(commands), Failure("timeout", "")))
    several = Arrived([world.request() for _ in range(3)], alone=kind == "alone", spare=kind == "spare")
    assert not dispatched(world.at(10, several))
    assert wakeup_ms(world) == 1004.5
    probe = only_batch(wake(world))
    assert not dispatched(world.at(1005, Failed(probe, Failure("timeout", ""))))
    assert wakeup_ms(world) == 2005


@pytest.mark.parametrize("failure", [Failure("reset", ""), Failure("timeout", ""), Failure("status", "", 503)])
@pytest.mark.parametrize("kind", ["alone", "spare"])
def test_failures_of_who_goes_alone_and_of_checks_do_not_make_it_probe(kind: str, failure: Failure) -> None:
    world, policy = slo_world(max_size=1)
    for ms in range(0, 1000, 100):
        alone = Arrived([world.request()], alone=kind == "alone", spare=kind == "spare")
        for batch in dispatched(world.at(ms, alone)):
            world.at(ms + 0.5, Failed(batch, failure))
    assert not policy.controller.breaker.probing


def test_a_check_is_nobodys_request_and_was_not_held_up_with_a_batch() -> None:
    world, policy = slo_world(max_size=1)
    policy._held_up = True  # the batch before it was
    check = only_batch(world.at(1, Arrived([world.request()], spare=True)))
    assert check.reason == "verify"
    assert not policy.controller._sent[check].held_up
    world.at(2000, answer(check))
    feedback = policy.controller.feedback
    assert feedback.model_misses == feedback.capacity_misses == 0


# --- time and size ---------------------------------------------------------------------------------------------


def test_a_callers_own_deadline_makes_its_whole_batch_leave_earlier() -> None:
    world, policy = slo_world()
    world.arrive(0, 1)
    hurried = world.request(deadline_ms=300)
    world.at(10, Arrived([hurried]))
    assert wakeup_ms(world) == pytest.approx(300 - lead_ms(policy, 2))
    assert only_batch(wake(world)).members[0] is hurried


def test_a_longer_deadline_than_the_objective_changes_nothing() -> None:
    world, policy = slo_world()
    world.at(0, Arrived([world.request(deadline_ms=60_000)]))
    assert wakeup_ms(world) == pytest.approx(500 - lead_ms(policy, 1))


def test_with_an_objective_that_cannot_be_met_a_tenth_of_it_is_waited() -> None:
    world, policy = slo_world(mean_ms=440, sizes=(1, 2))
    world.at(500)
    assert policy.controller.infeasible is False
    for _ in range(400):  # now and then a call takes far longer
        policy.controller.service.learn(1, 441 * MS, 0.0, 0)
        policy.controller.service.learn(1, 900 * MS, 0.0, 0)
    world.at(1000)
    assert policy.controller.infeasible
    assert policy.statistics()["slo_infeasible"] == 1
    policy.controller.service.mean.level *= 441 * MS / policy.controller.service.mean_ns(1)
    world.arrive(1100, 1)
    assert wakeup_ms(world) == pytest.approx(1150)


def test_a_backend_slower_than_the_objective_gets_everything_as_late_and_in_full_batches() -> None:
    world, _ = slo_world(mean_ms=600, sizes=(1, 2, 4))
    _, commands = world.arrive(0, *[1] * 20)
    batch = only_batch(commands)
    assert batch.reason == "late"
    assert batch.instances == 20


def test_nothing_known_sizes_are_explored_one_two_four() -> None:
    world = World(SloBatching(SLO_NS, 0.01, 128, FixedPods(1)))
    _, commands = world.arrive(0, *[1] * 20)
    sizes = []
    for ms in range(50, 250, 50):
        batch = only_batch(commands)
        sizes.append(batch.instances)
        commands = world.at(ms, answer(batch))
    assert sizes == [1, 2, 4, 8]


def test_a_request_larger_than_the_cap_goes_alone() -> None:
    world, _ = slo_world(max_size=16, seen=2)
    _, commands = world.arrive(0, 7, 1)
    batch = only_batch(commands)
    assert [member.count for member in batch.members] == [7]
    assert batch.reason == "full"


def test_one_larger_than_the_configured_size_is_split() -> None:
    world, _ = slo_world(max_size=16)
    _, commands = world.arrive(0, 20)
    assert only_batch(commands).instances == 16


# --- several lanes ---------------------------------------------------------------------------------------------


def test_what_must_leave_goes_before_what_is_full_and_that_before_what_can_wait() -> None:
    world, policy = slo_world(pods=FixedPods(3), max_size=4)
    urgent, _ = world.arrive(0, 1, lane=b"urgent")
    world.arrive(100, 1, lane=b"patient")
    assert world.engine.in_flight == 0
    at_ms = 500 - lead_ms(policy, 1)
    full = [world.request(lane=b"full") for _ in range(4)]
    first, second = dispatched(world.at(at_ms, Arrived(full)))
    assert (first.members, first.reason) == (urgent, "deadline")
    assert (second.lane_key, second.reason) == (b"full", "full")


def test_a_lane_behind_the_first_that_must_leave_earlier_because_it_is_larger_leaves() -> None:
    world, policy = slo_world()
    world.arrive(0, 1, lane=b"small")
    world.arrive(1, *[1] * 100, lane=b"large")
    assert lead_ms(policy, 100) > lead_ms(policy, 1) + 1
    batch = only_batch(wake(world))
    assert batch.lane_key == b"large"
    assert wakeup_ms(world) == pytest.approx(500 - lead_ms(policy, 1))


def test_what_explains_the_decisions_can_be_read() -> None:
    world, policy = slo_world(paced=True)
    spend_all(policy)
    world.arrive(0, 1)
    statistics = world.engine.statistics()
    assert statistics["queued_instances"] == 1
    assert statistics["size_cap"] == 128
    assert statistics["base_ns"] / MS == pytest.approx(MEAN_MS, rel=0.01)
    assert statistics["slope_ns"] / MS == pytest.approx(SLOPE_MS, rel=0.01)
    assert statistics["tokens_ns"] < 0
    assert repr(policy).startswith("<SloBatching <Controller 0/1 in flight")


def test_a_timer_that_pays_never_comes_at_the_same_instant_again() -> None:
    world, policy = slo_world(paced=True)
    policy.controller.tokens.value_ns = 0.0
    world.arrive(0, 1)
    looks = 0
    while not any(isinstance(command, Dispatch) for command in wake(world)):
        looks += 1
    assert looks <= 1
