"""The deadlines of requests that wait: whose has passed, and when is the next. **Pure.**"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from mlproxy.engine.request import Request, State

_COMPACT_FROM = 1024


class Deadlines:
    """A heap of queued requests whose callers set a deadline; one that left the queue stays until it is at the top."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Request]] = []
        self._compact_at = _COMPACT_FROM

    def __repr__(self) -> str:
        return f"<Deadlines of {len(self._heap)} requests, next at {self.next_ns}>"

    def __len__(self) -> int:
        return len(self._heap)

    def watch(self, request: Request) -> None:
        """``request`` waits until its deadline at most."""
        heap = self._heap
        heappush(heap, (request.deadline_ns, id(request), request))
        if len(heap) >= self._compact_at:
            # Those that left early stay until they reach the top, which under steady load with mixed deadlines may be
            # never: sweep them out whenever the heap has doubled.
            heap[:] = [entry for entry in heap if entry[2].state is State.QUEUED]
            heapify(heap)
            self._compact_at = max(_COMPACT_FROM, 2 * len(heap))

    def expired(self, now_ns: int) -> Iterator[Request]:
        """Take out every request that still waits and whose deadline has passed."""
        heap = self._heap
        while heap and (heap[0][0] <= now_ns or heap[0][2].state is not State.QUEUED):
            _, _, request = heappop(heap)
            if request.state is State.QUEUED:
                yield request

    @property
    def next_ns(self) -> int | None:
        """When the next one passes."""
        return self._heap[0][0] if self._heap else None
