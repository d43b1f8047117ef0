"""Knative's rules before zero pods. Times are seconds."""

from __future__ import annotations

import pytest

from mlproxy.simulate.zero import ScaleToZero

WINDOW, GRACE = 60, 30


def asked(instants: list[int], *, proxying_since: int | None = None, retention: int = 0) -> list[int | None]:
    """What the gate says when no pods are wanted at each of ``instants``."""
    gate = ScaleToZero(WINDOW, GRACE, retention)
    return [gate.allowed(0, at, proxying_since) for at in instants]


@pytest.mark.parametrize(
    ("instants", "proxying_since", "retention", "said"),
    [
        ([59], None, 0, [1]),  # active for less than the window: one pod stays
        ([60], None, 0, [None]),  # wanted, not yet applied
        ([60, 89], None, 0, [None, None]),
        ([60, 90], None, 0, [None, 0]),  # inactive for the grace period
        ([60, 89], 59, 0, [None, 0]),  # its calls have gone to the activator for so long already
        ([60], 0, 0, [0]),  # … as they always do with a target of 1
        ([60, 119, 120], 0, 60, [None, None, 0]),  # the retention is the least
    ],
)
def test_the_last_pod_goes_after_a_quiet_window_and_a_grace_period(
    instants: list[int], proxying_since: int | None, retention: int, said: list[int | None]
) -> None:
    assert asked(instants, proxying_since=proxying_since, retention=retention) == said


def test_a_pod_that_is_wanted_again_starts_the_window_anew() -> None:
    gate = ScaleToZero(WINDOW, GRACE)
    assert gate.allowed(0, 60, None) is None
    assert gate.allowed(2, 70, None) == 2
    assert gate.allowed(0, 129, None) == 1
    assert gate.allowed(0, 130, None) is None
