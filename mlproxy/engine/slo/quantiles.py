"""How much longer than its mean a call may take: one factor per power of two of its size. **Pure.**

An adaptive conformal step (Gibbs and Candès, 2021): after each call the logarithm of the factor goes up if the call
took longer than predicted, and down if it did not, in the ratio that makes the wanted share of calls exceed it. No
distribution is assumed, and drift is followed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

BUCKETS = 16
PRIOR_FACTOR = 1.5
LOG_STEP = 0.1
#: The step is twice as long for so many calls of a bucket.
QUICK_CALLS = 30
LOG_BOUNDS = (math.log(1.03), math.log(8.0))
#: A bucket is believed alone from so many calls on; below, its neighbours and the prior make up the weight.
ENOUGH_CALLS, NEIGHBOUR_WEIGHT = 8, 4


def bucket_of(instances: int) -> int:
    """0 for 1, 1 for 2, 2 for 3 and 4, 3 for 5 to 8, and so on."""
    return min((instances - 1).bit_length(), BUCKETS - 1)


class QuantileFactors:
    """The ratio of a high quantile to the mean, by size."""

    def __init__(self) -> None:
        self._logs = [math.log(PRIOR_FACTOR)] * BUCKETS
        self._calls = [0] * BUCKETS
        self._factors = [PRIOR_FACTOR] * BUCKETS

    def __repr__(self) -> str:
        known = ", ".join(f"{2**k}: {self._factors[k]:.2f}" for k, calls in enumerate(self._calls) if calls)
        return f"<QuantileFactors {known or 'nothing known'}>"

    def of(self, instances: int) -> float:
        """What to multiply the mean time with."""
        return self._factors[bucket_of(instances)]

    def learn(self, instances: int, ratio: float, exceed_share: float) -> None:
        """A call took ``ratio`` times its mean; the share of calls that may exceed the quantile is ``exceed_share``."""
        bucket = bucket_of(instances)
        step = LOG_STEP * (2 if self._calls[bucket] < QUICK_CALLS else 1)
        exceeded = ratio > math.exp(self._logs[bucket])
        low, high = LOG_BOUNDS
        self._logs[bucket] = min(max(self._logs[bucket] + step * (exceeded - exceed_share), low), high)
        self._calls[bucket] += 1
        self._blend()

    def state(self) -> list[list[float]]:
        """What `restore` takes."""
        return [list(self._logs), [float(calls) for calls in self._calls]]

    def restore(self, state: Sequence[Sequence[float]]) -> None:
        """Go on where another one stopped."""
        logs, calls = state
        self._logs = list(logs)
        self._calls = [int(count) for count in calls]
        self._blend()

    def _blend(self) -> None:
        known = [bucket for bucket in range(BUCKETS) if self._calls[bucket]]
        for bucket in range(BUCKETS):
            self._factors[bucket] = math.exp(self._blended_log(bucket, known))

    def _blended_log(self, bucket: int, known: list[int]) -> float:
        if self._calls[bucket] >= ENOUGH_CALLS:
            return self._logs[bucket]
        smaller = [one for one in known if one < bucket][-1:]
        larger = [one for one in known if one > bucket][:1]
        weights = [(min(self._calls[one], NEIGHBOUR_WEIGHT), self._logs[one]) for one in (bucket, *smaller, *larger)]
        weight = sum(one for one, _ in weights)
        prior_weight = max(0, ENOUGH_CALLS - weight)
        total = sum(one * log for one, log in weights) + prior_weight * math.log(PRIOR_FACTOR)
        return total / (weight + prior_weight)
