"""Whether the backend is worth a full load: after failures in a row one call at a time asks. **Pure.**"""

from __future__ import annotations

from mlproxy.calls import GATEWAY_STATUSES
from mlproxy.engine.events import Failure
from mlproxy.units import NS_PER_S

FAILURES_TO_PROBE, PROBE_EVERY_NS = 5, NS_PER_S


class Breaker:
    """Counts failures that say nothing about the instances: nobody there, no answer, or a gateway's only.

    An answer of the server's own shows that it is there, whatever it says: of a 500 or of a broken contract one request
    may be the cause, and its caller, asking again and again, would slow down everybody.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._failed_ns = 0

    def __repr__(self) -> str:
        return f"<Breaker {'probing' if self.probing else 'closed'}: {self._failures} failures in a row>"

    @property
    def probing(self) -> bool:
        """One call at a time, one a second."""
        return self._failures >= FAILURES_TO_PROBE

    @property
    def next_probe_ns(self) -> int:
        """While probing: not before then."""
        return self._failed_ns + PROBE_EVERY_NS

    def observe(self, failure: Failure | None, now_ns: int, *, usual: bool) -> None:
        """A call ended. Not ``usual``: its members may be the cause of a failure, which then counts as none.

        While probing it is a probe like others, and so the next one has to wait.
        """
        if failure is None or _has_answered(failure):
            self._failures = 0
        elif usual or failure.kind == "connect" or self.probing:
            self._failures += 1
            self._failed_ns = now_ns


def _has_answered(failure: Failure) -> bool:
    return failure.kind == "contract" or (failure.kind == "status" and failure.status not in GATEWAY_STATUSES)
