"""Which processes are stuck: running, and doing nothing. **Pure.**

A heartbeat is the time of a loop's last turn, written by that loop; so a process that is stopped, deadlocked or busy in
one callback is found out, whatever its other threads do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from mlproxy.units import NS_PER_S


class Verdict(Enum):
    """What is to be done about a process."""

    WELL = "leave it"
    SILENT = "say so"
    HUNG = "kill it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long is too long."""

    silent_ns: int = 5 * NS_PER_S
    #: A loop that has not turned for this long is stuck, and everybody waits for it: its successor serves them sooner.
    #: Three times the warning, and beyond any pause that a loaded or throttled machine makes.
    hung_ns: int = 15 * NS_PER_S
    #: For the first turn. A start takes 0.5 s of CPU, and four of them at a tenth of a CPU 20 s.
    start_ns: int = 60 * NS_PER_S


@dataclass(slots=True)
class Liveness:
    """Judges one process after the other, as often as somebody looks."""

    patience: Patience
    _looked_ns: int = 0
    _awake_since_ns: int = 0
    _silent: set[str] = field(default_factory=set)

    def look(self, now_ns: int) -> None:
        """Begin a round of judgements. After a long gap the whole container was frozen: nobody could turn."""
        if now_ns - self._looked_ns > self.patience.silent_ns:
            self._awake_since_ns = now_ns
        self._looked_ns = now_ns

    def judge_ready(self, name: str, heartbeat_ns: int) -> Verdict:
        """Of a process that has been ready. It is silent once per silence, and hung as long as it is."""
        silent_ns = self._looked_ns - max(heartbeat_ns, self._awake_since_ns)
        if silent_ns <= self.patience.silent_ns:
            self._silent.discard(name)
            return Verdict.WELL
        if silent_ns > self.patience.hung_ns:
            return Verdict.HUNG
        if name in self._silent:
            return Verdict.WELL
        self._silent.add(name)
        return Verdict.SILENT

    def judge_starting(self, started_ns: int) -> Verdict:
        """Of a process that has not been ready yet."""
        starting_ns = self._looked_ns - max(started_ns, self._awake_since_ns)
        return Verdict.HUNG if starting_ns > self.patience.start_ns else Verdict.WELL
