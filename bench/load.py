"""What an open-loop load is, and what became of it. **Pure.**"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mlproxy.simulate.arrivals import Poisson, arrivals_ns
from mlproxy.units import NS_PER_MS, NS_PER_S

#: Why a request failed, beside the status codes of answers that were not 2xx.
NOT_CONNECTED = "not connected"
CONNECTION_CLOSED = "connection closed"
BAD_RESPONSE = "bad response"
NO_ANSWER_IN_TIME = "no answer in time"
NOT_SENT = "not sent: too many outstanding"


def poisson_ns(rate_per_s: float, duration_s: float, seed: int = 1) -> list[int]:
    """When requests are due that come at random instants, ``rate_per_s`` on average."""
    due_ns: list[int] = arrivals_ns(
        Poisson(rate_per_s), int(duration_s * NS_PER_S), np.random.default_rng(seed)
    ).tolist()
    return due_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to send. Bodies are taken in turn."""

    url: str
    bodies: Sequence[bytes]
    due_ns: Sequence[int]  #: from the start, in order
    answer_within_s: float = 5.0  #: how long to wait for answers after the last request was due
    max_outstanding: int = 4096  #: one connection each


@dataclass(slots=True, kw_only=True)
class Result:
    """What became of the requests that were due. ``due = answered + failed + outstanding``, at any time."""

    due: int = 0
    sent: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    latencies_ns: list[int] = field(default_factory=list)  #: of the answered ones (2xx), from the instant they were due
    answered_numbers: list[int] = field(default_factory=list)  #: whose latencies these are: 0 was due first
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
