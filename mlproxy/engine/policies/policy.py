"""What a policy is asked and told. **Pure.**

A policy answers one question, `Policy.choose`, about the lanes that wait; the engine owns queues, calls, retries and
deadlines. Policies that learn also see what arrives, every dispatch and every outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol, TypeAlias

from mlproxy.calls import FlushReason
from mlproxy.engine.events import Failure
from mlproxy.engine.lane import Lane
from mlproxy.engine.lane_table import LaneTable
from mlproxy.engine.request import Batch


class Flush(NamedTuple):
    """Close a batch of ``lane`` now: at most ``size`` instances, and ``late_size`` of those that were put aside."""

    lane: Lane
    size: int
    reason: FlushReason
    late_size: int = 0


class WaitUntil(NamedTuple):
    """Nothing leaves before ``due_ns``, unless something happens."""

    due_ns: int


Decision: TypeAlias = Flush | WaitUntil | None


def lingering(lanes: LaneTable, lane: Lane, due_ns: int, size_cap: int, now_ns: int) -> Decision:
    """``lane``, the most urgent, is not full and leaves at ``due_ns``; until then another one does that is full.

    So neither kind starves the other.
    """
    if now_ns >= due_ns:
        return Flush(lane, size_cap, "deadline")
    full = lanes.full(size_cap)
    return WaitUntil(due_ns) if full is None else Flush(full, size_cap, "full")


class Policy(Protocol):
    """How one endpoint forms batches."""

    @property
    def name(self) -> str:
        """As in the configuration."""

    @property
    def size_cap(self) -> int:
        """Instances at which a lane is full and need not wait, whatever its age."""

    @property
    def split_size(self) -> int | None:
        """Requests of more instances are split into parts of at most this many; None: never split."""

    def inflight_limit(self) -> int:
        """Slots: calls that the backend may have at once."""

    def free_from_ns(self, in_flight: int, now_ns: int) -> int | None:
        """When a call that `choose` is not asked for may leave, or may be asked for again; None: when another ended."""

    def choose(self, lanes: LaneTable, in_flight: int, now_ns: int) -> Decision:
        """The next batch, or until when to wait; None when only an event can change anything."""

    def observe_arrivals(self, instances: int, now_ns: int) -> None:
        """So many instances were let in, at once."""

    def observe_dispatch(self, batch: Batch, now_ns: int) -> None:
        """``batch`` left."""

    def observe_outcome(self, batch: Batch, failure: Failure | None, now_ns: int) -> None:
        """The call of ``batch`` ended, with an answer if there is no ``failure``."""

    def observe_abort(self, batch: Batch, now_ns: int) -> None:
        """The call of ``batch`` was given up: nobody waits for it any more."""

    def observe_pods(self, ready: int) -> None:
        """Somebody who knows says how many pods the backend has."""

    def statistics(self) -> Mapping[str, float]:
        """State that explains the decisions."""


class Unlearning:
    """For policies that do not learn: whatever happens is nothing to them, and slots are all that calls need."""

    def inflight_limit(self) -> int:
        """Of the policy."""
        raise NotImplementedError

    def free_from_ns(self, in_flight: int, now_ns: int) -> int | None:
        """At once, if a slot is free."""
        return 0 if in_flight < self.inflight_limit() else None

    def observe_arrivals(self, instances: int, now_ns: int) -> None:
        """Nothing."""

    def observe_dispatch(self, batch: Batch, now_ns: int) -> None:
        """Nothing."""

    def observe_outcome(self, batch: Batch, failure: Failure | None, now_ns: int) -> None:
        """Nothing."""

    def observe_abort(self, batch: Batch, now_ns: int) -> None:
        """Nothing."""

    def observe_pods(self, ready: int) -> None:
        """Nothing."""
