"""Mean concurrency between two reports, weighted with time. **Pure.**"""

from __future__ import annotations


class ConcurrencyMeter:
    """How many things were under way on average since the last report (Knative's `RequestStats`)."""

    __slots__ = ("_area", "_changed_ns", "_reported_ns", "current")

    def __init__(self, now_ns: int) -> None:
        self.current = 0
        self._area = 0
        self._changed_ns = now_ns
        self._reported_ns = now_ns

    def __repr__(self) -> str:
        return f"<ConcurrencyMeter {self.current}>"

    def change(self, by: int, now_ns: int) -> None:
        """``by`` more are under way."""
        self._area += self.current * (now_ns - self._changed_ns)
        self._changed_ns = now_ns
        self.current += by

    def report(self, now_ns: int) -> float:
        """The mean since the last report; the next one starts here."""
        self.change(0, now_ns)
        elapsed_ns = now_ns - self._reported_ns
        mean = self._area / elapsed_ns if elapsed_ns else float(self.current)
        self._area = 0
        self._reported_ns = now_ns
        return mean
