"""Pacing: time in the backend that may be spent without making the autoscaler want another pod. **Pure.**

A batch may leave before its latest instant only when the bucket holds what the call is expected to take. Its reply
settles the account with what it did take, so that over time the calls in flight average the refill rate, which is a
little less than what the autoscaler aims at for the pods that are needed anyway.
"""

from __future__ import annotations

#: How deep the bucket may go below zero, in capacities: late batches leave whatever it holds.
FLOOR = -4.0


class Tokens:
    """Nanoseconds of calls in flight, refilled with time."""

    def __init__(self) -> None:
        self.value_ns = 0.0
        self.capacity_ns = 0.0
        self.rate = 0.0  #: of the refill, ns per ns
        self._at_ns = -1  # not yet

    def __repr__(self) -> str:
        return f"<Tokens {self.value_ns / 1e6:.1f} of {self.capacity_ns / 1e6:.1f} ms>"

    def resize(self, rate: float, capacity_ns: float) -> None:
        """From the last `advance` on refill with ``rate``, up to ``capacity_ns``."""
        self.rate = rate
        self.capacity_ns = capacity_ns
        self.value_ns = min(capacity_ns, self.value_ns)

    def advance(self, now_ns: int) -> None:
        """Refill up to ``now_ns``; the first time the bucket is full."""
        if self._at_ns < 0:
            self.value_ns = self.capacity_ns
        elif now_ns > self._at_ns:
            self.value_ns = min(self.capacity_ns, self.value_ns + self.rate * (now_ns - self._at_ns))
        self._at_ns = now_ns

    def spend(self, amount_ns: float) -> None:
        """A call left that is expected to take ``amount_ns``; negative: it took less than expected."""
        self.value_ns = min(self.capacity_ns, max(FLOOR * self.capacity_ns, self.value_ns - amount_ns))
