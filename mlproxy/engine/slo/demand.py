"""How many slots the traffic needs if it is batched as late as possible: the least that can be paid for. **Pure.**

A *virtual batcher* groups the same arrivals by deferral alone. The time its batches would take, per time, is the load
that no policy can go below; pods that this load needs anyway may as well be used to answer sooner.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from mlproxy.units import NS_PER_S

#: How often the averages are brought up to date.
TICK_NS = NS_PER_S // 2
#: Time constants of the averages of the load: what is paid for, what decides in overload, what its peaks are made of.
SLOW_TAU_S, MIDDLE_TAU_S, FAST_TAU_S = 15.0, 2.0, 1.0
#: How long a peak is remembered: bursts that come every quarter of an hour are prepared for.
PEAK_TAU_S = 1200.0
#: A pod is added when the load comes so close to what the autoscaler would allow, and given up at twice the distance.
HYSTERESIS = 0.05
#: The share of the autoscaler's target that is used: at the target itself its rounding would add a pod.
USED_SHARE = 0.95


class VirtualBatcher:
    """Closes a batch when it is full, or when its first request could wait no longer."""

    def __init__(self, mean_ns: Callable[[float], float], wait_ns: Callable[[int], float]) -> None:
        self._mean_ns = mean_ns
        self._wait_ns = wait_ns
        self._instances = 0
        self._opened_ns = 0
        self._closes_ns = 0.0
        self.work_ns = 0.0  #: time that the batches closed so far would take

    def __repr__(self) -> str:
        return f"<VirtualBatcher {self._instances} instances, {self.work_ns / 1e6:.1f} ms of work>"

    def arrive(self, instances: int, size_cap: int, now_ns: int) -> None:
        """So many instances came at once."""
        self.close_due(now_ns)
        if not self._instances:
            self._opened_ns = now_ns
        full, self._instances = divmod(self._instances + instances, size_cap)
        if full:
            self.work_ns += full * self._mean_ns(size_cap)
            self._opened_ns = now_ns
        if self._instances:
            self._closes_ns = self._opened_ns + self._wait_ns(self._instances)

    def close_due(self, now_ns: int) -> None:
        """Close the batch whose time has come."""
        if self._instances and now_ns >= self._closes_ns:
            self.work_ns += self._mean_ns(self._instances)
            self._instances = 0

    def take_work_ns(self) -> float:
        """The work since the last call."""
        work_ns, self.work_ns = self.work_ns, 0.0
        return work_ns


class Demand:
    """Averages of the virtual batcher's load, and the slots that they call for."""

    def __init__(self, batcher: VirtualBatcher, slot_target: float) -> None:
        self.batcher = batcher
        self._slot_target = slot_target
        self.slow = self.middle = self.fast = self.peak = 0.0
        self.slots = 1  #: needed, with the reserve
        self._ticked_ns: int | None = None

    def __repr__(self) -> str:
        return (
            f"<Demand {self.slow:.2f} ({self.middle:.2f}, {self.fast:.2f}, peak {self.peak:.2f}): {self.slots} slots>"
        )

    def tick(self, now_ns: int, reserve: float) -> bool:
        """Bring the averages up to ``now_ns`` if a tick is due.

        ``reserve`` (0 to 1) is how far to prepare for the peak.
        """
        if self._ticked_ns is None:
            self._ticked_ns = now_ns
            return False
        elapsed_ns = now_ns - self._ticked_ns
        if elapsed_ns < TICK_NS:
            return False
        self._ticked_ns = now_ns
        self.batcher.close_due(now_ns)
        load, elapsed_s = self.batcher.take_work_ns() / elapsed_ns, elapsed_ns / NS_PER_S
        self.slow += (load - self.slow) * (1 - math.exp(-elapsed_s / SLOW_TAU_S))
        self.middle += (load - self.middle) * (1 - math.exp(-elapsed_s / MIDDLE_TAU_S))
        self.fast += (load - self.fast) * (1 - math.exp(-elapsed_s / FAST_TAU_S))
        self.peak = max(self.fast, self.peak * math.exp(-elapsed_s / PEAK_TAU_S))
        self._count_slots(reserve)
        return True

    @property
    def next_tick_ns(self) -> int:
        """When the averages are next brought up to date, if anybody looks."""
        return (self._ticked_ns or 0) + TICK_NS

    def _count_slots(self, reserve: float) -> None:
        load = self.slow + reserve * max(0.0, self.peak - self.slow)
        per_slot = USED_SHARE * self._slot_target
        more = math.ceil(load * (1 + HYSTERESIS) / per_slot)
        fewer = math.ceil(load * (1 + 2 * HYSTERESIS) / per_slot)
        if more > self.slots:
            self.slots = more
        elif fewer < self.slots:
            self.slots = max(1, fewer)
