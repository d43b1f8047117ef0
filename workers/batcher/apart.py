"""Who of an endpoint goes alone: what lately made its batch fail, and lanes that do not batch. **Effects**: counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from mlproxy.engine import Batch, Failure, Part, may_be_one_members
from mlproxy.observe import BatcherMetrics
from workers.batcher.link import LinkedRequest
from workers.batcher.poison import PoisonTable


class UnbatchedLanes:
    """Lanes, by their keys, whose requests each go alone.

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
            self._keys.add(lane_key)

    def holds(self, lane_key: bytes) -> bool:
        """Whether its requests go alone."""
        return lane_key in self._keys or len(self._keys) >= self.MOST

    def clear(self) -> int:
        """Batch in all of them again; how many they were."""
        count = len(self._keys)
        self._keys.clear()
        return count


class Apart:
    """Mostly nobody: `some` says so at the price of an attribute."""

    def __init__(self, metrics: BatcherMetrics) -> None:
        self.some = False  #: there may be somebody who goes alone
        self.poison = PoisonTable()
        self.unbatched = UnbatchedLanes()
        self._metrics = metrics

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
        return self.unbatched.holds(request.lane_key) or self.poison.holds(request.lane_key, request.items)

    def stop_batching(self, lane_key: bytes) -> None:
        """No batches in this lane from now on."""
        self.unbatched.add(lane_key)
        self.some = True
        self._metrics.unbatched_lanes(len(self.unbatched))

    def resume_batching(self) -> int:
        """Batch in all lanes again; how many had stopped."""
        self._metrics.unbatched_lanes(0)
        return self.unbatched.clear()

    def judge(self, batch: Batch, failure: Failure | None, now_ns: int) -> None:
        """The one member of ``batch`` went alone. If because a batch, its own or that of one like it, had failed: was
        it the cause?"""
        member = batch.members[0]
        if isinstance(member, Part):
            if batch.isolating:  # others of its request's parts are not like it
                self._metrics.isolated("cleared" if failure is None else "poison")
            return
        request = cast(LinkedRequest, member)
        if not batch.isolating and not self.poison.holds(request.lane_key, request.items):
            return  # it went alone because its whole lane does
        self._metrics.isolated("cleared" if failure is None else "poison")
        if failure is None:
            self.poison.discard(request.lane_key, request.items)
        elif may_be_one_members(failure):
            self.poison.add(request.lane_key, request.items, now_ns)
            self.some = True
