"""The 2021 prototype's controller, its weaknesses included. Times are milliseconds, the objective is 0.8 × 500."""

from __future__ import annotations

import pytest

from mlproxy.config import Aimd
from mlproxy.config.values import NO_LIMIT
from mlproxy.engine import Failed
from mlproxy.engine.policies import AimdBatching
from mlproxy.engine.policies.aimd import percentile_95
from tests.unit.engine.world import SLO_NS, World, answer, dispatched, failure, only_batch


def aimd_world(max_size: int = 128, **settings: float) -> tuple[World, AimdBatching]:
    policy = AimdBatching(SLO_NS, max_size, NO_LIMIT, Aimd.model_validate(settings))
    return World(policy), policy


def wakeup_ms(world: World) -> float:
    wakeup_ns = world.engine.next_wakeup_ns()
    assert wakeup_ns is not None
    return wakeup_ns / 1e6


def call(world: World, ms: float, instances: int, took_ms: float) -> None:
    """Somebody sends ``instances`` at once; they leave at once, being a full batch."""
    _, commands = world.arrive(ms, *[1] * instances)
    batch = only_batch(commands)
    world.at(ms + took_ms, answer(batch))


def test_a_batch_leaves_when_it_is_full_however_many_calls_are_out() -> None:
    world, _ = aimd_world()
    for ms in range(20):
        _, commands = world.arrive(ms, 1, 1, 1, 1, 1)
        batch = only_batch(commands)
        assert (batch.instances, batch.reason) == (5, "full")
    assert world.engine.in_flight == 20


def test_without_data_a_call_is_taken_to_last_100_ms_and_the_timer_takes_the_rest() -> None:
    world, _ = aimd_world()
    world.arrive(0, 1)
    world.arrive(250, 1)
    assert wakeup_ms(world) == 400 - 100  # from the oldest request's arrival
    assert not dispatched(world.at(299))
    batch = only_batch(world.at(300))
    assert (batch.instances, batch.reason) == (2, "deadline")


def test_a_quiet_service_waits_for_company_that_does_not_come() -> None:
    world, _ = aimd_world(start_size=1)
    for ms in range(0, 10_000, 100):
        call(world, ms, 1, 20)
    world.engine._policy.size_cap = 5  # type: ignore[misc]
    world.arrive(20_000, 1)
    assert wakeup_ms(world) == 20_000 + 400 - 50  # the model takes 20 ms, no estimate is below 50


def test_the_timer_leaves_room_for_the_95th_percentile_of_the_next_size() -> None:
    world, _ = aimd_world(start_size=2)
    for number in range(20):
        call(world, 1000 * number, 2, 100 + 5 * number)
    world.arrive(20_000, 1)
    assert wakeup_ms(world) == 20_000 + 400 - 195


def test_a_size_without_calls_is_taken_to_last_as_long_as_the_largest_there_is() -> None:
    world, policy = aimd_world(start_size=3)
    call(world, 0, 3, 220)
    policy.size_cap = 10
    world.arrive(20_000, 1)
    assert wakeup_ms(world) == 20_000 + 400 - 220


def test_an_estimate_is_used_for_ten_seconds_also_that_there_is_none() -> None:
    world, policy = aimd_world(start_size=2)
    world.arrive(0, 1)  # asks for the time of two, of which nothing is known
    world.at(300)
    policy.size_cap = 2
    call(world, 400, 2, 250)
    world.arrive(9_000, 1)
    assert wakeup_ms(world) == 9_000 + 400 - 100
    world.at(9_300)
    world.arrive(10_001, 1)
    assert wakeup_ms(world) == 10_001 + 400 - 250


def test_calls_older_than_a_minute_are_forgotten() -> None:
    world, _ = aimd_world(start_size=2)
    call(world, 0, 2, 250)
    world.arrive(60_251, 1)
    assert wakeup_ms(world) == 60_251 + 400 - 100


def test_the_timer_never_takes_less_than_50_ms() -> None:
    world, _ = aimd_world(start_size=2)
    call(world, 0, 2, 3000)
    world.arrive(20_000, 1)
    assert wakeup_ms(world) == 20_000 + 50


def run(
    world: World, policy: AimdBatching, *, seconds: int, took_ms: float, full: bool = True, start_s: int = 0
) -> None:
    """Batches every second, full ones or such as the timer sends."""
    for second in range(start_s, start_s + seconds):
        ms = 1000.0 * second
        _, commands = world.arrive(ms, *[1] * (policy.size_cap if full else 1))
        while not (batches := dispatched(commands)):
            ms = wakeup_ms(world)
            commands = world.at(ms)
        for batch in batches:
            world.at(ms + took_ms, answer(batch))


def test_all_is_well_so_the_size_grows_by_a_step_every_30_s() -> None:
    world, policy = aimd_world()
    run(world, policy, seconds=100, took_ms=50)
    assert policy.size_cap == 5 + 3 * 5


def test_the_size_grows_up_to_the_configured_one() -> None:
    world, policy = aimd_world(max_size=12)
    run(world, policy, seconds=130, took_ms=50)
    assert policy.size_cap == 12


def test_slow_answers_shrink_it_which_in_overload_makes_matters_worse() -> None:
    world, policy = aimd_world(start_size=100)
    run(world, policy, seconds=100, took_ms=400)
    assert policy.size_cap == int(int(int(100 * 0.7) * 0.7) * 0.7)


def test_it_shrinks_while_half_of_the_batches_leave_by_the_timer_down_to_one_which_is_always_full() -> None:
    world, policy = aimd_world(start_size=10)
    sizes = []
    for look in range(6):
        run(world, policy, seconds=30, took_ms=20, full=False, start_s=1 + 30 * look)
        sizes.append(policy.size_cap)
    assert sizes == [10, 7, 4, 2, 1, 6]


def test_how_batches_left_is_judged_by_the_last_20_seconds() -> None:
    world, policy = aimd_world(start_size=10)
    run(world, policy, seconds=9, took_ms=20, full=False)
    run(world, policy, seconds=21, took_ms=20, start_s=9)
    world.at(30_001)
    assert policy.size_cap == 15
    run(world, policy, seconds=10, took_ms=20, start_s=31)
    run(world, policy, seconds=19, took_ms=20, full=False, start_s=41)
    world.at(60_001)
    assert policy.size_cap == 10


def test_a_failed_call_says_nothing_and_an_interval_without_any_changes_nothing() -> None:
    world, policy = aimd_world()
    _, commands = world.arrive(0, 1, 1, 1, 1, 1)
    world.at(10, Failed(only_batch(commands), failure(400)))
    for second in range(1, 100):
        world.at(1000 * second)
    assert policy.size_cap == 5


@pytest.mark.parametrize(("values", "expected"), [([7], 7), (list(range(100)), 95), (list(range(20)), 19)])
def test_the_95th_percentile_is_by_the_nearest_rank(values: list[int], expected: int) -> None:
    assert percentile_95(values) == expected


def test_it_shows_its_size() -> None:
    _, policy = aimd_world()
    assert repr(policy) == "<AimdBatching up to 5>"
    assert policy.statistics() == {"size_cap": 5, "slots": NO_LIMIT}
