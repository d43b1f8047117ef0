"""What an ingress worker keeps of its callers' requests, counted against its share of ``limits.queue_bytes``. **Pure.**

Invariant: a prediction that was admitted stays in ``unanswered``, with its items, until it has been answered or its
caller has left. And every byte of a body that is kept beyond the read that brought it is in ``size_bytes``: coming in,
waiting for its turn or its answer, or standing in the backlog although its caller has left.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from mlproxy.errors import Overloaded

if TYPE_CHECKING:
    from workers.ingress.cycle import PredictCycle


class Retained:
    """The predictions that the batcher owes an answer, and the memory of these and of those still coming in."""

    __slots__ = ("_leaving", "_max_bytes", "size_bytes", "unanswered")

    def __init__(self, max_bytes: int) -> None:
        self.unanswered: dict[int, PredictCycle] = {}  #: by their ids in the ring
        self.size_bytes = 0
        self._max_bytes = max_bytes
        #: Of callers that left: the end of their request in the backlog, and the bytes to give back once it is there.
        self._leaving: deque[tuple[int, int]] = deque()

    def __repr__(self) -> str:
        return f"<Retained {len(self.unanswered)} unanswered, {self.size_bytes} bytes>"

    def hold(self, cycle: PredictCycle) -> None:
        """Count what has come of a body that cannot be sent yet; `Overloaded` when too many bytes are kept already."""
        self.keep(cycle, cycle.received_bytes)

    def keep(self, cycle: PredictCycle, size_bytes: int) -> None:
        """``cycle`` keeps so many bytes from now on; `Overloaded` when too many are kept already."""
        total_bytes = self.size_bytes - cycle.retained_bytes + size_bytes
        if total_bytes > self._max_bytes:
            detail = f"{self.size_bytes} bytes of requests are waiting in this worker"
            raise Overloaded(detail, retry_after_s=1)
        self.size_bytes = total_bytes
        cycle.retained_bytes = size_bytes

    def release(self, cycle: PredictCycle) -> None:
        """The body of ``cycle``, which was not admitted, is dropped."""
        self.size_bytes -= cycle.retained_bytes
        cycle.retained_bytes = 0

    def forget(self, ring_id: int) -> PredictCycle | None:
        """A prediction has been answered or its caller has left; None when it is not known any more."""
        cycle = self.unanswered.pop(ring_id, None)
        if cycle is not None:
            self.size_bytes -= cycle.retained_bytes
            cycle.retained_bytes = 0
            cycle.parsed = None
        return cycle

    def leave_behind(self, size_bytes: int, backlog_end: int) -> None:
        """A body stays in the backlog, before ``backlog_end``, though its caller has left: memory until it is sent."""
        self.size_bytes += size_bytes
        self._leaving.append((backlog_end, size_bytes))

    def give_back(self, backlog_start: int) -> None:
        """What was left behind in the backlog before ``backlog_start`` is in the ring, no memory of this process."""
        while self._leaving and self._leaving[0][0] <= backlog_start:
            self.size_bytes -= self._leaving.popleft()[1]
