"""Who of an endpoint goes alone: what lately made its batch fail, and lanes that do not batch. **Effects**: counts."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import cast

from mlproxy.engine import Batch, Failure, Part, may_be_one_members
from mlproxy.observe import BatcherMetrics
from workers.batcher.link import LinkedRequest
from workers.batcher.poison import PoisonTable


class UnbatchedLanes:
    """Lanes, by digests of their keys (which may be as large as a body), whose requests each go alone.

    Callers' words make lanes; beyond `MOST` that must not batch, none does.
    """

    MOST = 256

    def __init__(self) -> None:
        self._keys: set[bytes] = set()

    def __repr__(self) -> str:
        return f"<UnbatchedLanes {len(self._keys)}>"

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, lane_key: bytes) -> None:
        """No batches in this lane from now on."""
        if len(self._keys) < self.MOST:
            self._keys.add(_digest(lane_key))

    def holds(self, lane_key: bytes) -> bool:
        """Whether its requests go alone."""
        count = len(self._keys)
        return count > 0 and (count >= self.MOST or _digest(lane_key) in self._keys)

    def clear(self) -> int:
        """Batch in all of them again; how many they were."""
        count = len(self._keys)
        self._keys.clear()
        return count


def _digest(lane_key: bytes) -> bytes:
    return blake2b(lane_key, digest_size=16).digest()


class Apart:
    """Mostly nobody: `some` says so at the price of an attribute."""

    def __init__(self, metrics: BatcherMetrics) -> None:
        self.some = False  #: there may be somebody who goes alone
        self.poison = PoisonTable()
        self.unbatched = UnbatchedLanes()
        self._metrics = metrics
        self._timed_out_last = False

    def __repr__(self) -> str:
        return f"<Apart {self.poison!r}, {self.unbatched!r}>"

    def look(self, now_ns: int) -> None:
        """Forget what is over. To be called once a turn, if there are some."""
        self.poison.expire(now_ns)
        self.some = bool(self.poison or self.unbatched)

    def divide(self, arrivals: Sequence[LinkedRequest]) -> tuple[list[LinkedRequest], list[LinkedRequest]]:
        """Those that go alone, and the others."""
        alone: list[LinkedRequest] = []
        others: list[LinkedRequest] = []
        for request in arrivals:
            (alone if self._goes_alone(request) else others).append(request)
        return alone, others

    def _goes_alone(self, request: LinkedRequest) -> bool:
        request.remembered = self.poison.holds(request.lane_key, request.items)
        return request.remembered or self.unbatched.holds(request.lane_key)

    def stop_batching(self, lane_key: bytes) -> None:
        """No batches in this lane from now on."""
        self.unbatched.add(lane_key)
        self.some = True
        self._metrics.unbatched_lanes(len(self.unbatched))

    def resume_batching(self) -> int:
        """Batch in all lanes again; how many had stopped."""
        self._metrics.unbatched_lanes(0)
        return self.unbatched.clear()

    def observe(self, batch: Batch, failure: Failure | None, now_ns: int) -> None:
        """The call of ``batch`` ended."""
        timed_out = failure is not None and failure.kind == "timeout"
        if batch.sent == batch.members[0].count:  # one member, or several that are the same and were sent as one
            if batch.isolating or batch.reason == "alone":
                self._judge(batch, failure, now_ns)
        elif timed_out and not self._timed_out_last:
            self._remember(batch, now_ns)
        self._timed_out_last = timed_out

    def _remember(self, batch: Batch, now_ns: int) -> None:
        """One of its members may have taken all of the time: next time each goes alone, until it is answered.

        Of timeouts in a row the first only: in those of a backend that hangs, all who come again would be alone.
        """
        for member in batch.members:
            if not isinstance(member, Part):
                self.poison.add(member.lane_key, cast(LinkedRequest, member).items, now_ns)
                self.some = True

    def _judge(self, batch: Batch, failure: Failure | None, now_ns: int) -> None:
        """What ``batch`` sent went alone. If because a batch, its own or that of one like it, had failed: was
        it the cause? A failure that is not its own says nothing."""
        member = batch.members[0]
        request = cast(LinkedRequest, member.owner)
        if not batch.isolating and (isinstance(member, Part) or not request.remembered):
            return  # others of its request's parts are not like it, or its whole lane goes alone
        poison = failure is not None and may_be_one_members(failure)
        if failure is None or poison:
            self._metrics.isolated("poison" if poison else "cleared")
        if isinstance(member, Part):
            return
        if failure is None:
            self.poison.discard(request.lane_key, request.items)
        elif poison or (failure.kind == "timeout" and request.remembered):
            self.poison.add(request.lane_key, request.items, now_ns)
            self.some = True
