"""Pacing: what is spent, refilled and given back."""

from __future__ import annotations

import pytest

from mlproxy.engine.slo.tokens import FLOOR, Tokens

CAPACITY_NS = 100.0


def full() -> Tokens:
    tokens = Tokens()
    tokens.resize(0.5, CAPACITY_NS)
    tokens.advance(0)
    return tokens


def test_at_first_the_bucket_is_full() -> None:
    assert full().value_ns == CAPACITY_NS


def test_it_refills_with_time_and_never_beyond_its_capacity() -> None:
    tokens = full()
    tokens.spend(80)
    tokens.advance(40)
    assert tokens.value_ns == pytest.approx(20 + 40 * 0.5)
    tokens.advance(10**6)
    assert tokens.value_ns == CAPACITY_NS


def test_late_batches_may_overdraw_it_down_to_a_floor() -> None:
    tokens = full()
    tokens.spend(250)
    assert tokens.value_ns == -150
    tokens.spend(10_000)
    assert tokens.value_ns == FLOOR * CAPACITY_NS


def test_a_call_that_took_less_gives_back_the_rest() -> None:
    tokens = full()
    tokens.spend(60)
    tokens.spend(40 - 60)  # it was expected to take 60 and took 40
    assert tokens.value_ns == 60
    tokens.spend(-1000)
    assert tokens.value_ns == CAPACITY_NS


def test_a_smaller_capacity_takes_away_what_is_beyond_it() -> None:
    tokens = full()
    tokens.resize(0.5, 30)
    assert tokens.value_ns == tokens.capacity_ns == 30


def test_it_shows_what_it_holds() -> None:
    tokens = Tokens()
    tokens.resize(0.5, 2_000_000)
    tokens.advance(0)
    assert repr(tokens) == "<Tokens 2.0 of 2.0 ms>"
