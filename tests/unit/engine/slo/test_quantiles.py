"""The factors between mean and quantile: the promised share of calls is longer, whatever the distribution."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from mlproxy.engine.slo.quantiles import (
    BUCKETS,
    ENOUGH_CALLS,
    LOG_BOUNDS,
    LOG_STEP,
    PRIOR_FACTOR,
    QUICK_CALLS,
    QuantileFactors,
    bucket_of,
)  # fmt: skip

Draw = Callable[[random.Random], float]


def lognormal(rng: random.Random) -> float:
    return math.exp(rng.gauss(-0.125, 0.5))


def bimodal(rng: random.Random) -> float:
    """A tenth of the calls takes 2.8 times the mean."""
    return 2.8 if rng.random() < 0.1 else 0.8


def learn(factors: QuantileFactors, draw: Draw, calls: int, exceed_share: float, instances: int = 4) -> float:
    """The share of ``calls`` that took longer than predicted at the time."""
    rng, exceeded = random.Random(3), 0
    for _ in range(calls):
        ratio = draw(rng)
        exceeded += ratio > factors.of(instances)
        factors.learn(instances, ratio, exceed_share)
    return exceeded / calls


@pytest.mark.parametrize(
    ("instances", "bucket"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4), (32768, 15), (65536, 15)]
)
def test_buckets_are_powers_of_two(instances: int, bucket: int) -> None:
    assert bucket_of(instances) == bucket


@pytest.mark.parametrize(
    ("draw", "exceed_share"),
    [(lognormal, 0.015), (lognormal, 0.05), (lognormal, 0.2), (bimodal, 0.015), (bimodal, 0.05)],
)
def test_the_wanted_share_of_calls_takes_longer(draw: Draw, exceed_share: float) -> None:
    factors = QuantileFactors()
    learn(factors, draw, 500, exceed_share)
    assert learn(factors, draw, 10_000, exceed_share) == pytest.approx(exceed_share, abs=0.002)


def test_the_quantile_of_a_known_distribution_is_found() -> None:
    factors = QuantileFactors()
    learn(factors, lognormal, 2000, 0.05)
    seen = []
    for _ in range(20):
        learn(factors, lognormal, 200, 0.05)
        seen.append(factors.of(4))
    assert sum(seen) / len(seen) == pytest.approx(math.exp(-0.125 + 1.645 * 0.5), rel=0.1)


def test_a_tail_that_grows_is_followed() -> None:
    factors = QuantileFactors()
    learn(factors, lambda _: 1.0, 500, 0.05)
    assert factors.of(4) == pytest.approx(math.exp(LOG_BOUNDS[0]), rel=0.1)
    assert learn(factors, bimodal, 300, 0.05) < 0.15
    assert factors.of(4) == pytest.approx(2.8, rel=0.15)


@pytest.mark.parametrize(("ratio", "bound"), [(0.1, 1.03), (100.0, 8.0)])
def test_the_factor_stays_within_bounds(ratio: float, bound: float) -> None:
    factors = QuantileFactors()
    learn(factors, lambda _: ratio, 2000, 0.3)
    assert factors.of(4) == pytest.approx(bound, rel=0.05)


def test_before_any_call_every_size_has_the_assumed_factor() -> None:
    assert [QuantileFactors().of(2**power) for power in range(BUCKETS)] == [PRIOR_FACTOR] * BUCKETS


def test_the_step_is_twice_as_long_for_the_first_calls_of_a_bucket() -> None:
    factors = QuantileFactors()
    steps = []
    for _ in range(QUICK_CALLS + 1):
        before = factors._logs[2]
        factors.learn(4, 1.2, 0.5)  # by turns above and below
        steps.append(abs(factors._logs[2] - before))
    assert steps[:QUICK_CALLS] == pytest.approx([LOG_STEP] * QUICK_CALLS)
    assert steps[QUICK_CALLS] == pytest.approx(LOG_STEP / 2)


def test_of_a_size_with_few_calls_its_neighbours_and_the_prior_say_something_too() -> None:
    factors = QuantileFactors()
    learn(factors, lambda _: 100.0, 20, 0.0, instances=2)  # the factor is at its bound of 8
    learn(factors, lambda _: 0.1, 40, 0.5, instances=16)  # at its bound of 1.03
    log_8, log_least, log_prior = math.log(8), math.log(1.03), math.log(PRIOR_FACTOR)
    assert math.log(factors.of(4)) == pytest.approx((4 * log_8 + 4 * log_least) / 8)  # between the two
    assert math.log(factors.of(1)) == pytest.approx((4 * log_8 + 4 * log_prior) / 8)  # one neighbour only
    assert math.log(factors.of(256)) == pytest.approx((4 * log_least + 4 * log_prior) / 8)


def test_a_size_with_enough_calls_is_believed_alone() -> None:
    factors = QuantileFactors()
    learn(factors, lambda _: 100.0, 20, 0.0, instances=2)
    learn(factors, lambda _: 0.1, ENOUGH_CALLS, 0.1, instances=4)
    assert factors.of(4) == pytest.approx(math.exp(factors._logs[2]))


def test_one_that_was_restored_goes_on_as_if_nothing_had_happened() -> None:
    factors, other = QuantileFactors(), QuantileFactors()
    learn(factors, lognormal, 40, 0.05, instances=8)
    other.restore(*factors.state())
    for one in (factors, other):
        learn(one, lognormal, 10, 0.05)
    assert [other.of(2**power) for power in range(8)] == [factors.of(2**power) for power in range(8)]


def test_it_shows_what_it_knows() -> None:
    factors = QuantileFactors()
    assert repr(factors) == "<QuantileFactors nothing known>"
    learn(factors, lambda _: 100.0, 20, 0.0)
    assert repr(factors) == "<QuantileFactors 4: 8.00>"
