"""The two loops: each brings its kind of miss to the share that it may have, and neither moves on nothing."""

from __future__ import annotations

import math

import pytest

from mlproxy.engine.slo.feedback import (
    AIMED_SHARE,
    CARE_BOUNDS,
    CARE_STEP,
    FROZEN_NS,
    INTERVAL_NS,
    MOST_EXCEEDING,
    Feedback,
)  # fmt: skip

MISS_TARGET = 0.02
AIM = MISS_TARGET * AIMED_SHARE
REQUESTS = 100_000


class World:
    """Intervals of ten seconds with so many requests each, one after the other."""

    def __init__(self) -> None:
        self.feedback = Feedback(MISS_TARGET)
        self.now_ns = 0
        self.feedback.tick(0)

    def interval(self, model: float = 0.0, capacity: float = 0.0, requests: int = REQUESTS) -> None:
        """One interval in which such shares of the requests missed."""
        self.feedback.count(requests, round(model * requests), round(capacity * requests))
        self.now_ns += INTERVAL_NS
        self.feedback.tick(self.now_ns)


def warmed_up() -> World:
    world = World()
    while world.now_ns < FROZEN_NS:
        world.interval(model=AIM / 2)
    return world


def test_at_first_many_calls_may_be_longer_and_nothing_is_in_reserve() -> None:
    feedback = Feedback(MISS_TARGET)
    assert feedback.exceed_share == pytest.approx(AIM * CARE_BOUNDS[1])
    assert feedback.reserve == 0


def test_a_generous_objective_lets_at_most_three_calls_in_ten_be_longer() -> None:
    assert Feedback(0.9).exceed_share == MOST_EXCEEDING


@pytest.mark.parametrize("members_late_per_late_call", [0.2, 0.7])
def test_misses_by_the_model_come_to_half_of_what_is_aimed_at(members_late_per_late_call: float) -> None:
    world, shares = World(), []
    for _ in range(400):
        shares.append(world.feedback.exceed_share * members_late_per_late_call)
        world.interval(model=shares[-1])
    assert shares[-1] == pytest.approx(max(AIM / 2, AIM * CARE_BOUNDS[0] * members_late_per_late_call), rel=0.05)


def test_misses_by_capacity_come_to_half_of_what_is_aimed_at() -> None:
    world = warmed_up()
    share = 1.0
    for _ in range(2000):
        share = max(0.0, 0.01 - 0.02 * world.feedback.reserve)  # half the peak in reserve would avoid them all
        world.interval(capacity=share)
    assert share == pytest.approx(AIM / 2, rel=0.05)


def test_a_reserve_that_nobody_needs_is_given_up_and_one_that_never_suffices_is_whole() -> None:
    world = warmed_up()
    for _ in range(20):
        world.interval(capacity=0.5)
    assert world.feedback.reserve == 1.0
    for _ in range(300):
        world.interval()
    assert world.feedback.reserve == 0.0


def test_what_the_start_misses_does_not_move_the_reserve() -> None:
    world = World()
    while world.now_ns < FROZEN_NS - INTERVAL_NS:
        world.interval(capacity=0.5)
    assert world.feedback.reserve == 0.0
    world.interval(capacity=0.5)
    assert world.feedback.reserve > 0.0


def test_an_interval_in_which_everything_is_late_is_one_bounded_step() -> None:
    world = World()
    world.interval(model=1.0)
    assert world.feedback.tolerance == pytest.approx(CARE_BOUNDS[1] * math.exp(-CARE_STEP))


def test_the_tolerance_has_bounds() -> None:
    world = World()
    for _ in range(50):
        world.interval(model=1.0)
    assert world.feedback.tolerance == CARE_BOUNDS[0]
    for _ in range(200):
        world.interval()
    assert world.feedback.tolerance == CARE_BOUNDS[1]


def test_an_interval_with_few_requests_says_little() -> None:
    steps = []
    for requests in (REQUESTS, REQUESTS // 10):
        world = warmed_up()
        before = world.feedback.tolerance
        world.interval(model=AIM, requests=requests)
        steps.append(math.log(before / world.feedback.tolerance))
    assert steps[1] == pytest.approx(steps[0] / 10, rel=0.15)


def test_an_interval_without_requests_changes_nothing() -> None:
    world = warmed_up()
    before = repr(world.feedback)
    for _ in range(100):
        world.interval(requests=0)
    assert repr(world.feedback) == before


def test_within_an_interval_nothing_moves() -> None:
    world = warmed_up()
    before = world.feedback.tolerance
    world.feedback.count(100, 100, 100)
    world.feedback.tick(world.now_ns + INTERVAL_NS - 1)
    assert world.feedback.tolerance == before


def test_it_shows_how_careful_it_is() -> None:
    world = World()
    world.feedback.count(10, 2, 1)
    assert repr(world.feedback) == "<Feedback tolerance 3.00, reserve 0.00, 2 model and 1 capacity misses>"
