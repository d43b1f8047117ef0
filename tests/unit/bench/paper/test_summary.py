"""Means, ranges, and improvements: which are between runs of the same seed."""

from __future__ import annotations

import pytest

from bench.paper.plan import Case
from bench.paper.summary import Improvement, Range, Readings, improvement, missed, pods, spread
from tests.unit.bench.paper.readings import made


def test_a_range_is_shown_only_where_it_says_something() -> None:
    assert spread([1.0, 2.0, 4.5]) == Range(2.5, 1.0, 4.5)
    assert spread([1.0, 2.0]).text() == "1.50 [1.00–2.00]"
    assert spread([1.001, 1.002]).text() == "1.00"
    assert spread([-0.4, -0.2]).text(0) == "0"


def test_an_improvement_compares_seed_by_seed() -> None:
    none = [made(policy="none", seed=1, pods=10.0), made(policy="none", seed=2, pods=20.0)]
    slo = [made(seed=2, pods=1.0), made(seed=1, pods=1.0)]
    assert improvement(slo, none, pods) == Improvement(Range(92.5, 90.0, 95.0))


def test_more_is_a_negative_improvement_and_fractions_show_near_a_hundred_percent() -> None:
    worse = improvement([made(miss_share=0.004)], [made(policy="none", miss_share=0.001)], missed)
    assert worse is not None
    assert worse.text() == "-300 %"
    assert Improvement(Range(99.4, 99.4, 99.4)).text() == "99.4 %"
    assert Improvement(Range(100.0, 100.0, 100.0)).text() == "100 %"


def test_where_the_baseline_misses_nothing_there_is_nothing_to_improve() -> None:
    assert improvement([made(miss_share=0.001)], [made(policy="none", miss_share=0.0)], missed) is None
    assert improvement([made(seed=1)], [made(policy="none", seed=2)], pods) is None
    assert improvement([], [made(policy="none")], pods) is None


def some_readings() -> Readings:
    return Readings(
        made(workload=workload, policy=policy, seed=seed, pods=count, miss_share=share)
        for workload, policy, count, share in (
            ("toxic", "none", 10.0, 0.02), ("toxic", "slo", 1.0, 0.0),
            ("iris", "none", 2.0, 0.0), ("iris", "slo", 1.0, 0.0),
        )
        for seed in (1, 2)
    )  # fmt: skip


def test_cases_above_the_objective_are_counted_once_each() -> None:
    readings = some_readings()
    assert readings.above("ours", 1, "none") == 1
    assert readings.above("ours", 1, "slo") == 0
    assert readings.mean("ours", 1, "none", pods) == pytest.approx(6)


def test_a_case_weighs_the_same_whatever_the_number_of_its_seeds() -> None:
    once, twice = made(scale=10, pods=1.0), [made(pods=4.0, seed=1), made(pods=6.0, seed=2)]
    assert Readings([once, *twice]).mean("ours", None, "slo", pods) == pytest.approx(3)


def test_what_reaches_a_claim_is_named_and_otherwise_the_best_is() -> None:
    readings, toxic = some_readings(), Case("ours", 1, "toxic", "azf")
    assert readings.reached("ours", 1, "slo", pods, 90) == ([toxic], toxic)
    assert readings.reached("ours", 1, "slo", pods, 92) == ([], toxic)
    assert readings.reached("ours", 1, "slo", missed, 99) == ([toxic], toxic)
