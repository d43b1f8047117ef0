"""The mean time against laws that are known. Times are milliseconds."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlproxy.engine.slo.mean_time import LEVEL_CLIP, LEVEL_STEP, PRIOR_BASE, PRIOR_SLOPE, MeanTime
from mlproxy.engine.slo.size_cap import knee
from mlproxy.units import NS_PER_MS

SIZES = (1, 2, 3, 5, 8, 13, 21, 32)
Law = Callable[[int], float]


def toxic(instances: int) -> float:
    return 39.5 + 1.0 * instances


def fashion(instances: int) -> float:
    return 120 + 2.6 * instances


def learn(model: MeanTime, law: Law, calls: int, *, sigma: float = 0.0, seed: int = 1) -> None:
    """``calls`` calls of sizes by turns, lognormal around ``law``, whose value is their mean."""
    rng = random.Random(seed)
    for call in range(calls):
        size = SIZES[call % len(SIZES)]
        noise = math.exp(rng.gauss(-sigma * sigma / 2, sigma))
        model.learn(size, law(size) * noise * NS_PER_MS)


def mean_ms(model: MeanTime, instances: int) -> float:
    return model.of(instances) / NS_PER_MS


def taught(law: Law, calls: int = 400, sigma: float = 0.0) -> MeanTime:
    model = MeanTime(500 * NS_PER_MS)
    learn(model, law, calls, sigma=sigma)
    return model


def test_without_any_call_a_fifth_of_the_objective_is_assumed() -> None:
    model = MeanTime(500 * NS_PER_MS)
    assert mean_ms(model, 1) == pytest.approx(500 * PRIOR_BASE * (1 + PRIOR_SLOPE))


def test_the_first_calls_are_averaged_plainly() -> None:
    model = MeanTime(500 * NS_PER_MS)
    for time_ms in (10, 20, 30):
        model.learn(4, time_ms * NS_PER_MS)
    assert mean_ms(model, 4) == pytest.approx(20)


@pytest.mark.parametrize("law", [toxic, fashion])
def test_an_affine_law_is_found_exactly_without_noise(law: Law) -> None:
    model = taught(law, 2000)
    for size in (*SIZES, 64):
        assert mean_ms(model, size) == pytest.approx(law(size), rel=0.01)


@pytest.mark.parametrize(("law", "sigma"), [(toxic, 0.2), (fashion, 0.4)])
def test_an_affine_law_is_found_through_noise(law: Law, sigma: float) -> None:
    model = taught(law, 1000, sigma)
    errors = [abs(mean_ms(model, size) / law(size) - 1) for size in (1, 8, 32)]
    assert max(errors) < 3 * LEVEL_STEP * sigma  # the level is an average of the last ten or so


@pytest.mark.parametrize(("factor", "within"), [(2.0, 0.2), (0.5, 0.3)])
def test_a_drift_by_two_is_followed_within_ten_calls(factor: float, within: float) -> None:
    model = taught(toxic)
    learn(model, lambda size: factor * toxic(size), 10)
    for size in (1, 32):
        assert mean_ms(model, size) == pytest.approx(factor * toxic(size), rel=within)
    learn(model, lambda size: factor * toxic(size), 40)
    for size in (1, 32):
        assert mean_ms(model, size) == pytest.approx(factor * toxic(size), rel=0.05)


@pytest.mark.parametrize("law", [fashion, lambda size: size * 10.0], ids=["fashion", "nothing but instances"])
def test_whatever_changes_the_sizes_that_are_seen_stay_within_the_knee(law: Law) -> None:
    model = MeanTime(1000 * NS_PER_MS)
    for factor in (1.0, 4.0, 1.0, 0.25):
        for _ in range(1000):
            model.learn(32, factor * law(32) * NS_PER_MS)
        assert mean_ms(model, 32) == pytest.approx(factor * law(32), rel=0.01)
        assert knee(model.base_ns, model.slope_ns) >= 32


def test_a_slow_down_that_comes_with_larger_batches_does_not_leave_one_instance_at_a_time() -> None:
    model = MeanTime(1000 * NS_PER_MS)
    for call in range(400):
        model.learn(20 + call % 10, fashion(20) * NS_PER_MS)
    for call in range(100):
        model.learn(60 + call % 10, 4 * fashion(60) * NS_PER_MS)
    assert knee(model.base_ns, model.slope_ns) >= 20


def test_an_outlier_moves_the_mean_no_more_than_the_largest_time_that_is_believed() -> None:
    model = taught(toxic)
    model.learn(8, 100 * toxic(8) * NS_PER_MS)
    most = 1 + LEVEL_STEP * (LEVEL_CLIP - 1)
    assert mean_ms(model, 8) == pytest.approx(toxic(8) * most, rel=0.001)


def test_outliers_now_and_then_leave_the_mean_where_it_is() -> None:
    model = taught(toxic, 50)
    errors = []
    for call in range(1000):
        size = SIZES[call % len(SIZES)]
        model.learn(size, toxic(size) * (5 if call % 50 == 0 else 1) * NS_PER_MS)
        errors.append(abs(mean_ms(model, 8) / toxic(8) - 1))
    assert sum(errors) / len(errors) < 0.03
    assert max(errors) < 0.09


def test_with_one_size_only_its_time_is_found_and_no_slope_invented() -> None:
    model = MeanTime(500 * NS_PER_MS)
    for _ in range(300):
        model.learn(8, 48 * NS_PER_MS)
    assert mean_ms(model, 8) == pytest.approx(48, rel=0.001)
    assert 48 * 0.6 < mean_ms(model, 1) < 48
    assert 48 < mean_ms(model, 16) < 48 * 1.5


def test_the_refit_does_not_move_the_time_of_the_size_that_was_just_seen() -> None:
    model = taught(toxic)
    before = model.of(32)
    model.learn(32, 1.2 * before)
    assert model.of(32) == pytest.approx(before * (1 + 0.2 * LEVEL_STEP))


@given(st.lists(st.tuples(st.integers(1, 1000), st.floats(1e3, 1e12)), min_size=1, max_size=60))
def test_whatever_calls_take_the_mean_is_positive_finite_and_grows_with_the_size(
    calls: list[tuple[int, float]],
) -> None:
    model = MeanTime(500 * NS_PER_MS)
    for size, time_ns in calls:
        model.learn(size, time_ns)
        times_ns = [model.of(instances) for instances in (1, 2, 32, 128, 4096)]
        assert times_ns == sorted(times_ns)
        assert 0 < times_ns[0] <= times_ns[-1] < math.inf


def test_one_that_was_restored_goes_on_as_if_nothing_had_happened() -> None:
    model, other = taught(fashion, 300, 0.3), MeanTime(1000 * NS_PER_MS)
    other.restore(model.state())
    for one in (model, other):
        learn(one, fashion, 20, sigma=0.3, seed=7)
    assert [other.of(size) for size in SIZES] == [model.of(size) for size in SIZES]


def test_it_shows_what_it_knows() -> None:
    assert repr(taught(toxic, 2000)) == "<MeanTime 1.000 (39.500 ms + 1.0000 ms n) from 2000 calls>"
