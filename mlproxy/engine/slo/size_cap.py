"""How large a batch may be: explored upwards, and held where a larger one does not pay. **Pure.**"""

from __future__ import annotations

import math

from mlproxy.engine.slo.quantiles import BUCKETS, bucket_of
from mlproxy.units import NS_PER_S

#: Where what a call costs beside its instances has become this share of it, larger batches gain nothing worth waiting
#: for.
OVERHEAD_SHARE = 0.1
#: A bucket is judged on its first calls, from so many on and up to so many. One that has been well for longer does not
#: become a cliff: if its calls get slow the backend has, and what is known of the smaller buckets is out of date.
JUDGED_FROM, REMEMBERED = 5, 20
#: An instance that costs so many times more than in a smaller bucket has gone over a cliff (memory, padding, caches).
CLIFF_RATIO = 1.5
CLIFF_FORGOTTEN_NS = 1800 * NS_PER_S
#: After a batch was too large (413, out of memory) the half of it is tried, and doubled as often as this.
FAILED_DOUBLES_NS = 60 * NS_PER_S

Point = tuple[float, float, float]


class SizeCap:
    """The smallest of: the configured size, the knee, twice what was seen, below a cliff, below what failed."""

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self.largest_seen = 0
        self._calls = [0] * BUCKETS
        self._sizes = [0.0] * BUCKETS  # mean instances of the calls of a bucket
        self._costs = [0.0] * BUCKETS  # logarithms of their times per instance, averaged: an outlier is no cliff
        self._cliff: int | None = None
        self._cliff_since_ns = 0
        self._failed: int | None = None
        self._failed_ns = 0

    def __repr__(self) -> str:
        return f"<SizeCap {self.max_size}, seen {self.largest_seen}, cliff {self._cliff}, failed {self._failed}>"

    @property
    def reach(self) -> int:
        """What exploring allows: 1, 2, 4 and so on as batches of that size succeed."""
        return max(1, 2 * self.largest_seen)

    def bound(self, base_ns: float, slope_ns: float, now_ns: int) -> int:
        """What everything else allows, by the shape of the mean time."""
        cap = min(self.max_size, knee(base_ns, slope_ns))
        if self._cliff is not None:
            if now_ns - self._cliff_since_ns < CLIFF_FORGOTTEN_NS:
                cap = min(cap, self._cliff)
            else:
                self._forget_cliff()
        if self._failed is not None:
            allowed = self._failed << min(20, (now_ns - self._failed_ns) // FAILED_DOUBLES_NS)
            if allowed >= self.max_size:
                self._failed = None
            cap = min(cap, allowed)
        return max(1, cap)

    def seen(self, instances: int) -> None:
        """A batch of ``instances`` succeeded."""
        self.largest_seen = max(self.largest_seen, instances)

    def failed(self, instances: int, now_ns: int) -> None:
        """A batch of ``instances`` was too large for the backend."""
        self._failed, self._failed_ns = max(1, instances // 2), now_ns

    def is_beyond_cliff(self, instances: int) -> bool:
        """Whether ``instances`` are slower than smaller batches promise; a request so large goes all the same."""
        return self._cliff is not None and instances > self._cliff

    def learn(self, instances: int, time_ns: float, now_ns: int) -> list[Point]:
        """An undelayed call took ``time_ns``. If that shows a cliff: the points below it, to fit the mean time to."""
        bucket = bucket_of(instances)
        self._calls[bucket] += 1
        weight = 1 / min(self._calls[bucket], REMEMBERED)
        self._sizes[bucket] += weight * (instances - self._sizes[bucket])
        self._costs[bucket] += weight * (math.log(time_ns / instances) - self._costs[bucket])
        if self._cliff is not None or not JUDGED_FROM <= self._calls[bucket] <= REMEMBERED:
            return []
        judged = [one for one in range(BUCKETS) if self._calls[one] >= JUDGED_FROM]
        best = min(judged, key=self._costs.__getitem__)
        if best > bucket or self._costs[bucket] <= math.log(CLIFF_RATIO) + self._costs[best]:
            return []  # nor is there a cliff below sizes that cost less than all others: few calls are scattered widely
        self._cliff, self._cliff_since_ns = 2**best, now_ns
        return [
            (float(min(self._calls[one], REMEMBERED)), self._sizes[one], self._sizes[one] * math.exp(self._costs[one]))
            for one in range(best + 1)
            if self._calls[one]
        ]

    def _forget_cliff(self) -> None:
        assert self._cliff is not None
        above = bucket_of(self._cliff) + 1
        for cells in (self._calls, self._sizes, self._costs):
            cells[above:] = [0] * (BUCKETS - above)
        self._cliff = None


def knee(base_ns: float, slope_ns: float, overhead_share: float = OVERHEAD_SHARE) -> int:
    """The size at which a call's own cost has become ``overhead_share`` of it."""
    if slope_ns <= 0.0:
        return 2**31
    return max(1, math.ceil(min(2.0**31, base_ns / slope_ns * (1 - overhead_share) / overhead_share)))
