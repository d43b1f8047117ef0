"""What the controller makes of what happens: which calls teach, what they cost, whose fault a miss is.

Times are milliseconds, the objective is 500.
"""

from __future__ import annotations

import math

import pytest

from mlproxy.engine import Batch, Failure, Request, State
from mlproxy.engine.autoscaler import AutoscalerSpec
from mlproxy.engine.slo.controller import (
    BACKLOG_WITHIN_NS,
    LEAST_WAIT_SHARE,
    MISSING_FROM,
    NETWORK_NS,
    OVERSHOOT,
    OVERSHOOT_EXTRA,
    OVERSHOOT_FACTOR,
    PACED_SHARE,
    SAVED_NS,
    Controller,
)  # fmt: skip
from mlproxy.engine.slo.pods import FixedPods, Pods, ShadowPods
from mlproxy.units import NS_PER_MS, NS_PER_S

SLO_NS = 500 * NS_PER_MS
MEAN_MS, SLOPE_MS = 40, 1


def known(pods: Pods) -> Controller:
    """It knows the backend well: 40 ms + 1 ms per instance, sizes up to 128, tokens full, at time 0."""
    controller = Controller(SLO_NS, 0.01, 128, pods)
    for call in range(2000):
        size = 2 ** (call % 8)
        controller.service.learn(size, (MEAN_MS + SLOPE_MS * size) * NS_PER_MS, 0.3, 0)
    controller.service.size_cap.seen(128)
    controller.advance(0)
    return controller


def fixed(slots: int = 2) -> Controller:
    return known(FixedPods(slots))


def elastic(ready: int = 1) -> Controller:
    controller = known(ShadowPods(AutoscalerSpec(), 1))
    controller.told(ready)
    controller.advance(0)
    return controller


