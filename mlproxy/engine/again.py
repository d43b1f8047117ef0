"""Batches that will be sent again: retries, and halves of a batch that failed. **Pure.**"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from mlproxy.engine.request import Batch


class Again:
    """A heap by the instant before which a batch is not to leave. One for which nobody waits any more is dropped."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Batch]] = []

    def __repr__(self) -> str:
        return f"<Again {len(self._heap)} batches>"

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Batch]:
        return (batch for _, _, batch in self._heap)

    def push(self, batch: Batch, not_before_ns: int) -> None:
        """Send ``batch`` again, at ``not_before_ns`` at the earliest."""
        heappush(self._heap, (not_before_ns, batch.id, batch))

    def pop(self) -> Batch:
        """Take the next one out; `next_ns` has said that there is one."""
        return heappop(self._heap)[2]

    @property
    def next_ns(self) -> int | None:
        """When the next one may leave; None: there is none."""
        while self._heap and not self._heap[0][2].live:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None
