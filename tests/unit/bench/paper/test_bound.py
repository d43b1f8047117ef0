"""The clairvoyant bound, in worlds so small or so regular that it can be told by hand. Times are milliseconds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bench.paper.bound import bound_pods, deferred_calls, in_flight_until, mean_times_ns, slowness
from bench.paper.plan import Case, scenario
from bench.paper.shapes import steady
from mlproxy.simulate.arrivals import Poisson
from mlproxy.simulate.faults import parse_fault
from mlproxy.simulate.profiles import BUILT_IN, Affine
from mlproxy.units import NS_PER_MS, NS_PER_S

#: 40 ms and 10 ms per instance, four at most.
MEANS_NS = np.array([50.0, 60.0, 70.0, 80.0]) * NS_PER_MS


def calls(*arrivals_ms: float, slower: float = 1.0) -> list[tuple[float, float]]:
    arrivals_ns = np.array(arrivals_ms) * NS_PER_MS
    leave_ns, end_ns = deferred_calls(arrivals_ns, 500 * NS_PER_MS, MEANS_NS, lambda _: slower)
    return list(zip((leave_ns / NS_PER_MS).tolist(), (end_ns / NS_PER_MS).tolist(), strict=True))


def test_a_call_leaves_at_the_last_instant_with_all_that_came_until_then() -> None:
    assert calls(0, 100, 440) == [(440, 500), (890, 940)]  # with the third it would have to leave at 430
    assert calls(0, 100, 430) == [(430, 500)]


def test_a_full_call_leaves_at_once() -> None:
    assert calls(0, 1, 2, 3, 4) == [(3, 83), (454, 504)]


def test_one_that_cannot_be_in_time_leaves_at_once_and_alone() -> None:
    assert calls(0, 1, slower=11) == [(0, 550), (1, 551)]


def test_the_time_in_flight_is_added_up() -> None:
    leave_ns, end_ns = np.array([10.0, 20.0]), np.array([30.0, 25.0])
    assert in_flight_until(leave_ns, end_ns, np.array([0.0, 15.0, 22.0, 40.0])).tolist() == [0, 5, 14, 25]


def test_means_are_those_of_the_profile_with_its_outliers() -> None:
    profile = Affine(40, 10, sigma=0.5, outlier_share=0.1, outlier_factors=(2.0, 4.0))
    assert mean_times_ns(profile, 2) == pytest.approx([50 * 1.2 * NS_PER_MS, 60 * 1.2 * NS_PER_MS])


def test_faults_make_calls_longer_while_they_last() -> None:
    faults = (parse_fault("drift:2@1m-2m"), parse_fault("outliers:0.02,5"))
    assert [slowness(faults, at_s * NS_PER_S) for at_s in (59, 60, 120)] == pytest.approx([1.08, 2.16, 1.08])


@pytest.mark.parametrize(("per_second", "factor"), [(1000, 1), (1000, 2), (20, 1)])
def test_steady_traffic_needs_the_pods_that_its_load_calls_for(per_second: float, factor: int) -> None:
    case = Case("ours", 10, "fashion", "steady")
    faults = (parse_fault(f"drift:{factor}@0-1h"),)
    one = replace(
        scenario(case, steady().first(480), "slo", 1), trace=Poisson(per_second), faults=faults
    )  # fmt: skip
    means_ns = factor * mean_times_ns(BUILT_IN["fashion"], 128)
    # The size at which the batch that is filled until then takes as long as is left of the second.
    size = next((n for n in range(1, 128) if n / per_second * NS_PER_S + means_ns[n] > NS_PER_S), 128)
    load = per_second / size * means_ns[size - 1] / NS_PER_S
    assert bound_pods(one) == pytest.approx(max(1, math.ceil(load / 0.7)), abs=0.3)
