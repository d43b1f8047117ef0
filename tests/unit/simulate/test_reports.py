"""The activator's reports against the vectors of Knative's unit tests. Times are milliseconds."""

from __future__ import annotations

import pytest

from mlproxy.simulate.reports import ConcurrencyReports


@pytest.mark.parametrize(
    ("changes", "reports"),
    [
        ([(0, 1), (1, -1), (1, 1), (2, -1)], {2: 0.0}),
        ([(0, 1), (0, 1)], {1: 1.0, 2: 2.0}),
        ([(0, 1), (0, 1), (1, -1), (2, -1)], {2: 0.5}),
    ],
)
def test_the_first_call_is_reported_at_once_and_deducted_from_the_next_report(
    changes: list[tuple[int, int]], reports: dict[int, float]
) -> None:
    reporting = ConcurrencyReports()
    assert reporting.first_call(0) == 1.0
    last = max(reports)
    for now in range(last + 1):
        for at, by in changes:
            if at == now:
                assert reporting.first_call(now) is None
                reporting.meter.change(by, now)
        if now in reports:
            assert reporting.report(now) == pytest.approx(reports[now])


def test_a_revision_that_was_idle_for_a_period_is_forgotten() -> None:
    reporting = ConcurrencyReports()
    assert reporting.report(0) is None
    reporting.first_call(0)
    reporting.meter.change(1, 0)
    reporting.meter.change(-1, 10)
    assert reporting.report(1000) == 0.0  # 0.01 less the one that was reported at once
    assert reporting.report(2000) == 0.0
    assert reporting.report(3000) is None
    assert reporting.first_call(3500) == 1.0
