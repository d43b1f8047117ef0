"""A simulated timeline that follows the clock. **Effects**: reads the clock, holds a timer."""

from __future__ import annotations

import time
from typing import Any

from bench.instant_timer import InstantTimer
from mlproxy.simulate.timeline import Action, Timeline

_NEVER_NS = 1 << 62


class Clock:
    """Lets what is planned on ``timeline`` happen when it is time.

    An action that is late happens at the instant for which it was planned, as far as the timeline knows: that a timer
    was late does not make a pod slower, and what is planned from there on is not later for it.
    """

    def __init__(self, timeline: Timeline) -> None:
        self.started_ns = time.monotonic_ns()
        self.late_ns: list[int] = []  #: by how much each alarm came too late
        self._timeline = timeline
        self._timer = InstantTimer(self._expired)
        self._armed_ns = _NEVER_NS
        self._closed = False
        self._arm()

    def __repr__(self) -> str:
        return f"<Clock {self.now_ns / 1e9:.3f} s after the start: {self._timeline!r}>"

    @property
    def now_ns(self) -> int:
        """Since the start."""
        return time.monotonic_ns() - self.started_ns

    def happen(self, action: Action, argument: Any, in_ns: int = 0) -> None:
        """Something came from outside: ``action(argument)`` happens now, or ``in_ns`` later."""
        if not self._closed:
            self._timeline.at(self.now_ns + in_ns, action, argument)
            self._advance()

    def close(self) -> None:
        """Nothing happens any more, whatever comes."""
        if not self._closed:
            self._closed = True
            self._timer.close()

    def _expired(self) -> None:
        self.late_ns.append(self.now_ns - self._armed_ns)
        self._armed_ns = _NEVER_NS
        self._advance()

    def _advance(self) -> None:
        self._timeline.happen(self.now_ns)
        self._arm()

    def _arm(self) -> None:
        heap = self._timeline.heap
        if heap and heap[0][0] < self._armed_ns:
            self._armed_ns = heap[0][0]
            self._timer.arm(self.started_ns + self._armed_ns)
