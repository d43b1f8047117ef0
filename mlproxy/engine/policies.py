"""When a lane's batch leaves and how large it is: the interface, and the two policies without a model. **Pure.**

A policy answers one question, `decide`, about one lane while a slot is free; the engine owns queues, slots, retries
and deadlines. Learning policies also see every dispatch and every outcome through `observe_dispatch` and
`observe_outcome`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeAlias

from mlproxy.config import Batching
from mlproxy.engine.lane import Lane
from mlproxy.engine.request import Batch


class Flush(NamedTuple):
    """Close a batch now, of at most ``size`` instances."""

    size: int
    reason: str


class WaitUntil(NamedTuple):
    """Waiting for company pays until ``due_ns``."""

    due_ns: int


Decision: TypeAlias = Flush | WaitUntil


class Policy(Protocol):
    """How one endpoint forms batches.

    ``decide`` must be monotone: of two lanes below the cap, the one whose head arrived first is due no later. The
    engine relies on it to ask only the oldest lane and those at the cap.
    """

    name: str
    #: Instances at which a lane is full and need not wait, whatever its age.
    size_cap: int
    #: Requests of more instances are split into parts of at most this many; None: never split.
    split_size: int | None

    def inflight_limit(self) -> int:
        """Slots: calls that the backend may have at once."""

    def decide(self, lane: Lane, inflight: int, now_ns: int) -> Decision:
        """What to do about ``lane``, which is not empty, while a slot is free."""

    def observe_dispatch(self, batch: Batch, now_ns: int) -> None:
        """``batch`` left."""

    def observe_outcome(self, batch: Batch, succeeded: bool, now_ns: int) -> None:
        """The call of ``batch`` ended."""

    def statistics(self) -> dict[str, float]:
        """State that explains the decisions."""


class StaticBatching:
    """Up to ``max_size`` instances, waiting at most ``max_linger_ns`` from the oldest request's arrival.

    With ``max_linger_ns`` 0 a batch leaves as soon as a slot is free, and grows only while all slots are busy.
    """

    name = "static"

    def __init__(self, max_size: int, max_linger_ns: int, max_inflight: int) -> None:
        self.size_cap = max_size
        self.split_size: int | None = max_size
        self._max_linger_ns = max_linger_ns
        self._max_inflight = max_inflight

    def inflight_limit(self) -> int:
        return self._max_inflight

    def decide(self, lane: Lane, inflight: int, now_ns: int) -> Decision:
        if lane.instances >= self.size_cap:
            return Flush(self.size_cap, "full")
        if self._max_linger_ns == 0:
            return Flush(self.size_cap, "slot" if inflight else "idle")
        head = lane.head
        assert head is not None
        due_ns = head.arrived_ns + self._max_linger_ns
        return Flush(self.size_cap, "deadline") if now_ns >= due_ns else WaitUntil(due_ns)

    def observe_dispatch(self, batch: Batch, now_ns: int) -> None:
        pass

    def observe_outcome(self, batch: Batch, succeeded: bool, now_ns: int) -> None:
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
