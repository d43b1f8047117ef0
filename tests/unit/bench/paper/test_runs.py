"""Scenarios of the comparison, and how the best static setting is chosen."""

from __future__ import annotations

import pytest

from bench.paper.comparison import DEFAULT, FULL
from bench.paper.plan import POLICIES, WORKLOADS, Case, Static, scenario
from bench.paper.runs import Run, best_static
from bench.paper.shapes import steady
from mlproxy.units import NS_PER_S
from tests.unit.bench.paper.readings import made

SMALL, LARGE, LARGEST = Static(5, 0.1), Static(50, 0.25), Static(100, 0.55)


def test_the_best_static_setting_has_the_fewest_pods_of_those_that_meet_the_objective() -> None:
    tried = [
        (SMALL, made(pods=3.0, miss_share=0.0)),
        (LARGE, made(pods=2.0, miss_share=0.009)),
        (LARGEST, made(pods=1.0, miss_share=0.02)),
    ]
    assert best_static(tried) == LARGE
    assert best_static([*tried[2:], (SMALL, made(pods=9.0, miss_share=0.019))]) == SMALL


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
    for part in (*DEFAULT, *FULL):
        assert {"none", "aimd", "slo"} <= set(part.policies)
        cases = list(part.cases({"steady": steady()}))
        assert [case.workload for case, _ in cases] == list(WORKLOADS)
        assert {shape.duration_s for _, shape in cases} == {part.seconds}
