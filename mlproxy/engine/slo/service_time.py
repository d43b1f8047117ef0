"""What is known of the time that a backend call takes: its mean and a high quantile, by size. **Pure.**"""

from __future__ import annotations

from mlproxy.engine.slo.mean_time import MeanTime
from mlproxy.engine.slo.quantiles import QuantileFactors
from mlproxy.engine.slo.size_cap import SizeCap, knee
from mlproxy.units import NS_PER_MS

#: Added to every quantile: timers are late and bytes take time. The 99th percentile of a timer's lateness on a busy
#: two-core machine is below it.
MARGIN_NS = 3 * NS_PER_MS
#: No call takes less, whatever the clock says: a mean of zero would make every later call infinitely long beside it.
LEAST_NS = 1000.0


class ServiceTime:
    """Learns from calls that did not have to wait for a pod; others measure the queue and not the service."""

    def __init__(self, slo_ns: int, max_size: int) -> None:
        self.mean = MeanTime(slo_ns)
        self.factors = QuantileFactors()
        self.size_cap = SizeCap(max_size)

    def __repr__(self) -> str:
        return f"<ServiceTime {self.mean!r}, {self.factors!r}, {self.size_cap!r}>"

    def mean_ns(self, instances: float) -> float:
        """The mean time of a call with ``instances``."""
        return self.mean.of(instances)

    def quantile_ns(self, instances: int) -> float:
        """The time that a call with ``instances`` exceeds rarely enough."""
        return self.factors.of(instances) * self.mean.of(instances) + MARGIN_NS

    def size_bound(self, budget_ns: float, now_ns: int) -> int:
        """Instances that a batch may have once every size has been tried.

        A batch that takes longer than ``budget_ns`` is late for all its members; where that leaves small ones only, so
        many are sent that each costs twice what it would in the largest: smaller ones would buy little with many pods.
        But no more than half of what would be sent otherwise: calls of one size say nothing of others, and whoever
        takes a slow backend for a model in which instances cost nothing has to try a smaller size to find out.
        """
        base_ns, slope_ns = self.mean.base_ns, self.mean.slope_ns
        bound = self.size_cap.bound(base_ns, slope_ns, now_ns)
        if self.quantile_ns(bound) <= budget_ns:
            return bound
        in_time = self.most_within(budget_ns, bound)
        return max(1, in_time, min(bound // 2, knee(base_ns, slope_ns, overhead_share=0.5)))

    def most_within(self, budget_ns: float, at_most: int) -> int:
        """The largest size, up to ``at_most``, whose quantile is within ``budget_ns``; 0 if there is none."""
        low, high = 0, at_most  # the quantile grows with the size but for steps between buckets, which do no harm here
        while low < high:
            middle = (low + high + 1) // 2
            if self.quantile_ns(middle) <= budget_ns:
                low = middle
            else:
                high = middle - 1
        return low

    def learn(self, instances: int, time_ns: float, exceed_share: float, now_ns: int) -> None:
        """A call that nothing delayed took ``time_ns``."""
        time_ns = max(time_ns, LEAST_NS)
        self.factors.learn(instances, time_ns / self.mean.of(instances), exceed_share)
        below_cliff = self.size_cap.learn(instances, time_ns, now_ns)
        if below_cliff:
            self.mean.relearn(below_cliff)
        elif not self.size_cap.is_beyond_cliff(instances):  # no line fits both sides
            self.mean.learn(instances, time_ns)

    def learn_timeout(self, instances: int, timeout_ns: float, exceed_share: float) -> None:
        """A call took longer than ``timeout_ns``: nobody knows how much, so only the quantile moves."""
        self.factors.learn(instances, timeout_ns / self.mean.of(instances), exceed_share)
