"""Errors: each outcome keeps its class over the way between processes, and its status is the one users were told."""

from __future__ import annotations

import pytest

from mlproxy import errors
from mlproxy.errors import ConfigurationError, InternalError, Overloaded, ProxyError, error_from_slug

ALL = [error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, ProxyError)]
OUTCOMES = [error for error in ALL if error is not ProxyError]

#: The table of the HTTP contract.
STATUS = {
    "bad-request": 400, "endpoint-not-found": 404, "method-not-allowed": 405, "request-timeout": 408,
    "body-too-large": 413, "unsupported-media-type": 415, "header-too-large": 431, "internal-error": 500,
    "overloaded": 503, "draining": 503, "deadline-exceeded": 504, "backend-unavailable": 502,
    "backend-contract": 502, "backend-timeout": 504, "suspect-request": 502,
}  # fmt: skip


def test_the_statuses_are_those_of_the_http_contract() -> None:
    assert {error.slug: error.status for error in OUTCOMES} == STATUS


def test_no_two_outcomes_share_a_slug_or_a_title() -> None:
    assert len({error.slug for error in OUTCOMES}) == len({error.title for error in OUTCOMES}) == len(OUTCOMES)


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: outcome.slug)
def test_an_error_named_by_its_slug_comes_back_as_the_same_outcome(outcome: type[ProxyError]) -> None:
    back = error_from_slug(outcome.slug, "why", 7)
    assert type(back) is outcome
    assert (back.detail, back.retry_after_s, str(back)) == ("why", 7, "why")


def test_a_slug_that_nobody_knows_is_an_internal_error_and_keeps_its_detail() -> None:
    back = error_from_slug("from-a-newer-version", "why")
    assert type(back) is InternalError
    assert (back.status, back.detail, back.retry_after_s) == (500, "why", None)


def test_an_error_says_nothing_about_coming_back_unless_told() -> None:
    assert Overloaded("full").retry_after_s is None


def test_a_configuration_error_prints_every_problem_on_its_own_line() -> None:
    error = ConfigurationError(["a: is missing", "b: unknown key"])
    assert error.problems == ["a: is missing", "b: unknown key"]
    assert str(error) == "a: is missing\nb: unknown key"
