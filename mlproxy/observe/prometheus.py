"""The pages as Prometheus metrics. **Effects**: reads shared memory, asks the system about processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import psutil
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)  # fmt: skip
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.registry import Collector

from mlproxy.observe.catalogue import METRICS, PROCESS_METRICS, Metric
from mlproxy.observe.page import MetricPage
from mlproxy.observe.reading import PageSum

PREFIX = "mlproxy_"


class PageCollector(Collector):
    """Adds the pages up at every scrape."""

    def __init__(self, endpoints: Sequence[str], pages: Mapping[str, MetricPage]) -> None:
        self._endpoints = endpoints
        self._pages = pages

    def describe(self) -> list[Family]:
        """Nothing beforehand: the registry has no other collector to clash with."""
        return []

    def collect(self) -> Iterator[Family]:
        """Every family of the catalogue, then the processes."""
        pages = list(self._pages.values())
        totals = [PageSum(pages, index) for index in range(len(self._endpoints))]
        for metric in METRICS:
            yield self._family(metric, totals)
        restarts = PROCESS_METRICS[0]
        family = CounterMetricFamily(
            PREFIX + restarts.name, restarts.help, labels=[label.name for label in restarts.labels]
        )
        for role, count in PageSum([self._pages["supervisor"]]).counts(restarts.name).items():
            family.add_metric([role], count)
        yield family
        yield from self._processes()

    def _family(self, metric: Metric, totals: Sequence[PageSum]) -> Family:
        labels = ["endpoint", *(label.name for label in metric.labels)]
        name = PREFIX + metric.name
        if metric.kind == "histogram":
            return self._histogram(metric, HistogramMetricFamily(name, metric.help, labels=labels), totals)
        make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = make(name, metric.help, labels=labels)
        for endpoint, total in zip(self._endpoints, totals, strict=True):
            for values, count in total.cells(metric.name).items():
                if count or not metric.sparse:
                    family.add_metric([endpoint, *values], count / metric.scale)
        return family

    def _histogram(
        self, metric: Metric, family: HistogramMetricFamily, totals: Sequence[PageSum]
    ) -> HistogramMetricFamily:
        bounds = [f"{bound / metric.scale:g}" for bound in metric.buckets]
        for endpoint, total in zip(self._endpoints, totals, strict=True):
            for values in metric.cells:
                counts, amount = total.histogram(metric.name, *values)
                if sum(counts) or not metric.sparse:
                    buckets = list(zip([*bounds, "+Inf"], accumulate(counts), strict=True))
                    family.add_metric([endpoint, *values], buckets, amount / metric.scale)
        return family

    def _processes(self) -> Iterator[Family]:
        cpu = CounterMetricFamily(PREFIX + "process_cpu_seconds_total", "CPU time of a process.", labels=["process"])
        memory = GaugeMetricFamily(PREFIX + "process_resident_memory_bytes", "Resident memory.", labels=["process"])
        files = GaugeMetricFamily(PREFIX + "process_open_fds", "Open descriptors.", labels=["process"])
        start = GaugeMetricFamily(PREFIX + "process_start_time_seconds", "Start, as Unix time.", labels=["process"])
        for name, page in self._pages.items():
            try:
                process = psutil.Process(page.pid)
                times = process.cpu_times()
                cpu.add_metric([name], times.user + times.system)
                memory.add_metric([name], process.memory_info().rss)
                files.add_metric([name], process.num_fds())
                start.add_metric([name], process.create_time())
            except psutil.NoSuchProcess:
                continue  # between a death and its successor
        yield from (cpu, memory, files, start)
