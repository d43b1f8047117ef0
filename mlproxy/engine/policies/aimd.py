"""The controller of the 2021 prototype and of the paper (Mahmoudi and Khazaei, 2022), to compare with. **Pure.**

Faithful in what it does, its weaknesses included: it judges by the latency of what was answered, so overload makes its
batches smaller; it never limits the calls in flight; and a quiet service waits for company that does not come.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from mlproxy.config import Aimd
from mlproxy.engine.events import Failure
from mlproxy.engine.lane_table import LaneTable
from mlproxy.engine.policies.policy import Decision, Flush, Unlearning, lingering
from mlproxy.engine.request import Batch
from mlproxy.units import NS_PER_MS, NS_PER_S

#: What is remembered of answers and of calls, and of why batches left.
WINDOW_NS, DEPARTURES_NS = 60 * NS_PER_S, 20 * NS_PER_S
#: An estimate, also that there is none, is used again for so long.
MEMO_NS = 10 * NS_PER_S
#: The estimate without data, and the least that an estimate and a timeout come to.
NO_DATA_NS, LEAST_NS = 100 * NS_PER_MS, 50 * NS_PER_MS


class AimdBatching(Unlearning):
    """A batch leaves when it is full, or when its oldest request's timer goes off; every 30 s the size is moved."""

    name = "aimd"

    def __init__(self, slo_ns: int, max_size: int, max_inflight: int, settings: Aimd) -> None:
        self.split_size: int | None = max_size
        self.size_cap = min(settings.start_size, max_size)
        self._objective_ns = settings.slo_share * slo_ns
        self._max_size = max_size
        self._max_inflight = max_inflight
        self._settings = settings
        self._latencies: deque[tuple[int, int]] = deque()  # answered at, latency
        self._calls: deque[tuple[int, int, int]] = deque()  # ended at, instances, time
        self._memo: dict[int, tuple[int, float]] = {}  # by size: good until, estimate
        self._departures: deque[tuple[int, bool]] = deque()  # left at, by the timer
        self._look_ns: int | None = None

    def __repr__(self) -> str:
        return f"<AimdBatching up to {self.size_cap}>"

    def inflight_limit(self) -> int:
        return self._max_inflight

    def choose(self, lanes: LaneTable, in_flight: int, now_ns: int) -> Decision:
        self._look(now_ns)
        lane = lanes.first()
        if lane is None or in_flight >= self._max_inflight:
            return None
        if lane.instances >= self.size_cap:
            return Flush(lane, self.size_cap, "full")
        due_ns = lane.listed_ns - lanes.slo_ns + int(self._timeout_ns(lane.instances + 1, now_ns))
        return lingering(lanes, lane, due_ns, self.size_cap, now_ns)

    def observe_dispatch(self, batch: Batch, now_ns: int) -> None:
        self._departures.append((now_ns, batch.reason == "deadline"))
        _forget(self._departures, now_ns - DEPARTURES_NS)

    def observe_outcome(self, batch: Batch, failure: Failure | None, now_ns: int) -> None:
        if failure is not None:
            return
        self._calls.append((now_ns, batch.sent, now_ns - batch.dispatched_ns))
        self._latencies.extend([(now_ns, now_ns - member.arrived_ns) for member in batch.members])

    def statistics(self) -> dict[str, float]:
        return {"size_cap": self.size_cap, "slots": self._max_inflight}

    def _timeout_ns(self, instances: int, now_ns: int) -> float:
        good_until_ns, estimate_ns = self._memo.get(instances, (0, 0.0))
        if now_ns >= good_until_ns:
            estimate_ns = self._estimate_ns(instances, now_ns)
            self._memo[instances] = (now_ns + MEMO_NS, estimate_ns)
        return max(self._objective_ns - max(estimate_ns, LEAST_NS), LEAST_NS)

    def _estimate_ns(self, instances: int, now_ns: int) -> float:
        """The 95th percentile of calls of this size; of the largest size there is, if there is none of this one."""
        _forget(self._calls, now_ns - WINDOW_NS)
        sizes = {size for _, size, _ in self._calls}
        if not sizes:
            return NO_DATA_NS
        size = instances if instances in sizes else max(sizes)
        return percentile_95([time_ns for _, of_size, time_ns in self._calls if of_size == size])

    def _look(self, now_ns: int) -> None:
        if self._look_ns is None:
            self._look_ns = now_ns + self._settings.interval_ns
        if now_ns < self._look_ns:
            return
        self._look_ns = now_ns + self._settings.interval_ns
        _forget(self._latencies, now_ns - WINDOW_NS)
        _forget(self._departures, now_ns - DEPARTURES_NS)
        if not self._latencies or not self._departures:
            return
        latency_ns = percentile_95([latency_ns for _, latency_ns in self._latencies])
        timer_share = sum([by_timer for _, by_timer in self._departures]) / len(self._departures)
        if latency_ns >= self._objective_ns or timer_share >= self._settings.timeout_ratio:
            self.size_cap = max(1, int(self.size_cap * self._settings.factor))
        else:
            self.size_cap = min(self._max_size, self.size_cap + self._settings.step)


def _forget(records: deque[Any], before_ns: int) -> None:
    """Drop what happened before then; each record begins with when it did."""
    while records and records[0][0] < before_ns:
        records.popleft()


def percentile_95(values: list[int]) -> float:
    """By the nearest rank; ``values`` has one at least."""
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]
