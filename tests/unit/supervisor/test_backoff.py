"""How long a dead process stays dead."""

from __future__ import annotations

from workers.supervisor.backoff import FIRST_PAUSE_NS, HEALTHY_AFTER_NS, LONGEST_PAUSE_NS, BackOff

MS = 1_000_000
SHORT_NS = HEALTHY_AFTER_NS - 1


def test_the_first_death_is_free() -> None:
    assert BackOff().pause_ns(0) == 0


def test_the_pause_doubles_while_lives_are_short_and_stays_at_its_longest() -> None:
    back_off = BackOff()
    pauses_ms = [back_off.pause_ns(SHORT_NS) // MS for _ in range(10)]
    assert pauses_ms == [0, 100, 200, 400, 800, 1600, 2000, 2000, 2000, 2000]


def test_a_process_that_never_lives_is_still_tried_after_any_number_of_deaths() -> None:
    back_off = BackOff()
    pauses_ns = [back_off.pause_ns(0) for _ in range(5000)]
    assert max(pauses_ns) == pauses_ns[-1] == LONGEST_PAUSE_NS


def test_a_healthy_life_is_followed_by_no_pause_and_forgets_what_was_before() -> None:
    back_off = BackOff()
    for _ in range(8):
        back_off.pause_ns(SHORT_NS)
    assert back_off.pause_ns(HEALTHY_AFTER_NS) == 0
    assert back_off.pause_ns(SHORT_NS) == FIRST_PAUSE_NS


def test_healthy_lives_never_cause_a_pause() -> None:
    back_off = BackOff()
    assert [back_off.pause_ns(HEALTHY_AFTER_NS) for _ in range(20)] == [0] * 20