class Calls:
    """Batches that leave and come back."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.made = 0

    def leave(
        self, ms: float, instances: int = 1, *, held_up: bool = False, attempt: int = 0, age_ms: float = 0
    ) -> Batch:
        self.made += 1
        now_ns = int(ms * NS_PER_MS)
        members = [
            Request(self.made, b"", 1, 1, now_ns - int(age_ms * NS_PER_MS), 0, State.IN_FLIGHT)
            for _ in range(instances)
        ]
        batch = Batch(self.made, b"", [*members], instances, "deadline", attempt=attempt)
        batch.dispatched_ns = now_ns
        self.controller.left(batch, now_ns, held_up=held_up)
        return batch

    def back(self, ms: float, batch: Batch, failure: Failure | None = None) -> None:
        self.controller.came_back(batch, failure, int(ms * NS_PER_MS))


def mean_ms(controller: Controller, instances: int = 1) -> float:
    return controller.service.mean_ns(instances) / NS_PER_MS


# --- which calls teach -----------------------------------------------------------------------------------------


def test_a_call_with_a_slot_of_its_own_teaches() -> None:
    controller = fixed()
    calls = Calls(controller)
    calls.back(60, calls.leave(0))
    assert mean_ms(controller) > 41.5


def test_the_size_that_was_sent_is_what_teaches() -> None:
    controller, other = fixed(), fixed()
    calls = Calls(controller)
    batch = calls.leave(0, 64)
    batch.sent = 2  # the others were the same
    calls.back(42, batch)
    other_calls = Calls(other)
    other_calls.back(42, other_calls.leave(0, 2))
    assert mean_ms(controller, 64) == mean_ms(other, 64)
    assert mean_ms(controller, 2) == mean_ms(other, 2)


@pytest.mark.parametrize("attempt", [0, 1])
def test_a_call_that_queued_or_was_sent_again_teaches_nothing(attempt: int) -> None:
    controller = fixed(2)
    calls = Calls(controller)
    if not attempt:
        calls.leave(0)
        calls.leave(0)
    before = mean_ms(controller)
    calls.back(400, calls.leave(0, attempt=attempt))
    assert mean_ms(controller) == before


def test_while_the_backend_has_no_pod_nothing_is_learned_and_one_call_may_wake_it() -> None:
    controller = elastic(0)
    calls = Calls(controller)
    before = mean_ms(controller)
    assert controller.slot_limit == 1
    calls.back(4000, calls.leave(0))
    assert mean_ms(controller) == before
    assert controller.feedback.capacity_misses == 1


def test_a_timeout_widens_the_quantile_only() -> None:
    controller = fixed()
    calls = Calls(controller)
    mean, quantile_ns = mean_ms(controller), controller.service.quantile_ns(1)
    calls.back(5000, calls.leave(0), Failure("timeout", ""))
    assert mean_ms(controller) == mean
    assert controller.service.quantile_ns(1) > quantile_ns
    assert controller.lead_ns(0) == int(controller.service.quantile_ns(1))


@pytest.mark.parametrize("failure", [Failure("connect", ""), Failure("status", "", 503), Failure("contract", "")])
def test_other_failures_teach_nothing(failure: Failure) -> None:
    controller = fixed()
    calls = Calls(controller)
    before = repr(controller.service)
    calls.back(1, calls.leave(0), failure)
    assert repr(controller.service) == before


def test_a_size_is_explored_by_any_success_and_halved_by_413() -> None:
    controller = Controller(SLO_NS, 0.01, 128, FixedPods(1))
    calls = Calls(controller)
    controller.advance(0)
    calls.leave(0)
    calls.back(20, calls.leave(0, 8))  # though it queued
    assert controller.size_cap == 16
    calls.back(40, calls.leave(20, 16), Failure("status", "", 413))
    assert controller.size_cap == 8
    calls.back(60, calls.leave(40, 1), Failure("status", "", 413))  # that one request is too large by itself
    assert controller.size_cap == 8


# --- tokens ----------------------------------------------------------------------------------------------------


def test_tokens_pay_for_what_a_call_is_expected_to_take_and_its_reply_settles_the_account() -> None:
    controller = fixed(2)
    calls, full_ns = Calls(controller), 2 * SAVED_NS
    assert controller.tokens.value_ns == controller.tokens.capacity_ns == full_ns
    batch = calls.leave(0, 60)
    assert controller.tokens.value_ns == pytest.approx(full_ns - 100 * NS_PER_MS, rel=1e-3)
    calls.back(0.001, batch)
    assert controller.tokens.value_ns == pytest.approx(full_ns, rel=1e-3)


def test_an_error_and_a_call_that_nobody_waits_for_cost_nothing() -> None:
    controller = fixed(2)
    calls, full_ns = Calls(controller), 2 * SAVED_NS
    calls.back(30, calls.leave(0, 60), Failure("connect", ""))
    assert controller.tokens.value_ns == full_ns
    controller.given_up(calls.leave(0, 60), 1)
    assert controller.tokens.value_ns == full_ns
    assert controller._in_flight == 0


def test_tokens_come_at_four_fifths_of_what_is_paid_for_anyway() -> None:
    controller = fixed(3)
    assert controller.tokens.rate == pytest.approx(PACED_SHARE * 3)
    assert elastic().tokens.rate == pytest.approx(PACED_SHARE * 0.7)


def test_it_says_when_the_tokens_will_pay() -> None:
    controller = elastic()
    controller.tokens.value_ns = 0.0
    assert not controller.paid(60)
    at_ns = controller.paid_at_ns(60, 0)
    assert at_ns == pytest.approx(100 * NS_PER_MS / (PACED_SHARE * 0.7), rel=1e-3)
    controller.advance(at_ns)
    assert controller.paid(60)


def test_a_bucket_that_never_holds_so_much_never_pays() -> None:
    controller = elastic()
    controller.tokens.resize(0.5, 50.0 * NS_PER_MS)
    assert controller.paid_at_ns(60, 0) > 10**18


# --- how many calls --------------------------------------------------------------------------------------------


def test_a_fixed_backend_never_gets_more_calls_than_slots() -> None:
    controller = fixed(2)
    controller.demand.middle = controller.demand.fast = 100.0
    assert controller.slot_limit == controller.overshoot_limit(10_000) == 2


def test_more_calls_than_slots_are_allowed_only_where_pods_are_missing() -> None:
    controller = elastic(2)
    controller.demand.middle = controller.demand.fast = 1.9 * 0.7 / MISSING_FROM
    assert controller.overshoot_limit(0) == 2
    controller.demand.middle = controller.demand.fast = 2.1 * 0.7 / MISSING_FROM
    assert controller.overshoot_limit(0) == math.ceil(OVERSHOOT * 2.1 / MISSING_FROM) == 3
    controller.demand.middle = controller.demand.fast = 100.0
    assert controller.overshoot_limit(0) == OVERSHOOT_FACTOR * 2 + OVERSHOOT_EXTRA


def test_once_the_autoscaler_wants_the_pods_that_the_load_needs_no_calls_are_queued_to_show_it() -> None:
    pods = ShadowPods(AutoscalerSpec(), 1)
    controller = known(pods)
    controller.demand.middle = controller.demand.fast = 3.0
    assert controller.overshoot_limit(0) == OVERSHOOT_FACTOR + OVERSHOOT_EXTRA
    pods.observe(3, 0)
    assert pods.slots(2 * NS_PER_S) == 1  # the others are on their way
    assert controller.overshoot_limit(0) == controller.overshoot_limit(10_000) == 1
    controller.demand.middle = controller.demand.fast = 4.0  # seven pods are needed, and five coming
    assert controller.overshoot_limit(0) == OVERSHOOT_FACTOR + OVERSHOOT_EXTRA


def test_what_waits_beyond_a_batch_is_load_too() -> None:
    controller = elastic(2)
    waiting = controller.size_cap * 21
    backlog = 20 * controller.service.mean_ns(controller.size_cap) / BACKLOG_WITHIN_NS
    assert controller.overshoot_limit(waiting) == math.ceil(OVERSHOOT * backlog / 0.7) > 2


def test_a_word_about_the_pods_counts_at_once() -> None:
    controller = elastic(1)
    controller.told(7)
    controller.advance(1)
    assert controller.slot_limit == 7


def test_after_failures_in_a_row_one_call_at_a_time_asks() -> None:
    controller = elastic(4)
    calls = Calls(controller)
    controller.demand.middle = controller.demand.fast = 100.0
    for _ in range(5):
        calls.back(1, calls.leave(0), Failure("connect", ""))
    assert controller.slot_limit == controller.overshoot_limit(10_000) == 1


# --- when ------------------------------------------------------------------------------------------------------


def test_a_batch_leaves_so_early_that_one_more_instance_could_join_it() -> None:
    controller = fixed()
    assert controller.lead_ns(7) == int(controller.service.quantile_ns(8))


def test_a_tenth_of_the_objective_is_waited_even_where_it_cannot_be_met() -> None:
    controller = Controller(SLO_NS, 0.01, 128, FixedPods(1))
    for _ in range(100):
        controller.service.learn(1, 600 * NS_PER_MS, 0.01, 0)
    controller.advance(0)
    assert controller.infeasible
    assert controller.lead_ns(1) == (1 - LEAST_WAIT_SHARE) * SLO_NS


def test_an_objective_that_can_be_met_is_not_called_infeasible() -> None:
    assert not fixed().infeasible


def test_a_request_is_hopeless_when_it_would_be_late_alone_and_at_once() -> None:
    controller = fixed()
    alone_ns = controller.service.mean_ns(1) + NETWORK_NS
    assert not controller.is_hopeless(1, int(alone_ns) + 1, 0)
    assert controller.is_hopeless(1, int(alone_ns) - 1, 0)
    assert controller.is_hopeless(60, int(alone_ns) + 1, 0)


# --- whose fault -----------------------------------------------------------------------------------------------


def misses(controller: Controller) -> tuple[int, int]:
    return controller.feedback.model_misses, controller.feedback.capacity_misses


def test_an_answer_in_time_is_no_miss() -> None:
    controller = fixed()
    calls = Calls(controller)
    calls.back(499, calls.leave(0, 3))
    assert misses(controller) == (0, 0)


def test_a_call_that_took_longer_than_anybody_expected_is_the_models_miss() -> None:
    controller = fixed()
    calls = Calls(controller)
    calls.back(501, calls.leave(0, 3))
    assert misses(controller) == (3, 0)


@pytest.mark.parametrize("why", ["held_up", "contended", "again", "hopeless"])
def test_a_call_that_could_not_leave_in_time_is_a_miss_of_capacity(why: str) -> None:
    controller = fixed(1)
    calls = Calls(controller)
    if why == "contended":
        calls.leave(0)
    batch = calls.leave(
        500, 3, held_up=why == "held_up", attempt=int(why == "again"), age_ms=470 if why == "hopeless" else 0
    )
    calls.back(1001, batch)
    assert misses(controller) == (0, 3)


def test_a_callers_own_deadline_is_what_counts_if_it_is_earlier() -> None:
    controller = fixed()
    calls = Calls(controller)
    batch = calls.leave(0, 3)
    batch.members[0] = Request(7, b"", 1, 1, 0, 200 * NS_PER_MS, State.IN_FLIGHT)
    batch.members[1] = Request(8, b"", 1, 1, 0, 900 * NS_PER_MS, State.IN_FLIGHT)
    calls.back(300, batch)
    assert misses(controller) == (1, 0)


def test_who_has_left_misses_nothing() -> None:
    controller = fixed()
    calls = Calls(controller)
    batch = calls.leave(0, 3)
    batch.members[0].state = State.DONE
    calls.back(501, batch)
    assert misses(controller) == (2, 0)


def test_an_idle_hour_is_one_step_and_leaves_the_tokens_full() -> None:
    controller = elastic()
    controller.tokens.value_ns = -1e9
    controller.advance(3600 * NS_PER_S)
    assert controller.tokens.value_ns == controller.tokens.capacity_ns


def test_it_shows_its_parts() -> None:
    text = repr(fixed())
    assert text.startswith("<Controller 0/2 in flight, <ServiceTime <MeanTime ")
    assert "<Demand 0.00 " in text
