"""What the paper's method sees of a run, and what ours sees of the same run."""

from __future__ import annotations

import numpy as np
import pytest

from bench.paper.plan import Case
from bench.paper.readings import looked_at, reading
from mlproxy.simulate import Outcome, Report, Series


def outcome() -> Outcome:
    report = Report(
        requests=100, answered=80, failed=20, slo_miss_share=0.3, p50_ms=1, p95_ms=2, p99_ms=3, mean_batch=1,
        backend_calls=100, mean_ready_pods=3.0, mean_provisioned_pods=4.0, mean_busy_pods=1, max_ready_pods=5,
        panic_entries=0, cost_usd=1, cost_usd_with_proxy=2,
    )  # fmt: skip
    seconds = np.arange(0, 600, 10, dtype=np.float64)
    ready_pods = np.where(seconds % 30 == 0, 7.0, 1.0).astype(np.float64)
    ready_pods[:30] = 50.0  # the warm-up
    nothing = np.zeros(60)
    series = Series(seconds, nothing, ready_pods, nothing, nothing, np.zeros(0))
    return Outcome(report, {}, series)


def test_the_paper_looks_every_30_s_and_only_at_what_was_answered() -> None:
    seen = reading(Case("paper", 1, "toxic", "azf"), "aimd", 1, outcome())
    assert seen.pods == 7.0
    assert seen.miss_share == pytest.approx(10 / 80)


def test_ours_takes_the_mean_over_time_counts_failures_and_bills_the_proxy() -> None:
    case = Case("ours", 1, "toxic", "azf")
    seen, direct = (reading(case, policy, 1, outcome()) for policy in ("slo", "none"))
    assert (seen.pods, seen.miss_share) == (3.0, 0.3)
    assert (seen.billed_pods, direct.billed_pods) == (5.0, 4.0)


def test_the_warm_up_is_not_looked_at() -> None:
    series = outcome().series
    assert series is not None
    assert looked_at(series) == 7.0
