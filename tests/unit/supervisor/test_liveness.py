"""Which processes are judged to be stuck, with a clock that the test owns."""

from __future__ import annotations

import pytest

from mlproxy.units import NS_PER_S
from workers.supervisor.liveness import Liveness, Patience, Verdict

PATIENCE = Patience(silent_ns=5 * NS_PER_S, hung_ns=15 * NS_PER_S, start_ns=60 * NS_PER_S)
LAST_TURN_S = 100


class Round:
    """Looks once a second, at a process that turned its loop for the last time at `LAST_TURN_S`."""

    def __init__(self) -> None:
        self.liveness = Liveness(PATIENCE)
        self.liveness.look((LAST_TURN_S - 1) * NS_PER_S)

    def verdicts(self, *seconds: int, heartbeat_s: int = LAST_TURN_S) -> list[Verdict]:
        found = []
        for second in seconds:
            self.liveness.look((LAST_TURN_S + second) * NS_PER_S)
            found.append(self.liveness.judge_ready("batcher", heartbeat_s * NS_PER_S))
        return found


def test_a_loop_that_does_not_turn_is_silent_once_and_then_hung() -> None:
    well, silent, hung = Verdict.WELL, Verdict.SILENT, Verdict.HUNG
    assert Round().verdicts(*range(18)) == [well] * 6 + [silent] + [well] * 9 + [hung] * 2


def test_a_loop_that_turns_again_is_well_and_its_next_silence_is_told_anew() -> None:
    rounds = Round()
    assert rounds.verdicts(3, 6) == [Verdict.WELL, Verdict.SILENT]
    assert rounds.verdicts(7, heartbeat_s=LAST_TURN_S + 7) == [Verdict.WELL]
    assert rounds.verdicts(10, 13, heartbeat_s=LAST_TURN_S + 7) == [Verdict.WELL, Verdict.SILENT]


def test_nobody_hangs_who_was_frozen_together_with_the_supervisor() -> None:
    rounds = Round()
    assert rounds.verdicts(0, 600, 603) == [Verdict.WELL] * 3
    assert rounds.verdicts(606, 609, 612, 615, 618) == [
        Verdict.SILENT, Verdict.WELL, Verdict.WELL, Verdict.WELL, Verdict.HUNG,
    ]  # fmt: skip


def test_one_process_does_not_answer_for_another() -> None:
    rounds = Round()
    assert rounds.verdicts(3, 6) == [Verdict.WELL, Verdict.SILENT]
    assert rounds.liveness.judge_ready("ingress-0", (LAST_TURN_S + 6) * NS_PER_S) is Verdict.WELL
    assert rounds.liveness.judge_ready("ingress-1", LAST_TURN_S * NS_PER_S) is Verdict.SILENT
    assert rounds.verdicts(7) == [Verdict.WELL]


@pytest.mark.parametrize(("seconds", "verdict"), [(1, Verdict.WELL), (60, Verdict.WELL), (61, Verdict.HUNG)])
def test_a_start_may_take_long_but_not_for_ever(seconds: int, verdict: Verdict) -> None:
    rounds = Round()
    rounds.verdicts(*range(seconds + 1))
    assert rounds.liveness.judge_starting(LAST_TURN_S * NS_PER_S) is verdict


def test_the_ordinary_patience_warns_long_before_it_kills() -> None:
    ordinary = Patience()
    assert ordinary.silent_ns < ordinary.hung_ns < ordinary.start_ns
