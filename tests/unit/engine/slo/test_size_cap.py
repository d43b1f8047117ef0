"""How large a batch may be. Times are milliseconds."""

from __future__ import annotations

import pytest

from mlproxy.engine.slo.mean_time import MeanTime
from mlproxy.engine.slo.service_time import ServiceTime
from mlproxy.engine.slo.size_cap import CLIFF_FORGOTTEN_NS, FAILED_DOUBLES_NS, SizeCap, knee
from mlproxy.units import NS_PER_MS, NS_PER_S

BASE_NS, SLOPE_NS = 40.0 * NS_PER_MS, 1.0 * NS_PER_MS


def cap_of(cap: SizeCap, now_ns: int = 0) -> int:
    return min(cap.reach, cap.bound(BASE_NS, SLOPE_NS, now_ns))


def explored(max_size: int = 128) -> SizeCap:
    cap = SizeCap(max_size)
    cap.seen(max_size)
    return cap


def test_sizes_are_explored_by_doubling() -> None:
    cap, caps = SizeCap(50), []
    for _ in range(8):
        caps.append(cap_of(cap))
        cap.seen(caps[-1])
    assert caps == [1, 2, 4, 8, 16, 32, 50, 50]


def test_a_smaller_batch_takes_nothing_of_what_was_explored_away() -> None:
    cap = SizeCap(50)
    cap.seen(8)
    cap.seen(2)
    assert cap_of(cap) == 16


@pytest.mark.parametrize(
    ("base_ms", "slope_ms", "size"), [(40, 1, 360), (8.6, 0.015, 5160), (120, 2.6, 416), (10, 10, 9), (0, 5, 1)]
)
def test_the_knee_is_where_a_calls_own_cost_is_a_tenth_of_it(base_ms: float, slope_ms: float, size: int) -> None:
    assert knee(base_ms * NS_PER_MS, slope_ms * NS_PER_MS) == size
    if base_ms:
        assert base_ms / (base_ms + slope_ms * size) <= 0.1 < base_ms / (base_ms + slope_ms * (size - 1))


def test_without_a_slope_there_is_no_knee() -> None:
    assert SizeCap(4096).bound(BASE_NS, 0.0, 0) == 4096


def test_beyond_the_knee_nothing_is_gained() -> None:
    assert explored().bound(10.0, 10.0, 0) == 9


def test_a_batch_too_large_for_the_backend_halves_the_size_and_a_minute_doubles_it() -> None:
    cap = explored(128)
    cap.failed(100, 0)
    minutes = [cap_of(cap, minute * FAILED_DOUBLES_NS) for minute in range(4)]
    assert minutes == [50, 100, 128, 128]
    assert cap_of(cap, 0) == 128  # forgotten: nothing is left of it
    cap.failed(1, 0)
    assert cap_of(cap) == 1


def cliff_ms(size: int) -> float:
    """Toxic, four times as slow above 32."""
    return (40 + size) * (4 if size > 32 else 1)


def test_few_slow_calls_are_no_cliff_where_larger_ones_cost_less() -> None:
    cap = explored()
    for size, ms in ((2, 50), (64, 100), (4, 400)):  # of four the first calls happen to be slow
        for _ in range(5):
            assert not cap.learn(size, ms * NS_PER_MS, 0)
    assert cap_of(cap) == 128


def test_an_outlier_among_the_first_calls_is_no_cliff() -> None:
    cap = explored()
    for ms in (56, 56, 56, 56, 56):
        cap.learn(16, ms * NS_PER_MS, 0)
    for ms in (360, 72, 72, 72, 72):
        assert not cap.learn(32, ms * NS_PER_MS, 0)


def test_beyond_a_cliff_no_batch_goes_for_half_an_hour() -> None:
    cap, now_ns = explored(), NS_PER_S
    for size in (8, 16, 32):
        for _ in range(5):
            assert not cap.learn(size, cliff_ms(size) * NS_PER_MS, now_ns)
    fits = [cap.learn(64, cliff_ms(64) * NS_PER_MS, now_ns) for _ in range(5)]
    assert [bool(points) for points in fits] == [False, False, False, False, True]  # five calls are evidence
    assert [(size, round(time_ns / NS_PER_MS)) for _, size, time_ns in fits[-1]] == [(8.0, 48), (16.0, 56), (32.0, 72)]
    assert cap_of(cap, now_ns) == cap_of(cap, now_ns + CLIFF_FORGOTTEN_NS - 1) == 32
    assert cap_of(cap, now_ns + CLIFF_FORGOTTEN_NS) == 128
    assert not cap.learn(64, cliff_ms(64) * NS_PER_MS, now_ns)  # it has to show itself again


