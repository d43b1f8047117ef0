"""Batches that will be sent again: retries, and halves of a batch that failed. **Pure.**

Halves come before retries, which have a pause to keep, and the smallest first: where few calls more may be made, the
next answer is nearest down one branch (`ExtraCallBudget`).
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from mlproxy.engine.events import Failure
from mlproxy.engine.request import Batch
from mlproxy.errors import ProxyError


class Again:
    """A heap of them. One for which nobody waits any more is dropped."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, Batch, Failure | ProxyError]] = []

    def __repr__(self) -> str:
        return f"<Again {len(self._heap)} batches>"

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Batch]:
        return (entry[3] for entry in self._heap)

    def push(self, batch: Batch, not_before_ns: int, otherwise: Failure | ProxyError) -> None:
        """Send ``batch`` again, at ``not_before_ns`` at the earliest; its members fail with ``otherwise`` if not."""
        heappush(self._heap, (not_before_ns, batch.instances, batch.id, batch, otherwise))

    @property
    def first(self) -> tuple[Batch, Failure | ProxyError]:
        """The next one, with what its members fail with otherwise; `next_ns` has said that there is one."""
        _, _, _, batch, otherwise = self._heap[0]
        return batch, otherwise

    def pop(self) -> None:
        """Take it out."""
        heappop(self._heap)

    @property
    def next_ns(self) -> int | None:
        """When the next one may leave; None: there is none."""
        while self._heap and not self._heap[0][3].live:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None
