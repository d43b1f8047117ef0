"""Traces: how they are written, and that their arrivals have the rates they say."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from mlproxy.simulate.arrivals import Poisson, Steps, Switching, Trace, arrivals_ns, from_lines, parse_trace
from mlproxy.units import NS_PER_S


def arrivals(trace: Trace, seconds: int, seed: int = 1) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return arrivals_ns(trace, seconds * NS_PER_S, np.random.default_rng(seed)) / NS_PER_S


@pytest.mark.parametrize(
    ("text", "trace"),
    [
        ("poisson:50", Poisson(50)),
        ("poisson:.5", Poisson(0.5)),
        ("mmpp:10,50,30,8", Switching(10, 50, 30 * NS_PER_S, 8 * NS_PER_S)),
        ("step:10@0,50@10m", Steps(((0, 10), (600 * NS_PER_S, 50)))),
        ("rates.txt", None),
        ("step", None),
    ],
)
def test_a_trace_is_read_as_it_is_written(text: str, trace: Trace | None) -> None:
    assert parse_trace(text) == trace


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("poisson:", "write poisson:RATE"),
        ("poisson:-1", "write poisson:RATE"),
        ("mmpp:1,2,3", "has 3 numbers"),
        ("mmpp:1,2,0,3", "0.01 or more"),
        ("step:1", "has no @"),
        ("step:1@10", "needs a unit|not a duration"),
        ("step:1@10s,2@5s", "must rise"),
    ],
)
def test_a_trace_that_cannot_be_read_says_how_to_write_it(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_trace(text)


def test_arrivals_are_poisson() -> None:
    gaps = np.diff(arrivals(Poisson(100), 1000))
    assert gaps.min() >= 0
    assert gaps.mean() == pytest.approx(0.01, rel=0.02)
    assert gaps.std() == pytest.approx(0.01, rel=0.02)


def test_steps_have_their_rates_and_nothing_comes_before_the_first() -> None:
    at = arrivals(Steps(((10 * NS_PER_S, 100.0), (50 * NS_PER_S, 0.0), (60 * NS_PER_S, 300.0))), 100)
    counts = [int(((at >= low) & (at < high)).sum()) for low, high in ((0, 10), (10, 50), (50, 60), (60, 100))]
    assert counts[0] == counts[2] == 0
    assert counts[1] == pytest.approx(4000, rel=0.06)
    assert counts[3] == pytest.approx(12000, rel=0.04)


def test_switching_spends_its_time_in_proportion_to_the_means() -> None:
    trace = Switching(10, 50, 30 * NS_PER_S, 10 * NS_PER_S)
    segments = list(trace.segments(100_000 * NS_PER_S, np.random.default_rng(2)))
    assert (segments[0].start_ns, segments[-1].end_ns) == (0, 100_000 * NS_PER_S)
    high_ns = sum(segment.end_ns - segment.start_ns for segment in segments if segment.per_second == 50)
    assert high_ns / (100_000 * NS_PER_S) == pytest.approx(0.25, abs=0.02)
    assert all(earlier.end_ns == later.start_ns for earlier, later in pairwise(segments))


def test_lines_are_scaled_to_the_largest_or_are_requests_per_step() -> None:
    scaled, duration_ns = from_lines([1, 4, 2], 60 * NS_PER_S, 100.0)
    assert duration_ns == 180 * NS_PER_S
    assert [rate for _, rate in scaled.changes] == [25, 100, 50]
    counted, _ = from_lines([60, 120], 60 * NS_PER_S, None)
    assert counted.changes == ((0, 1.0), (60 * NS_PER_S, 2.0))
    assert counted.peak_per_second == 2
    assert from_lines([0.0, 0.0], NS_PER_S, 10.0)[0].peak_per_second == 0
