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
        self._logs = [math.log(PRIOR_FACTOR)] * (BUCKETS + 1)  # the last is the prior, and stays
        self._calls = [0] * BUCKETS
        self._blends: dict[int, list[tuple[int, float]]] = {}  # of which logarithms, in which shares, a bucket's is
        self._factors: dict[int, float] = {}  # those that were asked for since the last call

    def __repr__(self) -> str:
        known = ", ".join(f"{2**bucket}: {self.of(2**bucket):.2f}" for bucket in range(BUCKETS) if self._calls[bucket])
        return f"<QuantileFactors {known or 'nothing known'}>"

    def of(self, instances: int) -> float:
        """What to multiply the mean time with."""
        bucket = bucket_of(instances)
        factor = self._factors.get(bucket)
        if factor is None:
            logs = self._logs
            blend = self._blends.get(bucket) or self._blends.setdefault(bucket, self._blend(bucket))
            factor = self._factors[bucket] = math.exp(sum([share * logs[one] for one, share in blend]))
        return factor

    def learn(self, instances: int, ratio: float, exceed_share: float) -> None:
        """A call took ``ratio`` times its mean; the share of calls that may exceed the quantile is ``exceed_share``."""
        bucket = bucket_of(instances)
        step = LOG_STEP * (2 if self._calls[bucket] < QUICK_CALLS else 1)
        exceeded = ratio > math.exp(self._logs[bucket])
        low, high = LOG_BOUNDS
        self._logs[bucket] = min(max(self._logs[bucket] + step * (exceeded - exceed_share), low), high)
        self._calls[bucket] += 1
        if self._calls[bucket] <= ENOUGH_CALLS:
            self._blends.clear()
        self._factors.clear()

    def state(self) -> tuple[list[float], list[int]]:
        """What `restore` takes: of each bucket the logarithm of its factor, and how many calls have taught it."""
        return self._logs[:BUCKETS], list(self._calls)

    def restore(self, logs: Sequence[float], calls: Sequence[int]) -> None:
        """Go on where another one stopped."""
        self._logs[:BUCKETS] = logs
        self._calls = list(calls)
        self._blends.clear()
        self._factors.clear()

    def _blend(self, bucket: int) -> list[tuple[int, float]]:
        if self._calls[bucket] >= ENOUGH_CALLS:
            return [(bucket, 1.0)]
        known = [one for one in range(BUCKETS) if self._calls[one]]
        smaller = [one for one in known if one < bucket][-1:]
        larger = [one for one in known if one > bucket][:1]
        weights = [(one, min(self._calls[one], NEIGHBOUR_WEIGHT)) for one in (bucket, *smaller, *larger)]
        weight = sum(one for _, one in weights)
        weights.append((BUCKETS, max(0, ENOUGH_CALLS - weight)))
        return [(one, share / max(weight, ENOUGH_CALLS)) for one, share in weights]
