"""Callers that wait for their answers before they send again: a closed loop. **Pure.**

The paper's client has 300 threads. What should be sent while all of them wait is sent, in order, when one has its
answer, so an overloaded proxy sees less traffic than the trace says, and the wait in the client is not measured.
"""

from __future__ import annotations

from collections import deque


class Callers:
    """At most so many requests are outstanding; the others are held back."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._held: deque[int] = deque()

    def __repr__(self) -> str:
        return f"<Callers: {self._free} free, {len(self._held)} requests held back>"

    @property
    def held(self) -> int:
        """Requests that nobody is free to send."""
        return len(self._held)

    def take(self, request_id: int) -> bool:
        """A request is due. Whether somebody sends it now; else it is held back."""
        if self._free:
            self._free -= 1
            return True
        self._held.append(request_id)
        return False

    def answered(self, requests: int) -> list[int]:
        """So many have their answers. The requests to send now, in the order in which they were due."""
        sent = [self._held.popleft() for _ in range(min(requests, len(self._held)))]
        self._free += requests - len(sent)
        return sent
