"""Reading pages: the same word of every process, added up. **Effects**: reads shared memory."""

from __future__ import annotations

from collections.abc import Sequence

from mlproxy.observe.catalogue import BY_NAME
from mlproxy.observe.page import MetricPage


class PageSum:
    """Several pages seen as one; of one endpoint, or (None) of the process metrics."""

    def __init__(self, pages: Sequence[MetricPage], endpoint: int | None = None) -> None:
        self._pages = pages
        self._layout = pages[0].layout
        self._endpoint = endpoint

    def count(self, name: str) -> int:
        """A metric without a label."""
        return self._word(self._layout.offset(name, self._endpoint))

    def counts(self, name: str) -> dict[str, int]:
        """A metric with one label: the count of each value."""
        return {value: count for (value,), count in self.cells(name).items()}

    def cells(self, name: str) -> dict[tuple[str, ...], int]:
        """A counter or gauge: the count of each combination of label values."""
        first = self._layout.offset(name, self._endpoint)
        cells = self._layout.cells(BY_NAME[name], self._endpoint)
        return {values: self._word(first + index) for index, values in enumerate(cells)}

    def histogram(self, name: str, *values: str) -> tuple[list[int], int]:
        """(count per bucket and one for beyond, sum in the unit of the buckets)."""
        metric = BY_NAME[name]
        first = self._layout.offset(name, self._endpoint) + metric.cells.index(values) * metric.words
        words = [self._word(first + index) for index in range(metric.words)]
        return words[:-1], words[-1]

    def quantile_ns(self, name: str, share: float) -> float | None:
        """Estimated as Prometheus' ``histogram_quantile`` does: evenly spread within a bucket."""
        counts, _ = self.histogram(name)
        bounds = BY_NAME[name].buckets
        rank = share * sum(counts)
        if not rank:
            return None
        below, lower = 0, 0
        for bound, count in zip(bounds, counts, strict=False):
            if below + count >= rank:
                return lower + (bound - lower) * (rank - below) / count
            below, lower = below + count, bound
        return float(bounds[-1])

    def _word(self, index: int) -> int:
        return sum([page.words[index] for page in self._pages])
