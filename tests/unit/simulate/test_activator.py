"""The activator and its pods, call by call. Times are milliseconds; every call takes 10."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlproxy.simulate import ClusterSettings
from mlproxy.simulate.activator import Activator
from mlproxy.simulate.call import Call, Place
from mlproxy.simulate.model import Model
from mlproxy.simulate.profiles import Affine
from mlproxy.simulate.timeline import Level, Timeline

MS = 1_000_000
SECOND = 1000


class World:
    """An activator with ``pods`` ready pods; a log of when calls were done."""

    def __init__(self, pods: int, **settings: Any) -> None:
        self.timeline = Timeline()
        self.done: list[tuple[float, Call]] = []
        model = Model(Affine(10, 0), (), np.random.default_rng(1))
        cluster = ClusterSettings(cold_start_ns=(2000 * MS, 2000 * MS), **settings)
        self.activator = Activator(cluster, self.timeline, model, 7, self._on_done)
        self.fleet = self.activator.fleet
        self.fleet.begin_with(pods)

    def _on_done(self, call: Call) -> None:
        self.done.append((self.timeline.now_ns / MS, call))

    def at(self, ms: float) -> World:
        self.timeline.happen(int(ms * MS))
        return self

    def call(self) -> Call:
        call = Call(1)
        self.activator.receive(call)
        return call


def test_calls_wait_in_order_for_the_one_pod() -> None:
    world = World(1, container_concurrency=1)
    calls = [world.call() for _ in range(3)]
    assert world.activator.waiting == 2
    world.at(100)
    assert world.done == [(10, calls[0]), (20, calls[1]), (30, calls[2])]


def test_the_first_pod_by_address_gets_the_call_up_to_a_limit_of_three() -> None:
    world = World(4, container_concurrency=1)
    first = min(world.fleet.ready, key=lambda pod: pod.address)
    for ms in range(0, 200, 20):
        world.at(ms).call()
        assert first.running == 1


def test_above_a_limit_of_three_the_pods_take_turns() -> None:
    world = World(4, container_concurrency=5)
    for _ in range(8):
        world.call()
    assert [pod.running for pod in world.fleet.ready] == [2, 2, 2, 2]


def test_without_a_limit_a_pod_works_on_one_call_and_queues_the_rest() -> None:
    world = World(2, container_concurrency=0)
    for _ in range(6):
        world.call()
    assert [pod.running for pod in world.fleet.ready] == [1, 1]
    assert sorted(pod.calls for pod in world.fleet.ready) == [3, 3]  # two choices of two: the less loaded, always
    world.at(100)
    assert [ms for ms, _ in world.done] == [10, 10, 20, 20, 30, 30]


@pytest.mark.parametrize("concurrency", [0, 1])
def test_with_no_pod_ready_calls_wait_for_the_first(concurrency: int) -> None:
    world = World(0, container_concurrency=concurrency)
    world.fleet.scale_to(2)
    calls = [world.at(5).call() for _ in range(2)]
    world.at(1999)
    assert (world.activator.waiting, world.done) == (2, [])
    world.at(2100)
    assert {call for _, call in world.done} == set(calls)


def test_a_pod_that_becomes_ready_takes_what_waits() -> None:
    world = World(1, container_concurrency=2)
    world.at(1995)
    for _ in range(8):
        world.call()
    world.fleet.scale_to(2)
    world.at(1995 + 2000)
    assert [ms for ms, _ in world.done] == [2005, 2005, 2015, 2015, 2025, 2025, 2035, 2035]


def test_beyond_its_bound_the_queue_refuses() -> None:
    world = World(1, container_concurrency=1, activator_queue=2)
    calls = [world.call() for _ in range(4)]
    assert world.done == [(0, calls[3])]
    assert calls[3].failed


def test_a_call_that_is_given_up_leaves_the_queue_and_its_place_in_it() -> None:
    world = World(1, container_concurrency=1, activator_queue=2)
    calls = [world.call() for _ in range(3)]
    world.activator.give_up(calls[1])
    assert world.activator.waiting == 1
    assert world.activator.reports.meter.current == 2
    assert not world.call().failed
    world.at(100)
    assert [ms for ms, _ in world.done] == [10, 20, 30]
    assert calls[1] not in [call for _, call in world.done]


def test_a_call_that_is_given_up_in_a_pods_queue_is_not_worked_on() -> None:
    world = World(1, container_concurrency=0)
    calls = [world.call() for _ in range(3)]
    assert calls[1].place is Place.POD
    world.activator.give_up(calls[1])
    world.at(100)
    assert [call for _, call in world.done] == [calls[0], calls[2]]
    assert world.activator.reports.meter.current == 0


def test_a_pod_does_not_notice_that_its_call_was_given_up() -> None:
    world = World(1, container_concurrency=1)
    given_up, following = world.call(), world.call()
    world.activator.give_up(given_up)
    world.at(100)
    assert (20.0, following) in world.done


def test_pods_that_are_not_ready_go_first_then_the_youngest() -> None:
    world = World(1)
    world.fleet.scale_to(2)
    world.at(2500)
    oldest, youngest = world.fleet.ready
    world.fleet.scale_to(4)
    world.fleet.scale_to(2)
    world.at(10_000)
    assert world.fleet.ready == [oldest, youngest]
    world.fleet.scale_to(1)
    assert world.fleet.ready == [oldest]


def test_a_pod_that_goes_finishes_its_calls_takes_no_more_and_is_paid_until_it_was_quiet() -> None:
    world = World(2, container_concurrency=1)
    calls = [world.call() for _ in range(3)]
    world.at(5)
    world.fleet.scale_to(1)
    assert (world.fleet.ready_level.now, world.fleet.provisioned.now, world.fleet.busy.now) == (1, 2, 2)
    world.at(15)
    assert world.fleet.busy.now == 1  # the third call went to the pod that stays
    world.at(20)
    assert [call for _, call in world.done] == calls
    world.at(30 * SECOND + 9)
    assert world.fleet.provisioned.now == 2
    world.at(30 * SECOND + 10)
    assert world.fleet.provisioned.now == 1


def test_levels_are_weighted_with_time_and_forget_what_was_before_the_restart() -> None:
    level = Level()
    level.change(100, 0)
    level.change(-98, 10)
    level.restart(50)
    assert (level.mean(50), level.largest) == (2, 2)
    level.change(2, 75)
    level.change(-3, 100)
    assert level.mean(150) == pytest.approx((25 * 2 + 25 * 4 + 50 * 1) / 100)
    assert level.largest == 4


def test_things_of_one_instant_happen_in_the_order_in_which_they_were_planned() -> None:
    timeline, happened = Timeline(), list[str]()
    for name, at_ns in (("b", 5), ("a", 3), ("c", 5), ("late", 6)):
        timeline.at(at_ns, happened.append, name)
    timeline.happen(5)
    assert (happened, timeline.now_ns) == (["a", "b", "c"], 5)


def test_the_representations_are_legible() -> None:
    world = World(2)
    world.call()
    assert repr(world.activator) == "<Activator: 0 waiting, 1 under way, <Fleet: 0 starting, 2 ready, 2 provisioned>>"
    assert repr(world.timeline) == "<Timeline at 0.000 s: 1 to come>"
    assert repr(world.fleet.ready[0]).startswith("<Pod ")
