"""The specification's rows: which there are, and when one is reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.paper.rows import Limits, check, rows, verdict
from tests.unit.bench.paper.readings import made

LIMITS = Limits(pods=1.0, miss_percent=0.1)


@pytest.mark.parametrize(
    ("pods", "miss_share", "judged"),
    [
        (1.004, 0.001, "reached"),
        (1.09, 0.001, "within tolerance"),
        (1.0, 0.0029, "within tolerance"),
        (1.2, 0.0, "not reached: pods 1.20"),
        (1.2, 0.004, "not reached: misses 0.40 %, pods 1.20"),
    ],
)
def test_a_row_is_judged_by_the_mean_over_the_seeds(pods: float, miss_share: float, judged: str) -> None:
    readings = [made(pods=pods - 0.1, miss_share=miss_share), made(pods=pods + 0.1, miss_share=miss_share)]
    assert verdict(LIMITS, readings) == judged


def test_latencies_have_no_tolerance_and_may_be_relative_to_the_papers_controller() -> None:
    own = [made(p50_ms=70.0, p99_ms=91.0)]
    assert verdict(Limits(pods=1, miss_percent=1, p50_ms=70, p99_ms=91), own) == "reached"
    assert "p50 70 ms > 69 ms" in verdict(Limits(pods=1, miss_percent=1, p50_ms=69), own)
    assert "p99 91 ms > 90 ms" in verdict(Limits(pods=1, miss_percent=1, p99_ms=90), own)
    limits = Limits(pods=1, miss_percent=1, p50_of_aimd=0.65)
    assert verdict(limits, own, [made(policy="aimd", p50_ms=110.0)]) == "reached"
    assert "of aimd's" in verdict(limits, own, [made(policy="aimd", p50_ms=100.0)])


def test_there_is_a_row_for_every_trace_and_rate_and_for_what_is_hard() -> None:
    names = [(row.what, *row.case) for row in rows()]
    assert len(names) == len(set(names)) == 30 + 2 + 4 + 2 + 2 + 2


def test_a_check_of_nothing_is_not_passed(capsys: pytest.CaptureFixture[str]) -> None:
    assert not check([1], Path("nowhere"), "a row that is not there")
    assert "iris x1 wcslow" in capsys.readouterr().out
