"""What a comparison will cost: by its requests, and by what one of their kind costs."""

from __future__ import annotations

import pytest

from bench.paper.estimate import Estimate, estimate_for, kind_of
from bench.paper.plan import Case
from bench.paper.progress import Progress
from bench.paper.runs import Run
from bench.paper.shapes import steady


def run(policy: str = "none", seconds: int = 3600, method: str = "ours") -> Run:
    return Run(case=Case(method, 1, "toxic", "steady"), shape=steady().first(seconds), policy=policy, seed=1)  # type: ignore[arg-type]


def test_twice_the_traffic_costs_twice_as_much() -> None:
    estimate = Estimate({kind_of(run()): 1e-5})
    assert estimate.cpu_s(run()) == pytest.approx(3600 * 50 * 1e-5)
    assert estimate.cpu_s(run(seconds=1800)) == pytest.approx(1800 * 50 * 1e-5)


def test_every_kind_of_run_is_tried_once_by_either_method() -> None:
    estimate = estimate_for([run(), run(seconds=600), run("slo"), run(method="paper")], processes=1)
    for tried in (run(), run("slo"), run(method="paper")):
        assert estimate.cpu_s(tried) > 0
    with pytest.raises(KeyError):
        estimate.cpu_s(run("aimd"))


def test_what_is_left_is_stretched_by_how_wrong_the_estimate_has_been(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr("bench.paper.progress.time.monotonic", lambda: now_s)
    progress = Progress(total_cpu_s=200, processes=2)
    assert progress.left_s() == 100
    now_s = 60.0
    progress.advance(40)  # 20 s by the estimate took 60
    assert progress.left_s() == pytest.approx(240)
