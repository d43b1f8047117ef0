"""The two policies without a model: every request alone, and a size with a linger. **Pure.**"""

from __future__ import annotations

from mlproxy.engine.lane import Lane
from mlproxy.engine.lane_table import LaneTable
from mlproxy.engine.policies.policy import Decision, Flush, Unlearning, lingering

#: Beside urgent requests that can still be in time, who is late already gets one batch in so many.
LATE_EVERY = 4


class StaticBatching(Unlearning):
    """Up to ``max_size`` instances, waiting at most ``max_linger_ns`` from the oldest request's arrival.

    With ``max_linger_ns`` 0 a batch leaves as soon as a slot is free, and grows only while all slots are busy. A
    request whose caller has less time than the objective allows lingers for that much less, and so does an urgent one.
    While there are urgent ones, those that are late already stand back, or in an overload that lasts nobody would be in
    time (ADR 8).
    """

    name = "static"

    def __init__(self, max_size: int, max_linger_ns: int, max_inflight: int) -> None:
        self.size_cap = max_size
        self.split_size: int | None = max_size
        self._max_linger_ns = max_linger_ns
        self._max_inflight = max_inflight
        self._in_time = 0  # batches in a row that were not for those who are late

    def inflight_limit(self) -> int:
        return self._max_inflight

    def choose(self, lanes: LaneTable, in_flight: int, now_ns: int) -> Decision:
        if in_flight >= self._max_inflight:
            return None
        urgent = now_ns < lanes.urgent_until_ns
        if urgent:
            lanes.put_aside(lambda member, late_from_ns, behind: late_from_ns <= now_ns)
        late, lane = lanes.late(), lanes.first()
        if late is not None and (lane is None or not urgent or self._in_time >= LATE_EVERY - 1):
            self._in_time = 0
            return Flush(late, 0, "late", self.size_cap)
        if lane is None:
            return None
        decision = self._choose_in_time(lanes, lane, in_flight, now_ns)
        if urgent and isinstance(decision, Flush):
            self._in_time += 1
            return decision._replace(late_size=max(0, self.size_cap - decision.lane.instances))
        return decision

    def _choose_in_time(self, lanes: LaneTable, lane: Lane, in_flight: int, now_ns: int) -> Decision:
        size_cap = self.size_cap
        if lane.instances >= size_cap:
            return Flush(lane, size_cap, "full")
        if self._max_linger_ns == 0:
            return Flush(lane, size_cap, "slot" if in_flight else "idle")
        due_ns = lane.listed_ns - lanes.slo_ns + self._max_linger_ns
        return lingering(lanes, lane, due_ns, size_cap, now_ns)

    def statistics(self) -> dict[str, float]:
        return {"size_cap": self.size_cap, "max_linger_ns": self._max_linger_ns, "slots": self._max_inflight}


class NoBatching(StaticBatching):
    """Every request goes alone, whole, as soon as a slot is free."""

    name = "none"

    def __init__(self, max_inflight: int) -> None:
        super().__init__(max_size=1, max_linger_ns=0, max_inflight=max_inflight)
        self.split_size = None
