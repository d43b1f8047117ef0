"""What an open-loop load is, and what became of it. **Pure.**"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from mlproxy.units import NS_PER_MS, NS_PER_S

#: Why a request failed, beside the status codes of answers that were not 2xx.
NOT_CONNECTED = "not connected"
CONNECTION_CLOSED = "connection closed"
BAD_RESPONSE = "bad response"
NO_ANSWER_IN_TIME = "no answer in time"
NOT_SENT = "not sent: too many outstanding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to send. Bodies are taken in turn."""

    url: str
    bodies: Sequence[bytes]
    rate_per_s: float
    duration_s: float
    answer_within_s: float = 5.0  #: how long to wait for answers after the last request was due
    max_outstanding: int = 4096  #: one connection each
    seed: int = 1


@dataclass(slots=True, kw_only=True)
class Result:
    """What became of the requests that were due. ``due = answered + failed + outstanding``, at any time."""

    due: int = 0
    sent: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    latencies_ns: list[int] = field(default_factory=list)  #: of the answered ones (2xx), from the instant they were due
    elapsed_ns: int = 0  #: from the start to the last answer, or to when the waiting ended

    @property
    def answered(self) -> int:
        """Requests with a 2xx answer."""
        return len(self.latencies_ns)

    @property
    def answered_per_s(self) -> float:
        """Throughput."""
        return self.answered * NS_PER_S / self.elapsed_ns if self.elapsed_ns else 0.0

    def percentile_ms(self, percent: float) -> float | None:
        """The latency that ``percent`` of the due requests kept to. None: so many were not answered at all."""
        rank = max(1, math.ceil(self.due * percent / 100))
        return sorted(self.latencies_ns)[rank - 1] / NS_PER_MS if rank <= self.answered else None

    def share_within(self, limit_ns: int) -> float:
        """The share of the due requests that were answered within ``limit_ns``."""
        return sum(latency_ns <= limit_ns for latency_ns in self.latencies_ns) / self.due if self.due else 0.0

    def summary(self) -> dict[str, object]:
        """For JSON."""
        percentiles = {f"p{percent:g}_ms": self.percentile_ms(percent) for percent in (50, 90, 95, 99, 99.9)}
        return {
            "due": self.due, "sent": self.sent, "answered": self.answered, "failed": dict(self.failed),
            "answered_per_s": round(self.answered_per_s, 3), **percentiles,
        }  # fmt: skip
