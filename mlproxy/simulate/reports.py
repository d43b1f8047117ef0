"""What Knative's activator tells the autoscaler about the concurrency of a revision. **Pure.**"""

from __future__ import annotations

from mlproxy.engine.concurrency import ConcurrencyMeter


class ConcurrencyReports:
    """Reports on a revision that has calls; one that was idle for a whole period is forgotten.

    The first call of a forgotten revision is reported at once, so that a revision of no pods starts one at once, and is
    deducted from the next report.
    """

    def __init__(self) -> None:
        self.meter = ConcurrencyMeter(0)
        self._known = False
        self._reported_at_once = 0

    def __repr__(self) -> str:
        return f"<ConcurrencyReports {self.meter!r}, known {self._known}>"

    def first_call(self, now_ns: int) -> float | None:
        """A call is about to come: what to report at once, if anything."""
        if self._known:
            return None
        self._known, self._reported_at_once = True, 1
        self.meter.report(now_ns)  # the period begins here
        return 1.0

    def report(self, now_ns: int) -> float | None:
        """The mean since the last report; None: the revision is not known."""
        if not self._known:
            return None
        mean = self.meter.report(now_ns)
        deducted = max(0.0, mean - self._reported_at_once)
        self._reported_at_once = 0
        self._known = mean > 0
        return deducted
