"""The deadlines of requests that wait: whose has passed, and when is the next. **Pure.**"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from mlproxy.engine.request import Request

_COMPACT_FROM = 1024


class Deadlines:
    """A heap of waiting requests whose callers set a deadline; one that waits no more stays until it is at the top."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Request]] = []
        self._pushed = 0  # makes entries comparable without comparing requests
        self._compact_at = _COMPACT_FROM

    def __repr__(self) -> str:
        return f"<Deadlines of {len(self._heap)} requests, next at {self.next_ns}>"

    def __len__(self) -> int:
        return len(self._heap)

    def watch(self, request: Request) -> None:
        """``request`` waits until its deadline at most."""
        heap = self._heap
        self._pushed += 1
        heappush(heap, (request.deadline_ns, self._pushed, request))
        if len(heap) >= self._compact_at:
            # Those that left early stay until they reach the top, which under steady load with mixed deadlines may be
            # never: sweep them out whenever the heap has doubled.
            heap[:] = [entry for entry in heap if entry[2].waits]
            heapify(heap)
            self._compact_at = max(_COMPACT_FROM, 2 * len(heap))

    def expired(self, now_ns: int) -> Iterator[Request]:
        """Take out every request that still waits and whose deadline has passed."""
        heap = self._heap
        while heap and (heap[0][0] <= now_ns or not heap[0][2].waits):
            _, _, request = heappop(heap)
            if request.waits:
                yield request

    @property
    def next_ns(self) -> int | None:
        """When the next one passes."""
        return self._heap[0][0] if self._heap else None
