"""Queue bounds and the drain rate: what may still be let in, and when to come back. **Pure.**"""

from __future__ import annotations

import math

from mlproxy.errors import BodyTooLarge, Overloaded, ProxyError
from mlproxy.units import NS_PER_S

#: Time constant of the drain-rate average: long enough to span several batches of a slow model, short enough that
#: `Retry-After` follows a backend that scales.
DRAIN_RATE_TAU_NS = 10 * NS_PER_S
RETRY_AFTER_BOUNDS_S = (1, 30)
#: Share of each bound that those who go alone may take: they go one by one, and whoever sends what makes batches fail
#: as fast as possible must not fill the queue for all others.
ALONE_SHARE = 0.5


class DrainRate:
    """Exponentially weighted instances per second leaving through answers."""

    def __init__(self) -> None:
        self._per_ns = 0.0
        self._updated_ns: int | None = None

    def record(self, instances: int, now_ns: int) -> None:
        """Count ``instances`` answered at ``now_ns``."""
        if self._updated_ns is not None:
            self._per_ns *= math.exp((self._updated_ns - now_ns) / DRAIN_RATE_TAU_NS)
        self._per_ns += instances / DRAIN_RATE_TAU_NS
        self._updated_ns = now_ns

    def retry_after_s(self, waiting: int, now_ns: int) -> int:
        """Whole seconds until ``waiting`` instances will have left, within `RETRY_AFTER_BOUNDS_S`."""
        shortest, longest = RETRY_AFTER_BOUNDS_S
        if self._updated_ns is None:
            return shortest
        per_ns = self._per_ns * math.exp((self._updated_ns - now_ns) / DRAIN_RATE_TAU_NS)
        if waiting >= longest * NS_PER_S * per_ns:  # nothing may remain of the rate to divide by
            return longest
        return max(shortest, math.ceil(waiting / (per_ns * NS_PER_S)))


class QueueBounds:
    """How much may wait, shared by every endpoint of one batcher. A request in flight no longer waits."""

    def __init__(self, max_instances: int, max_bytes: int) -> None:
        self.max_instances = max_instances
        self.max_bytes = max_bytes
        self.instances = 0
        self.size_bytes = 0
        self.alone_instances = 0  #: of those who go alone
        self.alone_bytes = 0

    def __repr__(self) -> str:
        return (
            f"<QueueBounds {self.instances}/{self.max_instances} instances, {self.size_bytes}/{self.max_bytes} bytes>"
        )

    def take(self, count: int, size_bytes: int) -> bool:
        """Count ``count`` more instances in, if they may wait."""
        if self.instances + count > self.max_instances or self.size_bytes + size_bytes > self.max_bytes:
            return False
        self.instances += count
        self.size_bytes += size_bytes
        return True

    def alone_may_wait(self, count: int, size_bytes: int) -> bool:
        """Whether those who go alone may be so many more. One may always, whatever its size."""
        if not self.alone_instances:
            return True
        return (
            self.alone_instances + count <= ALONE_SHARE * self.max_instances
            and self.alone_bytes + size_bytes <= ALONE_SHARE * self.max_bytes
        )

    def count_alone(self, count: int, size_bytes: int) -> None:
        """So many more of those that were taken, or with a minus released, go alone."""
        self.alone_instances += count
        self.alone_bytes += size_bytes

    def refusal(self, count: int, size_bytes: int, drain: DrainRate, now_ns: int) -> ProxyError:
        """Why `take` said no: come back later, or never."""
        if count > self.max_instances:
            return BodyTooLarge(f"{count} instances in one request; limits.queue_instances is {self.max_instances}")
        if size_bytes > self.max_bytes:
            return BodyTooLarge(f"{size_bytes} bytes in one request; limits.queue_bytes is {self.max_bytes}")
        if self.instances + count > self.max_instances:
            detail = f"{self.instances} instances are waiting; limits.queue_instances is {self.max_instances}"
        else:
            detail = f"{self.size_bytes} bytes are waiting; limits.queue_bytes is {self.max_bytes}"
        return Overloaded(detail, retry_after_s=drain.retry_after_s(self.instances, now_ns))

    def release(self, count: int, size_bytes: int) -> None:
        """These instances no longer wait."""
        self.instances -= count
        self.size_bytes -= size_bytes
