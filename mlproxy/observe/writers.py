"""The hot path's counters: one object per endpoint and process, every place resolved beforehand. **Effects.**

They cost 0.75 CPU-µs per request in both processes together (bench/micro/hot_path.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from mlproxy.calls import FlushReason
from mlproxy.observe.catalogue import BY_NAME
from mlproxy.observe.page import MetricPage


class Histogram:
    """One histogram's words: a count per bucket, one for beyond, and the sum."""

    __slots__ = ("_beyond", "_buckets", "_first", "_words")

    def __init__(self, page: MetricPage, name: str, endpoint: int, *values: str) -> None:
        metric = BY_NAME[name]
        self._words = page.words
        self._buckets = metric.buckets
        self._first = page.layout.offset(name, endpoint) + metric.cells.index(values) * metric.words
        self._beyond = self._first + len(metric.buckets)

    def observe(self, amount: int) -> None:
        """Count one observation, in the unit of the buckets."""
        words = self._words
        words[self._first + bisect_left(self._buckets, amount)] += 1
        words[self._beyond + 1] += amount

    def observe_all(self, amounts: Sequence[int]) -> None:
        """Count many at once."""
        words, first, buckets = self._words, self._first, self._buckets
        for amount in amounts:
            words[first + bisect_left(buckets, amount)] += 1
        words[self._beyond + 1] += sum(amounts)


class Counters:
    """The words of a labelled counter or gauge."""

    __slots__ = ("_at", "_words")

    def __init__(self, page: MetricPage, name: str, endpoint: int | None) -> None:
        first = page.layout.offset(name, endpoint)
        self._words = page.words
        self._at = {cell: first + index for index, cell in enumerate(page.layout.cells(BY_NAME[name], endpoint))}

    def add(self, *values: str, amount: int = 1) -> None:
        """Count, in the cell with these label values."""
        self._words[self._at[values]] += amount

    def set(self, amount: int, *values: str) -> None:
        """Show."""
        self._words[self._at[values]] = amount


class IngressMetrics:
    """What an ingress worker counts about one endpoint."""

    def __init__(self, page: MetricPage, endpoint: int, slo_ns: int) -> None:
        self._words = page.words
        self._slo_ns = slo_ns
        offset = page.layout.offset
        self._status_0 = offset("requests_total", endpoint) - 100
        self._met = offset("slo_met_total", endpoint)
        self._missed = offset("slo_missed_total", endpoint)
        self._duration = Histogram(page, "request_duration_seconds", endpoint)
        self._cancelled = Counters(page, "cancelled_total", endpoint)
        self._shed = Counters(page, "shed_total", endpoint)

    def answered(self, status: int, durations_ns: Sequence[int]) -> None:
        """Callers got their responses, all with this status."""
        words, slo_ns, count = self._words, self._slo_ns, len(durations_ns)
        met = sum([duration_ns <= slo_ns for duration_ns in durations_ns]) if status < 500 else 0
        words[self._status_0 + status] += count
        words[self._met] += met
        words[self._missed] += count - met
        self._duration.observe_all(durations_ns)

    def cancelled(self) -> None:
        """A caller left before it was answered."""
        self._cancelled.add()

    def shed(self) -> None:
        """This worker holds as many bytes as it may."""
        self._shed.add("worker_full")


class BatcherMetrics:
    """What the batcher counts about one endpoint."""

    def __init__(self, page: MetricPage, endpoint: int) -> None:
        self._waits = Histogram(page, "queue_wait_seconds", endpoint)
        self._sizes = Histogram(page, "batch_size", endpoint)
        codes = BY_NAME["backend_duration_seconds"].cells
        self._durations = {code: Histogram(page, "backend_duration_seconds", endpoint, code) for (code,) in codes}
        self._batches = Counters(page, "batches_total", endpoint)
        self._instances = Counters(page, "instances_total", endpoint)
        self._retries = Counters(page, "retries_total", endpoint)
        self._isolated = Counters(page, "isolated_total", endpoint)
        self._coalesced = Counters(page, "coalesced_total", endpoint)
        self._verified = Counters(page, "verified_total", endpoint)
        self._unbatched_lanes = Counters(page, "unbatched_lanes", endpoint)
        self._shed = Counters(page, "shed_total", endpoint)
        self._healthy = Counters(page, "backend_healthy", endpoint)
        self._urls = page.layout.urls[endpoint]
        self._depth = Counters(page, "queue_depth", endpoint)
        self._bytes = Counters(page, "queue_bytes", endpoint)
        self._inflight = Counters(page, "backend_inflight", endpoint)
        self._max_size = Counters(page, "controller_max_size", endpoint)
        self._slots = Counters(page, "controller_slots", endpoint)
        self._service_time = Counters(page, "service_time_seconds", endpoint)

    def dispatched(self, reason: FlushReason, instances: int) -> None:
        """A batch left."""
        self._batches.add(reason)
        self._instances.add(amount=instances)
        self._sizes.observe(instances)

    def waited(self, waits_ns: Sequence[int]) -> None:
        """Members of a batch left the queue."""
        self._waits.observe_all(waits_ns)

    def backend_done(self, code: str, duration_ns: int) -> None:
        """A backend call ended, with an HTTP status or a kind of failure."""
        self._durations.get(code, self._durations["other"]).observe(duration_ns)

    def gauges(self, queue_depth: int, queue_bytes: int, inflight: int) -> None:
        """What waits and what is out, at the end of a turn."""
        self._depth.set(queue_depth)
        self._bytes.set(queue_bytes)
        self._inflight.set(inflight)

    def controller(self, max_size: int, slots: int) -> None:
        """What the policy goes by."""
        self._max_size.set(max_size)
        self._slots.set(slots)

    def expected(self, size: int, mean_ns: float, high_ns: float) -> None:
        """What the policy expects calls of a size in `EXPECTED_SIZES` to take."""
        self._service_time.set(int(mean_ns), str(size), "mean")
        self._service_time.set(int(high_ns), str(size), "high")

    def healthy(self, url: int, healthy: bool) -> None:
        """Connections to a URL succeed, or not."""
        self._healthy.set(int(healthy), self._urls[url])

    def retried(self, reason: str) -> None:
        """A batch was sent again."""
        self._retries.add(reason)

    def isolated(self, verdict: str) -> None:
        """A request was sent alone because its batch had failed."""
        self._isolated.add(verdict)

    def coalesced(self, instances: int) -> None:
        """So many need not be sent."""
        self._coalesced.add(amount=instances)

    def verified(self, verdict: str) -> None:
        """A request that had been answered from a batch was sent alone besides."""
        self._verified.add(verdict)

    def unbatched_lanes(self, count: int) -> None:
        """So many lanes do not batch."""
        self._unbatched_lanes.set(count)

    def rejected(self, slug: str) -> None:
        """The engine refused a request, or gave up waiting."""
        if slug == "overloaded":
            self._shed.add("queue_full")
        elif slug == "deadline-exceeded":
            self._shed.add("deadline")


class SupervisorMetrics:
    """What the supervisor counts."""

    def __init__(self, page: MetricPage) -> None:
        self._restarts = Counters(page, "worker_restarts_total", None)

    def restarted(self, role: str) -> None:
        """A process died, and another one takes its seat."""
        self._restarts.add(role)
