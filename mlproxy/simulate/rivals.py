"""The rules of other batchers, to compare with. **Pure.**

Both are told how many pods are ready, as their own systems know their replicas, and send one batch to each at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from mlproxy.engine import Batch, Failure, Policy
from mlproxy.engine.lane_table import LaneTable
from mlproxy.engine.policies import Decision, Flush, Unlearning, WaitUntil
from mlproxy.units import NS_PER_MS, NS_PER_S


class _OnePerReplica(Unlearning):
    """A batch for every ready pod, and no more."""

    name = "rival"

    def __init__(self, max_size: int, slo_ns: int, ready: Callable[[], int]) -> None:
        self.size_cap = max_size
        self.split_size: int | None = max_size
        self._slo_ns = slo_ns
        self._ready = ready

    def inflight_limit(self) -> int:
        return max(1, self._ready())

    def statistics(self) -> dict[str, float]:
        return {"size_cap": self.size_cap, "slots": self.inflight_limit()}


class ClipperAimd(_OnePerReplica):
    """Clipper (NSDI 2017, section 4.3): a free replica takes what waits, at most a size that grows by one with every
    batch within the objective and shrinks by a tenth with every one beyond it.
    """

    name = "clipper"

    def __init__(self, max_size: int, slo_ns: int, ready: Callable[[], int]) -> None:
        super().__init__(max_size, slo_ns, ready)
        self._largest = max_size
        self.size_cap = 1

    def choose(self, lanes: LaneTable, in_flight: int, now_ns: int) -> Decision:
        lane = lanes.first()
        if lane is None or in_flight >= self.inflight_limit():
            return None
        return Flush(lane, self.size_cap, "slot" if in_flight else "idle")

    def observe_outcome(self, batch: Batch, failure: Failure | None, now_ns: int) -> None:
        if failure is not None:
            return
        if now_ns - batch.dispatched_ns > self._slo_ns:
            self.size_cap = max(1, int(self.size_cap * 0.9))
        elif batch.instances >= self.size_cap:  # a batch that was not full says nothing about a larger one
            self.size_cap = min(self._largest, self.size_cap + 1)


class BentoCork(_OnePerReplica):
    """BentoML's CorkDispatcher: wait while another millisecond costs those who wait less than it saves on average.

    Latency is taken for ``a n + b``, fitted to the last 50 batches every 5 s. Its shedding is left out: it refuses
    requests that may yet be late, and here both are misses.
    """

    name = "bentoml"

    _POLL_NS = NS_PER_MS
    _REFIT_NS = 5 * NS_PER_S
    _DECAY = 0.95

    def __init__(self, max_size: int, slo_ns: int, ready: Callable[[], int]) -> None:
        super().__init__(max_size, slo_ns, ready)
        self._per_instance_ns = min(2.0 * NS_PER_S, slo_ns * 2 / 30)
        self._mean_wait_ns = 0.01 * NS_PER_S
        self._samples: deque[tuple[int, int, int]] = deque(maxlen=50)  # instances, duration, wait of the oldest
        self._refit_at_ns = 0

    def choose(self, lanes: LaneTable, in_flight: int, now_ns: int) -> Decision:
        lane = lanes.first()
        if lane is None or in_flight >= self.inflight_limit():
            return None
        waiting, newest_ns = lane.instances, lane.last_arrived_ns
        if waiting >= self.size_cap:
            return Flush(lane, self.size_cap, "full")
        cost_ns = waiting * (now_ns - newest_ns + self._POLL_NS + self._per_instance_ns)
        if cost_ns <= self._mean_wait_ns * self._DECAY:
            return WaitUntil(now_ns + self._POLL_NS)
        return Flush(lane, self.size_cap, "slot" if in_flight else "idle")

    def statistics(self) -> dict[str, float]:
        learned = {"per_instance_ns": self._per_instance_ns, "mean_wait_ns": self._mean_wait_ns}
        return {**super().statistics(), **learned}

    def observe_outcome(self, batch: Batch, failure: Failure | None, now_ns: int) -> None:
        if failure is not None:
            return
        wait_ns = batch.dispatched_ns - batch.members[0].arrived_ns
        self._samples.append((batch.instances, now_ns - batch.dispatched_ns, wait_ns))
        if now_ns >= self._refit_at_ns:
            self._refit_at_ns = now_ns + self._REFIT_NS
            self._refit()

    def _refit(self) -> None:
        sizes, durations, waits = np.array(self._samples, float).T
        fitted, *_ = np.linalg.lstsq(np.stack([sizes, np.ones_like(sizes)], axis=1), durations, rcond=None)
        self._per_instance_ns = max(1.0, float(fitted[0]))
        self._mean_wait_ns = max(0.0, float(waits.mean()))


class Rival(Protocol):
    """How one is made."""

    def __call__(self, max_size: int, slo_ns: int, ready: Callable[[], int]) -> Policy:
        """For batches of at most ``max_size``."""


RIVALS: Mapping[str, Rival] = {"clipper": ClipperAimd, "bentoml": BentoCork}
