"""Several runs at once come to the same as one after the other."""

from __future__ import annotations

from dataclasses import replace

from mlproxy.simulate import Scenario, proxy_for
from mlproxy.simulate.arrivals import Poisson
from mlproxy.simulate.many import run_many
from mlproxy.simulate.profiles import BUILT_IN
from mlproxy.units import NS_PER_S


def test_processes_change_nothing_and_the_order_is_kept() -> None:
    one = Scenario(
        trace=Poisson(20), profile=BUILT_IN["toxic"], proxy=proxy_for("static"), duration_ns=60 * NS_PER_S, warmup_ns=0
    )
    scenarios = [replace(one, seed=seed) for seed in range(4)]
    alone = [outcome.report for outcome in run_many(scenarios, 1)]
    assert [outcome.report for outcome in run_many(scenarios, 2)] == alone
    assert len({report.p95_ms for report in alone}) == 4
