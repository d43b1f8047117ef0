"""The autoscaler against the vectors of Knative's own unit tests, and against its documented numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlproxy.engine.autoscaler import (
    Autoscaler,
    AutoscalerSpec,
    RunningMaximum,
    ScalingWindows,
    Target,
    Window,
    resolve_target,
    scrape_sample_size,
)
from mlproxy.engine.concurrency import ConcurrencyMeter
from mlproxy.units import NS_PER_S

VECTORS: dict[str, list[Any]] = json.loads((Path(__file__).parent / "kpa_vectors.json").read_text())


def named(vector: dict[str, Any]) -> str:
    return str(vector["name"])


def ns(seconds: float) -> int:
    return int(seconds * NS_PER_S)


def spec_of(vector: dict[str, Any]) -> AutoscalerSpec:
    target = float(vector["target"])
    return AutoscalerSpec(
        target=Target(target, vector.get("total", target / 0.75)),
        target_burst_capacity=vector["tbc"],
        max_scale_up_rate=vector.get("up", 10),
        max_scale_down_rate=vector.get("down", 10),
        panic_threshold=vector.get("panic_threshold", 2),
        activation_scale=vector.get("activation", 1),
        scale_down_delay_ns=ns(vector.get("delay", 0)),
        stable_window_ns=ns(vector.get("stable_window", 60)),
        reachable=vector.get("reachable", True),
    )


def respecified(spec: AutoscalerSpec, changes: dict[str, Any]) -> AutoscalerSpec:
    return replace(
        spec,
        reachable=changes.get("reachable", spec.reachable),
        target_burst_capacity=changes.get("tbc", spec.target_burst_capacity),
        target=Target(changes.get("target", spec.target.value), changes.get("total", spec.target.total)),
    )


@pytest.mark.parametrize("vector", VECTORS["scale"], ids=named)
def test_decisions_are_knatives(vector: dict[str, Any]) -> None:
    autoscaler = Autoscaler(spec_of(vector["spec"]), ready=vector.get("init_ready", 1), now_ns=0)
    if "force_panic" in vector:
        since, pods = vector["force_panic"]
        autoscaler.panic_since_ns, autoscaler.max_panic_pods = ns(since), pods
    for step in vector["steps"]:
        autoscaler.spec = respecified(autoscaler.spec, step.get("respec", {}))
        wanted = autoscaler.decide(step["stable"], step["panic"], step["ready"], ns(step["t"]))
        assert wanted.pods == step["want"]
        if "ebc" in step:
            assert wanted.excess_burst_capacity == pytest.approx(step["ebc"], abs=1)
        if "in_panic" in step:
            assert (autoscaler.panic_since_ns is not None) == step["in_panic"]
        if "panic_t" in step:
            assert autoscaler.panic_since_ns == ns(step["panic_t"])


@pytest.mark.parametrize("vector", VECTORS["window"], ids=named)
def test_windows_average_as_knatives(vector: dict[str, Any]) -> None:
    window = Window(vector["window"])
    for operation, at, value in vector["ops"]:
        if operation == "rec":
            window.record(ns(at), value)
        else:
            assert window.average(ns(at)) == pytest.approx(value, abs=1e-9)


def test_a_window_that_was_silent_for_longer_than_itself_has_no_data() -> None:
    windows = ScalingWindows(AutoscalerSpec())
    assert windows.averages(0) is None
    windows.record(0, 1)
    assert windows.averages(ns(60)) == (0, 0)
    assert windows.averages(ns(61)) is None


@pytest.mark.parametrize("vector", VECTORS["maxwindow"], ids=lambda vector: str(vector["values"]))
def test_the_running_maximum_is_knatives(vector: dict[str, Any]) -> None:
    maximum = RunningMaximum(vector["n"])
    steps = vector.get("idx", range(len(vector["values"])))
    assert [maximum.record(step, value) for step, value in zip(steps, vector["values"], strict=True)] == vector[
        "expect"
    ]


@pytest.mark.parametrize("vector", VECTORS["target"], ids=lambda vector: json.dumps(vector["in"]))
def test_targets_resolve_as_knatives(vector: dict[str, Any]) -> None:
    given = vector["in"]
    requests_per_second = given.get("metric") == "rps"  # has no container to fit into, and 200 for a default
    target = resolve_target(
        container_concurrency=0 if requests_per_second else given.get("cc", 0),
        target=given.get("ann"),
        utilization=given.get("util_ann", given.get("util", 0.7)),
        default_total=200 if requests_per_second else given.get("cc_default", 100),
    )
    assert target == pytest.approx(vector["out"])


@pytest.mark.parametrize(("ready", "asked"), VECTORS["sample_size"])
def test_as_many_pods_are_asked_as_knative_asks(ready: int, asked: int) -> None:
    assert scrape_sample_size(ready) == asked


@pytest.mark.parametrize(
    ("concurrency", "pods"),
    [(0.1, 1), (0.7, 1), (0.701, 2), (1, 2), (1.4, 2), (1.5, 3), (2, 3), (2.1, 4), (3.5, 5), (5, 8), (7, 10), (10, 15),
     (14, 20), (20, 29), (50, 72), (300, 429)],
)  # fmt: skip
def test_a_steady_concurrency_wants_that_many_pods(concurrency: float, pods: int) -> None:
    autoscaler = Autoscaler(AutoscalerSpec(), ready=1, now_ns=0)
    assert autoscaler.decide(concurrency, concurrency, pods, 0).pods == pods


@pytest.mark.parametrize(
    ("ready", "calm"), [(1, 0.7), (2, 2.1), (3, 3.5), (4, 4.9), (5, 6.3), (8, 10.5), (10, 13.3), (20, 27.3)]
)
def test_panic_begins_just_above_its_documented_concurrency(ready: int, calm: float) -> None:
    for panic, panics in ((calm - 0.001, False), (calm + 0.001, True)):
        autoscaler = Autoscaler(AutoscalerSpec(), ready=1, now_ns=0)
        autoscaler.decide(0.5, panic, ready, 0)
        assert (autoscaler.panic_since_ns is not None) is panics


def step_response() -> dict[int, tuple[int, int, bool]]:
    """In-flight 0.5, 10 from t = 100 s, 1 from t = 160 s, pods ready 4 s after they are wanted: what each tick says."""
    autoscaler, windows = Autoscaler(AutoscalerSpec(), ready=1, now_ns=0), ScalingWindows(AutoscalerSpec())
    ready, starting, told = 1, list[int](), {}
    for t in range(30, 230):
        windows.record(ns(t), 0.5 if t < 100 else 10.0 if t < 160 else 1.0)
        if t % 2 == 0:
            averages = windows.averages(ns(t))
            assert averages is not None
            want = autoscaler.decide(*averages, ready, ns(t)).pods
            told[t] = (want, ready, autoscaler.panic_since_ns is not None)
            starting += [t + 4] * (want - ready - len(starting))
            ready = min(ready, want)
        ready += starting.count(t)
        starting = [at for at in starting if at > t]
    return told


def test_the_step_response_is_the_documented_one() -> None:
    told = step_response()
    assert [(t, *told[t]) for t in (100, 102, 104, 106, 108, 112, 168)] == [
        (100, 3, 1, True), (102, 8, 1, True), (104, 13, 1, True), (106, 15, 3, True), (108, 15, 8, True),
        (112, 15, 15, True), (168, 13, 15, False),
    ]  # fmt: skip
    assert [told[t][0] for t in (176, 184, 194, 204, 212, 218)] == [11, 9, 7, 5, 3, 2]


def test_concurrency_is_weighted_with_time_and_starts_anew_with_each_report() -> None:
    meter = ConcurrencyMeter(0)
    meter.change(2, 250)
    meter.change(-1, 500)
    assert meter.report(1000) == pytest.approx(1.0)
    assert meter.report(2000) == pytest.approx(1.0)
    meter.change(-1, 2000)
    assert meter.report(3000) == 0.0
