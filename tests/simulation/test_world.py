"""Worlds whose course is known, or must not change."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlproxy.simulate import ClusterSettings, Outcome, Prices, simulate
from mlproxy.simulate.arrivals import Poisson, Steps
from mlproxy.simulate.faults import Fault, parse_fault
from mlproxy.simulate.profiles import BUILT_IN, Affine
from mlproxy.units import NS_PER_S
from tests.simulation.worlds import fixed, run, scenario

STATIC = {"batching.max_linger": "20ms", "batching.max_size": 16}
#: Nobody gives up.
PATIENT = {"backend.timeout": "1h"}
FAULTS = ("drift:2@10s-50s", "outliers:0.02,5", "errors:0.3@20s-40s", "slowpod:4@30s-55s")


def faults(*texts: str) -> tuple[Fault, ...]:
    return tuple(parse_fault(text) for text in texts)


def test_a_run_is_determined_by_its_scenario_and_differs_with_the_seed() -> None:
    first, second, other = (
        simulate(scenario(profile=BUILT_IN["toxic"], faults=faults(*FAULTS), cluster=ClusterSettings(), seed=seed))
        for seed in (7, 7, 8)
    )
    assert first.report == second.report
    assert first.report != other.report


def test_every_policy_meets_the_same_arrivals() -> None:
    runs = [run(policy=policy, seed=3) for policy in ("none", "static", "clipper", "bentoml")]
    assert len({outcome.report.requests for outcome in runs}) == 1


@settings(max_examples=15, deadline=None)
@given(
    policy=st.sampled_from(["none", "static", "clipper", "bentoml"]),
    rate=st.sampled_from([0.5, 20.0, 120.0, 400.0]),
    concurrency=st.sampled_from([0, 1, 2, 5]),
    min_scale=st.sampled_from([0, 1, 3]),
    max_pods=st.sampled_from([3, 20]),
    chosen=st.sets(st.sampled_from(FAULTS)),
    activator_queue=st.sampled_from([5, 10_000]),
    seed=st.integers(0, 2**32),
)
def test_every_arrival_is_answered_or_failed_exactly_once_and_pods_add_up(
    policy: str, rate: float, concurrency: int, min_scale: int, max_pods: int, chosen: set[str], activator_queue: int,
    seed: int,
) -> None:  # fmt: skip
    cluster = ClusterSettings(
        container_concurrency=concurrency, min_scale=min_scale, max_pods=max_pods, activator_queue=activator_queue
    )
    report = run(
        policy=policy, trace=Poisson(rate), profile=BUILT_IN["toxic"], cluster=cluster, faults=faults(*chosen),
        duration_ns=60 * NS_PER_S, warmup_ns=0, seed=seed, configured={"backend.timeout": "1s"},
    ).report  # fmt: skip
    assert report.answered + report.failed == report.requests
    assert 0 <= report.mean_ready_pods <= report.mean_provisioned_pods
    assert report.mean_busy_pods <= report.mean_provisioned_pods
    assert min_scale <= report.max_ready_pods <= max_pods
    assert report.cost_usd == pytest.approx(Prices().usd(60 * report.mean_provisioned_pods))
    assert report.cost_usd_with_proxy == pytest.approx(report.cost_usd + Prices().usd(60))


def test_a_request_is_late_by_the_service_and_the_network_when_nothing_else_happens() -> None:
    report = run(trace=Poisson(0.2), cluster=fixed(3, network_ns=2_000_000)).report
    assert (report.p50_ms, report.p99_ms, report.mean_batch) == (12, 12, 1)


def test_a_jump_brings_panic_and_pods_and_pods_go_a_minute_after_it() -> None:
    cluster = ClusterSettings(cold_start_ns=(4 * NS_PER_S, 4 * NS_PER_S))
    trace = Steps(((0, 2.0), (100 * NS_PER_S, 100.0), (160 * NS_PER_S, 2.0)))
    outcome = run(trace=trace, profile=Affine(100, 0), cluster=cluster, warmup_ns=0, duration_ns=400 * NS_PER_S)
    assert outcome.series is not None
    pods = outcome.series.ready_pods
    assert set(pods[:10]) == {1}
    assert pods[12] == 100  # for 10 busy pods: what waited for the cold start is counted as concurrency
    assert pods[16] == 100  # panic holds what it has for a minute after the last crossing
    assert pods[22] < 50
    assert pods[-1] == 1
    assert outcome.report.panic_entries == 1


def test_a_quiet_revision_goes_to_zero_and_the_next_request_waits_for_a_cold_start() -> None:
    cluster = ClusterSettings(min_scale=0, cold_start_ns=(3 * NS_PER_S, 3 * NS_PER_S))
    trace = Steps(((0, 20.0), (20 * NS_PER_S, 0.0), (200 * NS_PER_S, 0.5), (220 * NS_PER_S, 0.0)))
    outcome = run(trace=trace, cluster=cluster, warmup_ns=0, duration_ns=400 * NS_PER_S)
    assert outcome.series is not None
    pods = outcome.series.ready_pods
    assert pods[7] == 1  # 60 s of silence empty the window …
    assert set(pods[13:20]) == {0}  # … and with a grace period of 30 s it is gone by then
    assert outcome.report.max_ready_pods >= 2  # the first request is reported as a concurrency of 1, which wants 2
    assert 2000 < outcome.series.sorted_latencies_ms[-1] < 3100
    assert outcome.report.failed == 0


def test_pods_that_go_are_paid_until_they_have_been_quiet_for_half_a_minute() -> None:
    trace = Steps(((0, 60.0), (100 * NS_PER_S, 1.0)))
    report = run(
        trace=trace, profile=Affine(50, 0), cluster=ClusterSettings(), warmup_ns=0, duration_ns=300 * NS_PER_S
    ).report
    started = report.max_ready_pods - 1
    assert started >= 4
    beyond_ready_s = (report.mean_provisioned_pods - report.mean_ready_pods) * 300
    assert started * (2 + 30) <= beyond_ready_s <= started * (5 + 31)


def test_a_backend_that_is_too_small_costs_timeouts_and_then_the_queue_sheds() -> None:
    configured = {"batching.max_inflight": 4, "limits.queue_instances": 50, "backend.timeout": "100ms"}
    outcome = run(trace=Poisson(200), policy="none", configured=configured)
    report = outcome.report
    assert report.failed > report.requests * 0.4
    assert report.slo_miss_share >= report.failed / report.requests
    assert report.mean_busy_pods == pytest.approx(1, abs=0.01)


def test_a_full_activator_refuses() -> None:
    configured = {"backend.retry.attempts": 0}
    report = run(trace=Poisson(200), cluster=fixed(1, activator_queue=20), configured=configured).report
    assert report.answered == pytest.approx(100 * 270, rel=0.02)  # what one pod of 10 ms can do
    assert report.p99_ms < 20 * 10 + 20


def test_drift_slows_the_model_while_it_lasts() -> None:
    outcome = run(trace=Poisson(1), cluster=fixed(2), faults=faults("drift:3@100s-200s"))
    assert outcome.series is not None
    p95_ms = outcome.series.p95_ms
    assert p95_ms[11:19].min() == pytest.approx(30, abs=0.01)
    assert p95_ms[21:].max() < 25


def test_outliers_are_as_many_and_as_slow_as_they_should_be() -> None:
    outcome = run(trace=Poisson(20), cluster=fixed(10), faults=faults("outliers:0.1,5"))
    assert outcome.series is not None
    slow = outcome.series.sorted_latencies_ms > 49
    assert slow.mean() == pytest.approx(0.1, abs=0.015)


def test_a_failing_backend_is_retried_and_what_remains_fails() -> None:
    report = run(configured={"backend.retry.attempts": 0}, faults=faults("errors:0.3@30s-300s")).report
    assert report.failed / report.requests == pytest.approx(0.3, abs=0.02)
    retried = run(trace=Poisson(5), faults=faults("errors:0.05@30s-300s")).report
    assert retried.failed == 0
    assert retried.backend_calls > retried.requests


def test_a_slow_pod_slows_its_share_of_the_calls() -> None:
    outcome = run(trace=Poisson(20), cluster=fixed(2, container_concurrency=0), faults=faults("slowpod:4@0-300s"))
    assert outcome.series is not None
    slow = outcome.series.sorted_latencies_ms > 39
    assert 0.25 < slow.mean() < 0.6


def summary(outcome: Outcome) -> tuple[float, float]:
    return outcome.report.mean_ready_pods, outcome.report.mean_batch


def test_eager_rules_keep_more_pods_busy_with_smaller_batches_than_a_patient_one() -> None:
    world = {"trace": Poisson(100), "profile": BUILT_IN["fashion"], "cluster": ClusterSettings()}
    patient = summary(run(policy="static", configured={"batching.max_linger": "300ms"}, **world))
    for rule in ("clipper", "bentoml"):
        eager = summary(run(policy=rule, **world))
        assert eager[0] > 2 * patient[0]
        assert eager[1] < patient[1] / 5


def test_a_delay_before_scaling_down_keeps_pods_through_a_lull() -> None:
    trace = Steps(((0, 60.0), (100 * NS_PER_S, 1.0)))
    pods = {}
    for delay_s in (0, 120):
        cluster = ClusterSettings(scale_down_delay_ns=delay_s * NS_PER_S)
        outcome = run(trace=trace, profile=Affine(50, 0), cluster=cluster, warmup_ns=0, duration_ns=400 * NS_PER_S)
        assert outcome.series is not None
        pods[delay_s] = list(outcome.series.ready_pods)
    later = [pods[120][index] - pods[0][index] for index in range(40)]
    assert min(later) >= 0
    assert max(later[18:25]) > 5
    assert pods[0][-1] == 1
    # At most half of the ready pods go at a time, so every halving waits for the delay anew.
    assert [count for count in dict.fromkeys(pods[120]) if count < 100][-2:] == [50, 25]


def test_a_closed_loop_sends_no_faster_than_it_gets_answers_and_does_not_measure_the_wait_in_the_client() -> None:
    overloaded = {"trace": Poisson(200), "profile": Affine(10, 0), "warmup_ns": 0, "duration_ns": 100 * NS_PER_S}
    closed, opened = (run(**overloaded, callers=callers, configured=PATIENT).report for callers in (3, None))
    assert closed.requests == pytest.approx(100 * 100, rel=0.01)  # one pod answers 100 a second
    assert opened.requests == pytest.approx(200 * 100, rel=0.05)
    assert closed.p99_ms == pytest.approx(30)
    assert opened.p99_ms > 10_000
    assert closed.failed == 0


def test_a_closed_loop_that_is_never_full_changes_nothing() -> None:
    assert run(callers=10_000).report == run().report


def test_a_request_with_a_budget_of_its_own_misses_when_that_is_exceeded() -> None:
    alone = {"trace": Poisson(0.2), "profile": Affine(10, 0), "cluster": fixed(3, network_ns=0)}
    report = run(**alone, budgets_ns=(0, 5_000_000)).report
    assert report.slo_miss_share == pytest.approx(0.5, abs=0.02)