def test_instances_that_get_cheaper_with_the_size_are_no_cliff() -> None:
    cap = explored()
    for size in (1, 2, 4, 8, 16, 32, 64, 128):
        for _ in range(10):
            assert not cap.learn(size, (40 + size) * NS_PER_MS, 0)
    assert cap_of(cap) == 128


def test_a_backend_that_slows_down_is_no_cliff() -> None:
    cap = explored()
    for size in (8, 16, 32, 64):
        for _ in range(30):
            cap.learn(size, (40 + size) * NS_PER_MS, 0)
    for _ in range(30):  # three times as slow from now on, and nobody asks how the small ones are
        assert not cap.learn(64, 3 * (40 + 64) * NS_PER_MS, 0)
    assert cap_of(cap) == 128


def known(base_ms: float, slope_ms: float) -> ServiceTime:
    """The law is known, and its noise small."""
    service = ServiceTime(500 * NS_PER_MS, 128)
    for call in range(2000):
        size = 2 ** (call % 8)
        service.learn(size, (base_ms + slope_ms * size) * NS_PER_MS, 0.3, 0)
    return service


@pytest.mark.parametrize(
    ("base_ms", "slope_ms", "size"),
    [
        (40, 1, 128),  # 1.03 × 168 ms + 3 ms are within the 450 ms that there are
        (60, 4, 93),  # of the 450 ms 3 are the margin's, and 1.03 × (60 + 4 × 93) = 445
        (400, 8, 50),  # one instance takes nearly all of it: half the calls' own cost is shared at 50
        (500, 1, 64),  # not even one is in time, and a large batch costs little more: that half of it does is tried
        (500, 10, 50),  # not even one instance is in time
    ],
)
def test_a_batch_does_not_become_so_large_that_all_its_members_are_late(
    base_ms: float, slope_ms: float, size: int
) -> None:
    assert known(base_ms, slope_ms).size_bound(450 * NS_PER_MS, 0) == pytest.approx(size, abs=2)


def test_a_slow_backend_that_was_taken_for_a_flat_model_is_found_out() -> None:
    calls, size, time_ns = 200, 128, 752 * NS_PER_MS
    sums = [calls * one for one in (1, size, time_ns, size * size, size * time_ns)]
    service = ServiceTime(1000 * NS_PER_MS, size)
    service.mean.restore([time_ns, 0.0, 1.0, calls, *sums])  # as if a call took 752 ms, whatever its size
    for _ in range(60):
        size = service.size_bound(700 * NS_PER_MS, 0)
        service.learn(size, (240 + 4 * size) * NS_PER_MS, 0.01, 0)
    assert size < 128
    assert service.mean_ns(32) == pytest.approx(368 * NS_PER_MS, rel=0.1)


def test_the_mean_is_fitted_anew_below_the_cliff() -> None:
    service = ServiceTime(500 * NS_PER_MS, 128)
    for call in range(60):
        size = (4, 8, 16, 32, 64)[call % 5]
        service.learn(size, cliff_ms(size) * NS_PER_MS, 0.01, 0)
    assert service.size_cap.bound(service.mean.base_ns, service.mean.slope_ns, 0) == 32
    for size in (1, 8, 32):
        assert service.mean_ns(size) == pytest.approx(cliff_ms(size) * NS_PER_MS, rel=0.05)


def test_the_largest_size_within_a_time_is_found() -> None:
    service = ServiceTime(500 * NS_PER_MS, 128)
    service.mean = MeanTime(500 * NS_PER_MS)
    for budget_ms in range(0, 600, 7):
        most = service.most_within(budget_ms * NS_PER_MS, 128)
        assert most == 0 or service.quantile_ns(most) <= budget_ms * NS_PER_MS
        assert most == 128 or service.quantile_ns(most + 1) > budget_ms * NS_PER_MS


def test_a_call_of_no_time_leaves_a_mean_to_divide_by() -> None:
    service = ServiceTime(500 * NS_PER_MS, 128)
    for _ in range(20):
        service.learn(1, 0, 0.01, 0)
    assert service.mean_ns(1) > 0


def test_a_timeout_moves_the_quantile_and_not_the_mean() -> None:
    service = ServiceTime(500 * NS_PER_MS, 128)
    mean_ns, quantile_ns = service.mean_ns(1), service.quantile_ns(1)
    service.learn_timeout(1, 5 * NS_PER_S, 0.01)
    assert service.mean_ns(1) == mean_ns
    assert service.quantile_ns(1) > quantile_ns


def test_it_shows_what_it_knows() -> None:
    assert repr(explored(32)) == "<SizeCap 32, seen 32, cliff None, failed None>"
