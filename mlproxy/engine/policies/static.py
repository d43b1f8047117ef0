"""The two policies without a model: every request alone, and a size with a linger. **Pure.**"""

from __future__ import annotations

from mlproxy.engine.lane_table import LaneTable
from mlproxy.engine.policies.policy import Decision, Flush, Unlearning, lingering


class StaticBatching(Unlearning):
    """Up to ``max_size`` instances, waiting at most ``max_linger_ns`` from the oldest request's arrival.

    With ``max_linger_ns`` 0 a batch leaves as soon as a slot is free, and grows only while all slots are busy. A
    request whose caller has less time than the objective allows lingers for that much less.
    """

    name = "static"

    def __init__(self, max_size: int, max_linger_ns: int, max_inflight: int) -> None:
        self.size_cap = max_size
        self.split_size: int | None = max_size
        self._max_linger_ns = max_linger_ns
        self._max_inflight = max_inflight

    def inflight_limit(self) -> int:
        return self._max_inflight

    def choose(self, lanes: LaneTable, in_flight: int, now_ns: int) -> Decision:
        size_cap = self.size_cap
        if in_flight >= self._max_inflight or (lane := lanes.first()) is None:
            return None
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
