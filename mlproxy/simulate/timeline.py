"""Virtual time: what happens when, in order. **Pure.**"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeAlias

Action: TypeAlias = Callable[[Any], None]


class Timeline:
    """A heap of actions; those of one instant happen in the order in which they were planned."""

    __slots__ = ("_next", "heap", "now_ns")

    def __init__(self) -> None:
        self.now_ns = 0
        self.heap: list[tuple[int, int, Action, Any]] = []
        self._next = count().__next__

    def __repr__(self) -> str:
        return f"<Timeline at {self.now_ns / 1e9:.3f} s: {len(self.heap)} to come>"

    def at(self, at_ns: int, action: Action, argument: Any = None) -> None:
        """Call ``action(argument)`` when it is ``at_ns``."""
        heappush(self.heap, (at_ns, self._next(), action, argument))

    def happen(self, now_ns: int) -> None:
        """Let everything happen that is planned until ``now_ns``."""
        heap = self.heap
        while heap and heap[0][0] <= now_ns:
            self.now_ns, _, action, argument = heappop(heap)
            action(argument)
        self.now_ns = now_ns


class Level:
    """A count whose mean over time is wanted."""

    __slots__ = ("_area", "_changed_ns", "_since_ns", "largest", "now")

    def __init__(self) -> None:
        self.now = self.largest = 0
        self._area = self._changed_ns = self._since_ns = 0

    def __repr__(self) -> str:
        return f"<Level {self.now}>"

    def change(self, by: int, now_ns: int) -> None:
        """Raise it by ``by``."""
        self._area += self.now * (now_ns - self._changed_ns)
        self._changed_ns = now_ns
        self.now += by
        if self.now > self.largest:
            self.largest = self.now

    def restart(self, now_ns: int) -> None:
        """Mean and largest are wanted from now on."""
        self.change(0, now_ns)
        self._area, self._since_ns, self.largest = 0, now_ns, self.now

    def mean(self, now_ns: int) -> float:
        """The mean since the restart."""
        self.change(0, now_ns)
        elapsed_ns = now_ns - self._since_ns
        return self._area / elapsed_ns if elapsed_ns else float(self.now)
