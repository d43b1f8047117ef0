"""The load that no policy can go below, and the slots that it calls for."""

from __future__ import annotations

import math
import random

import pytest

from mlproxy.engine.slo.demand import HYSTERESIS, PEAK_TAU_S, TICK_NS, USED_SHARE, Demand, VirtualBatcher
from mlproxy.units import NS_PER_MS, NS_PER_S

CAP = 8
TARGET = 0.7


def mean_ns(instances: float) -> float:
    return (40 + instances) * NS_PER_MS


def wait_ns(instances: int) -> float:
    return (400 - 10 * instances) * NS_PER_MS


def plain_work_ns(arrivals_ns: list[int]) -> float:
    """Batch after batch, each request by itself."""
    work_ns, instances, opened_ns = 0.0, 0, 0
    for at_ns in arrivals_ns:
        if instances and at_ns >= opened_ns + wait_ns(instances):
            work_ns += mean_ns(instances)
            instances = 0
        opened_ns = opened_ns if instances else at_ns
        instances += 1
        if instances == CAP:
            work_ns += mean_ns(CAP)
            instances = 0
    return work_ns + (mean_ns(instances) if instances else 0.0)


@pytest.mark.parametrize("per_second", [1, 10, 30, 300])
@pytest.mark.parametrize("seed", range(5))
def test_the_virtual_batcher_does_what_a_plain_loop_does(per_second: float, seed: int) -> None:
    rng, now_ns, arrivals_ns = random.Random(seed), 0, []
    batcher = VirtualBatcher(mean_ns, wait_ns)
    for _ in range(500):
        now_ns += int(rng.expovariate(per_second) * NS_PER_S)
        arrivals_ns.append(now_ns)
        batcher.arrive(1, CAP, now_ns)
    batcher.close_due(now_ns + NS_PER_S)
    assert batcher.take_work_ns() == pytest.approx(plain_work_ns(arrivals_ns))
    assert batcher.take_work_ns() == 0


def test_many_at_once_fill_as_many_batches_as_they_need() -> None:
    batcher = VirtualBatcher(mean_ns, wait_ns)
    batcher.arrive(3 * CAP + 2, CAP, 0)
    assert batcher.take_work_ns() == 3 * mean_ns(CAP)
    batcher.close_due(int(wait_ns(2)) - 1)
    assert batcher.take_work_ns() == 0
    batcher.close_due(int(wait_ns(2)))
    assert batcher.take_work_ns() == mean_ns(2)


class World:
    """Every tick ``load`` slots' worth of work comes."""

    def __init__(self) -> None:
        self.batcher = VirtualBatcher(mean_ns, wait_ns)
        self.demand = Demand(self.batcher, TARGET)
        self.now_ns = 0
        self.demand.tick(0, 0.0)

    def run(self, load: float, seconds: float, reserve: float = 0.0) -> list[int]:
        """The slots after each tick."""
        slots = []
        for _ in range(round(seconds * NS_PER_S / TICK_NS)):
            self.now_ns += TICK_NS
            self.batcher.work_ns = load * TICK_NS
            assert self.demand.tick(self.now_ns, reserve)
            slots.append(self.demand.slots)
        return slots


def test_between_ticks_nothing_changes() -> None:
    world = World()
    world.batcher.work_ns = 1e9
    assert not world.demand.tick(TICK_NS - 1, 0.0)
    assert world.batcher.work_ns == 1e9
    assert world.demand.next_tick_ns == TICK_NS


def test_a_step_is_seen_by_each_average_in_its_time() -> None:
    world = World()
    world.run(2.0, 1)
    assert world.demand.fast == pytest.approx(2 * (1 - math.exp(-1)))
    assert world.demand.middle == pytest.approx(2 * (1 - math.exp(-1 / 2)))
    assert world.demand.slow == pytest.approx(2 * (1 - math.exp(-1 / 15)))


def test_an_hour_of_silence_is_one_tick_and_leaves_nothing_but_the_peaks_remains() -> None:
    world = World()
    world.run(2.0, 60)
    assert world.demand.tick(world.now_ns + 3600 * NS_PER_S, 0.0)
    assert world.demand.slow == pytest.approx(0, abs=1e-6)
    assert world.demand.peak == pytest.approx(2 * math.exp(-3600 / PEAK_TAU_S), rel=0.01)
    assert world.demand.slots == 1


def test_slots_are_those_of_the_load_with_some_distance() -> None:
    world = World()
    world.run(2.0, 200)
    assert world.demand.slots == math.ceil(2.0 * (1 + HYSTERESIS) / (USED_SHARE * TARGET)) == 4


def test_the_last_slot_is_never_given_up() -> None:
    assert set(World().run(0.0, 100)) == {1}


def test_a_load_about_a_boundary_does_not_make_the_slots_flutter() -> None:
    boundary = 3 * USED_SHARE * TARGET / (1 + HYSTERESIS)
    world = World()
    world.run(boundary * 1.005, 300)
    assert world.demand.slots == 4
    assert set(world.run(boundary * 0.97, 300)) == {4}  # within the hysteresis
    assert world.run(boundary * 0.94, 300)[-1] == 3
    assert set(world.run(boundary * 0.99, 300)) == {3}


def test_the_reserve_prepares_for_the_peak() -> None:
    world = World()
    world.run(5.0, 60)
    world.run(0.5, 120)
    assert world.demand.slots == 1
    world.run(0.5, 10, reserve=0.5)
    load = 0.5 + 0.5 * (world.demand.peak - 0.5)
    assert world.demand.slots == math.ceil(load * (1 + HYSTERESIS) / (USED_SHARE * TARGET)) == 4


def test_it_shows_the_load() -> None:
    world = World()
    world.run(2.0, 500)
    assert repr(world.demand) == "<Demand 2.00 (2.00, 2.00, peak 2.00): 4 slots>"
    assert repr(world.batcher) == "<VirtualBatcher 0 instances, 0.0 ms of work>"
