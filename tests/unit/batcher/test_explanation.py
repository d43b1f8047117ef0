"""What a policy goes by: shown once a second, written when it changes, told when the objective is out of reach."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from mlproxy.engine import Engine, Policy, QueueBounds, StaticBatching
from mlproxy.engine.policies import SloBatching
from mlproxy.engine.slo.pods import FixedPods
from mlproxy.observe import BatcherMetrics, MetricPage, PageLayout
from mlproxy.observe.reading import PageSum
from mlproxy.units import NS_PER_MS
from workers.batcher.explanation import WRITE_EVERY, Explanation

SLO_NS = 500 * NS_PER_MS


@pytest.fixture
def page() -> Iterator[MetricPage]:
    page = MetricPage.create(PageLayout((("http://a",),)), "batcher")
    yield page
    os.close(page.fd)


def explanation_of(policy: Policy, page: MetricPage) -> Explanation:
    engine = Engine(policy, QueueBounds(100, 10_000), slo_ns=SLO_NS, retry_attempts=0)
    return Explanation("iris", engine, policy, BatcherMetrics(page, 0))


def learned(max_size: int = 24) -> SloBatching:
    policy = SloBatching(SLO_NS, 0.01, max_size, FixedPods(3))
    for call in range(2000):
        size = 2 ** (call % 4)
        policy.controller.service.learn(size, (40 + size) * NS_PER_MS, 0.3, 0)
    policy.controller.service.size_cap.seen(8)
    policy.controller.advance(0)
    return policy


def test_a_policy_without_a_model_shows_its_size_and_slots(page: MetricPage) -> None:
    explanation_of(StaticBatching(32, 0, 4), page).show()
    total = PageSum([page], 0)
    assert (total.count("controller_max_size"), total.count("controller_slots")) == (32, 4)
    assert not any(total.cells("service_time_seconds").values())


def test_policy_slo_shows_what_it_expects_of_every_size_that_it_may_send(page: MetricPage) -> None:
    policy = learned()
    explanation_of(policy, page).show()
    total = PageSum([page], 0)
    assert (total.count("controller_max_size"), total.count("controller_slots")) == (16, 3)
    shown = {cell: round(ns / NS_PER_MS, 1) for cell, ns in total.cells("service_time_seconds").items() if ns}
    assert {size for size, _ in shown} == {"1", "2", "4", "8", "16"}
    assert shown["8", "mean"] == pytest.approx(48, abs=0.1)
    assert shown["8", "high"] == round(policy.controller.service.quantile_ns(8) / NS_PER_MS, 1) > 51


def test_before_a_call_nothing_is_expected(page: MetricPage) -> None:
    explanation_of(SloBatching(SLO_NS, 0.01, 24, FixedPods(3)), page).show()
    assert not any(PageSum([page], 0).cells("service_time_seconds").values())


def test_the_statistics_are_written_now_and_then_if_they_have_changed(
    page: MetricPage, caplog: pytest.LogCaptureFixture
) -> None:
    policy = learned()
    explanation = explanation_of(policy, page)
    with caplog.at_level(logging.DEBUG):
        for _ in range(3 * WRITE_EVERY):
            explanation.show()
        policy.controller.demand.slots = 7
        for _ in range(WRITE_EVERY):
            explanation.show()
    first, second = caplog.messages
    assert first.startswith("statistics endpoint=iris queued_instances=0 ")
    assert " slots_needed=1 " in first
    assert " slots_needed=7 " in second


def test_that_the_objective_cannot_be_met_is_told_once_and_that_it_can_again_too(
    page: MetricPage, caplog: pytest.LogCaptureFixture
) -> None:
    policy = learned()
    explanation = explanation_of(policy, page)
    controller = policy.controller
    with caplog.at_level(logging.INFO):
        for now_s, level in enumerate((1.0, 20.0, 20.0, 11.3, 11.0, 1.0, 1.0), start=1):
            controller.service.mean.level = level
            controller._leads_ns.clear()
            controller.advance(now_s * 10**9)
            explanation.show()
    cannot, can = caplog.messages
    assert cannot.startswith("the objective cannot be met endpoint=iris one_instance_ms=8")
    assert cannot.endswith(" slo_ms=500.0")
    assert can.startswith("the objective can be met again endpoint=iris one_instance_ms=4")
