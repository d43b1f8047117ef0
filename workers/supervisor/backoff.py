"""How long to wait before a dead process is started again. **Pure.**"""

from __future__ import annotations

from mlproxy.units import NS_PER_MS, NS_PER_S

FIRST_PAUSE_NS = 100 * NS_PER_MS
#: While the batcher is away every caller waits, so even one that keeps dying is not kept away for long.
LONGEST_PAUSE_NS = 2 * NS_PER_S
#: A process that lived this long was well; its successor starts at once.
HEALTHY_AFTER_NS = 2 * NS_PER_S


class BackOff:
    """None after a healthy life; doubling from 0.1 s to 2 s while lives are short. The first death is free."""

    def __init__(self) -> None:
        self._short_lives = 0

    def pause_ns(self, lived_ns: int) -> int:
        """The pause after a process that lived ``lived_ns``."""
        if lived_ns >= HEALTHY_AFTER_NS:
            self._short_lives = 0
        self._short_lives += 1
        if self._short_lives == 1:
            return 0
        doublings = min(self._short_lives - 2, 30)
        return min(LONGEST_PAUSE_NS, FIRST_PAUSE_NS << doublings)
