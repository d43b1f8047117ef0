"""When a batch leaves and how large it is: the interface, and the two policies without a model. **Pure.**

A policy answers one question, `Policy.choose`, about the lanes that wait; the engine owns queues, calls, retries and
deadlines. Learning policies also see every dispatch and every outcome.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeAlias

from mlproxy.config import Batching
from mlproxy.engine.lane import Lane, LaneTable
from mlproxy.engine.request import Batch, FlushReason


class Flush(NamedTuple):
    """Close a batch of ``lane`` now, of at most ``size`` instances."""

    lane: Lane
    size: int
    reason: FlushReason


class WaitUntil(NamedTuple):
    """Waiting for company pays until ``due_ns``."""

    due_ns: int


Decision: TypeAlias = Flush | WaitUntil | None


class Policy(Protocol):
    """How one endpoint forms batches."""

    name: str
    #: Instances at which a lane is full and need not wait, whatever its age.
    size_cap: int
    #: Requests of more instances are split into parts of at most this many; None: never split.
    split_size: int | None

    def inflight_limit(self) -> int:
        """Slots: calls that the backend may have at once."""

    def choose(self, lanes: LaneTable, in_flight: int, now_ns: int) -> Decision:
        """The next batch, or how long waiting pays; None when only an event can change anything."""

    def observe_dispatch(self, batch: Batch, now_ns: int) -> None:
        """``batch`` left."""

    def observe_outcome(self, batch: Batch, succeeded: bool, now_ns: int) -> None:
        """The call of ``batch`` ended."""

    def observe_abort(self, batch: Batch) -> None:
        """The call of ``batch`` was given up: nobody waits for it any more."""

    def statistics(self) -> dict[str, float]:
        """State that explains the decisions."""


class StaticBatching:
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
        # The most urgent lane goes first when it is due, else one that is full: so neither kind starves the other.
        due_ns = lane.listed_ns - lanes.slo_ns + self._max_linger_ns
        if now_ns >= due_ns:
            return Flush(lane, size_cap, "deadline")
        full = lanes.full(size_cap)
        return WaitUntil(due_ns) if full is None else Flush(full, size_cap, "full")

    def observe_dispatch(self, batch: Batch, now_ns: int) -> None:
        pass

    def observe_outcome(self, batch: Batch, succeeded: bool, now_ns: int) -> None:
        pass

    def observe_abort(self, batch: Batch) -> None:
        pass

    def statistics(self) -> dict[str, float]:
        return {"max_size": self.size_cap, "max_linger_ns": self._max_linger_ns, "slots": self._max_inflight}


class NoBatching(StaticBatching):
    """Every request goes alone, whole, as soon as a slot is free."""

    name = "none"

    def __init__(self, max_inflight: int) -> None:
        super().__init__(max_size=1, max_linger_ns=0, max_inflight=max_inflight)
        self.split_size = None


def policy_for(batching: Batching, slots: int) -> Policy:
    """The policy that ``batching`` names; ``slots`` is what ``max_inflight: auto`` means for this backend."""
    max_inflight = slots if batching.max_inflight == "auto" else batching.max_inflight
    if batching.policy == "none":
        return NoBatching(max_inflight)
    return StaticBatching(batching.max_size, batching.max_linger_ns or 0, max_inflight)
