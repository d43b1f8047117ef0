"""Two closed loops on the measured share of misses: how careful the model is, and how much is kept in reserve.
**Pure.**

A miss is either the model's (the call took longer than predicted) or one of capacity (the batch could not leave when it
should have). The first makes the quantile higher, the second the reserve larger; each loop has half of the misses that
the objective allows.
"""

from __future__ import annotations

import math

from mlproxy.units import NS_PER_S

INTERVAL_NS = 10 * NS_PER_S
#: Share of the allowed misses that is aimed at: the rest is for what no loop sees coming.
AIMED_SHARE = 0.5
CARE_GAIN, CARE_STEP, CARE_BOUNDS = 0.1, 0.5, (0.3, 3.0)
RESERVE_GAIN, RESERVE_BUDGET = 1.0, 0.5
#: The reserve stays as it is for so long after the start: the first misses are those of a start with one pod and no
#: model. No longer, for a jump of the traffic from then on is what the reserve has to learn from.
FROZEN_NS = 30 * NS_PER_S
MEAN_WEIGHT = 0.1
CARE_WEIGHT, RESERVE_WEIGHT = 2.0, 3.0  # at most, of an interval with more requests than usual
MOST_EXCEEDING = 0.3


class Feedback:
    """Counts outcomes in intervals of ten seconds."""

    def __init__(self, miss_target: float) -> None:
        self._aim = miss_target * AIMED_SHARE
        #: Above 1 the quantile is lower than the objective asks for: a late batch delays only its oldest members.
        self.tolerance = CARE_BOUNDS[1]
        self.reserve = 0.0  #: how far to prepare for the peak of the load, 0 to 1
        self.model_misses = self.capacity_misses = 0  #: since the start
        self._completed = self._model = self._capacity = 0  # in this interval
        self._mean_completed: float | None = None
        self._started_ns: int | None = None
        self._until_ns = 0

    def __repr__(self) -> str:
        misses = f"{self.model_misses} model and {self.capacity_misses} capacity misses"
        return f"<Feedback tolerance {self.tolerance:.2f}, reserve {self.reserve:.2f}, {misses}>"

    @property
    def exceed_share(self) -> float:
        """The share of calls that may take longer than their quantile."""
        return min(MOST_EXCEEDING, self._aim * self.tolerance)

    def count(self, completed: int, model_misses: int, capacity_misses: int) -> None:
        """So many requests were answered, so many of them late."""
        self._completed += completed
        self._model += model_misses
        self._capacity += capacity_misses
        self.model_misses += model_misses
        self.capacity_misses += capacity_misses

    def tick(self, now_ns: int) -> None:
        """Close the interval if it is over."""
        if self._started_ns is None:
            self._started_ns = now_ns
            self._until_ns = now_ns + INTERVAL_NS
        if now_ns < self._until_ns:
            return
        self._until_ns = now_ns + INTERVAL_NS
        if self._completed:
            self._adjust(now_ns - self._started_ns)
        self._completed = self._model = self._capacity = 0

    def _adjust(self, age_ns: int) -> None:
        completed = self._completed
        if self._mean_completed is None:
            self._mean_completed = float(completed)
        self._mean_completed += MEAN_WEIGHT * (completed - self._mean_completed)
        weight = completed / self._mean_completed
        error = self._model / completed - self._aim / 2
        step = max(-CARE_STEP, -CARE_GAIN * error / self._aim * min(weight, CARE_WEIGHT))
        low, high = CARE_BOUNDS
        self.tolerance = min(max(self.tolerance * math.exp(step), low), high)
        if age_ns >= FROZEN_NS:
            error = self._capacity / completed - RESERVE_BUDGET * self._aim
            self.reserve = min(max(self.reserve + RESERVE_GAIN * error * min(weight, RESERVE_WEIGHT), 0.0), 1.0)
