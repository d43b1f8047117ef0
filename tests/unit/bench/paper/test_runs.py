"""Scenarios of the comparison."""

from __future__ import annotations

import pytest

from bench.paper.comparison import DEFAULT, FULL, QUICK
from bench.paper.plan import POLICIES, WORKLOADS, Case, Static, scenario
from bench.paper.runs import Run, expected_requests
from bench.paper.shapes import Alternating, steady
from mlproxy.simulate.arrivals import arrivals_ns
from mlproxy.units import NS_PER_S

LARGE = Static(50, 0.25)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_policy_can_be_configured_for_every_workload(policy: str, workload: str) -> None:
    static = LARGE if policy == "static" else None
    run = Run(case=Case("ours", 10, workload, "steady"), shape=steady(), policy=policy, seed=3, static=static)
    made_of = run.scenario()
    assert made_of.proxy.policy == policy
    assert made_of.trace.peak_per_second == 10 * WORKLOADS[workload].peak_per_second
    assert (made_of.callers, made_of.cluster.container_concurrency, made_of.seed) == (None, 1, 3)


def test_the_prototype_caps_its_batches_and_a_static_setting_is_as_it_says() -> None:
    aimd = scenario(Case("ours", 1, "toxic", "steady"), steady(), "aimd", 1).proxy.endpoint.batching
    assert (aimd.max_size, aimd.aimd.start_size, aimd.aimd.timeout_ratio) == (10, 5, 0.5)
    run = Run(case=Case("ours", 1, "toxic", "steady"), shape=steady(), policy="static", seed=1, static=LARGE)
    batching = run.scenario().proxy.endpoint.batching
    assert (batching.max_size, batching.max_linger_ns) == (50, 125_000_000)
    assert run.setting == "50, 125 ms"


def test_the_papers_method_closes_the_loop_drops_the_end_and_lets_pods_queue() -> None:
    by_paper = scenario(Case("paper", 1, "iris", "steady"), steady(), "slo", 1)
    assert (by_paper.callers, by_paper.cluster.container_concurrency) == (300, 0)
    assert (by_paper.warmup_ns, by_paper.duration_ns) == (300 * NS_PER_S, 3300 * NS_PER_S)
    assert by_paper.keep_series


def test_every_part_compares_with_the_baseline_and_with_the_papers_controller() -> None:
    for part in (*DEFAULT.parts, *FULL.parts, *QUICK.parts):
        assert {"none", "aimd", "slo"} <= set(part.policies)
        cases = list(part.cases({"steady": steady()}))
        assert [case.workload for case, _ in cases] == list(WORKLOADS)
        assert {shape.duration_s for _, shape in cases} == {part.seconds}


def test_what_is_planned_runs_the_winning_trial_of_a_15_minute_slice_once() -> None:
    part = DEFAULT.parts[2]
    assert (part.scale, part.seconds, part.seeds) == (10, 900, (1,))
    planned = DEFAULT.planned({"steady": steady()})
    assert len(planned) == len(set(planned))
    trials = [run for run in planned if run.policy == "static" and run.case.scale == 10]
    assert len(trials) == len(WORKLOADS) * (3 + 2)  # and none for the run itself


@pytest.mark.parametrize("seed", [1, 2])
def test_expected_requests_are_about_those_that_come(seed: int) -> None:
    alternating = Run(
        case=Case("ours", 1, "toxic", "mmpp"), shape=Alternating("", 0.2, 30, 8, 1200), policy="none", seed=seed
    )
    arrivals = len(arrivals_ns(alternating.scenario().trace, 1200 * NS_PER_S, alternating.scenario().generators()[0]))
    assert expected_requests(alternating) == pytest.approx(arrivals, rel=0.15)
    flat = Run(case=Case("ours", 1, "toxic", "steady"), shape=steady(), policy="none", seed=seed)
    assert expected_requests(flat) == 50 * 3600
