"""When the backend is asked one call at a time."""

from __future__ import annotations

import pytest

from mlproxy.engine import Failure
from mlproxy.engine.slo.breaker import FAILURES_TO_PROBE, PROBE_EVERY_NS, Breaker

REFUSED = Failure("connect", "refused")


def broken(failure: Failure, times: int = FAILURES_TO_PROBE) -> Breaker:
    breaker = Breaker()
    for now_ns in range(times):
        breaker.observe(failure, now_ns, usual=True)
    return breaker


@pytest.mark.parametrize(
    "failure",
    [REFUSED, Failure("reset", ""), Failure("timeout", ""), Failure("status", "", 503)],
)
def test_five_failures_in_a_row_make_it_probe_once_a_second(failure: Failure) -> None:
    assert not broken(failure, FAILURES_TO_PROBE - 1).probing
    breaker = broken(failure)
    assert breaker.probing
    assert breaker.next_probe_ns == FAILURES_TO_PROBE - 1 + PROBE_EVERY_NS


def test_each_failed_probe_puts_the_next_one_off_and_one_success_ends_it() -> None:
    breaker = broken(REFUSED)
    breaker.observe(REFUSED, 10 * PROBE_EVERY_NS, usual=True)
    assert breaker.next_probe_ns == 11 * PROBE_EVERY_NS
    breaker.observe(None, 11 * PROBE_EVERY_NS, usual=False)
    assert not breaker.probing


@pytest.mark.parametrize(
    "failure",
    [Failure("status", "", 400), Failure("status", "", 500), Failure("status", "", 501), Failure("contract", "")],
)
def test_an_answer_of_which_one_request_may_be_the_cause_shows_that_the_backend_is_there(failure: Failure) -> None:
    assert not broken(failure).probing
    breaker = broken(REFUSED, FAILURES_TO_PROBE - 1)
    breaker.observe(failure, 5, usual=True)
    breaker.observe(REFUSED, 6, usual=True)
    assert not breaker.probing


@pytest.mark.parametrize("failure", [Failure("reset", ""), Failure("timeout", ""), Failure("status", "", 503)])
def test_what_fails_by_itself_says_nothing_about_the_backend_but_is_a_probe_when_it_probes(failure: Failure) -> None:
    breaker = Breaker()
    for now_ns in range(FAILURES_TO_PROBE):
        breaker.observe(failure, now_ns, usual=False)
    assert not breaker.probing
    for now_ns in range(FAILURES_TO_PROBE):
        breaker.observe(REFUSED, now_ns, usual=False)
    assert breaker.probing
    breaker.observe(failure, 20, usual=False)
    assert breaker.next_probe_ns == 20 + PROBE_EVERY_NS


def test_it_shows_where_it_stands() -> None:
    assert repr(Breaker()) == "<Breaker closed: 0 failures in a row>"
    assert repr(broken(REFUSED)) == "<Breaker probing: 5 failures in a row>"
