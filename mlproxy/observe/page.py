"""One process's counters in shared memory. **Effects.**

The supervisor makes one page per seat (an anonymous memfd) and passes it to every process that fills the seat, so a
successor goes on counting where its predecessor was killed. Every word has one writer at a time and is eight bytes,
aligned: a reader sees the old value or the new one, never a mixture; no lock, no file, nothing lost with a process.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING

from mlproxy.observe.catalogue import METRICS, PROCESS_METRICS, URL, Metric

if TYPE_CHECKING:
    from mlproxy.config import Configuration

WORD_BYTES = 8
_PID, _STARTED, _HEARTBEAT, _STATE = range(4)
_HEADER_WORDS = 8


class PageState(IntEnum):
    """How far a process has come."""

    EMPTY = 0
    STARTING = 1
    READY = 2
    DRAINING = 3
    DRAINED = 4  #: everybody has been answered; all that is left to do is to exit


@dataclass(frozen=True)
class PageLayout:
    """Where each metric stands; the same in every page of a running proxy."""

    urls: tuple[tuple[str, ...], ...]  #: per endpoint, in order

    @classmethod
    def of(cls, configuration: Configuration) -> PageLayout:
        """Fixed by the endpoints and their backend URLs."""
        return cls(tuple(endpoint.backend.urls for endpoint in configuration.endpoints))

    def cells(self, metric: Metric, endpoint: int | None = None) -> tuple[tuple[str, ...], ...]:
        """The label values of each cell of ``metric``."""
        return _cells(metric, () if endpoint is None else self.urls[endpoint])

    def offset(self, name: str, endpoint: int | None = None) -> int:
        """Index of the first word of a metric: of an endpoint's, or of the process's."""
        return _offsets(self.urls)[endpoint, name]

    @property
    def size_bytes(self) -> int:
        """Length of a page."""
        return _offsets(self.urls)[None, ""] * WORD_BYTES


@cache
def _offsets(urls: tuple[tuple[str, ...], ...]) -> dict[tuple[int | None, str], int]:
    """Index of the first word of each (endpoint, metric); of (None, "") the length of a page."""
    offsets: dict[tuple[int | None, str], int] = {}
    position = _HEADER_WORDS
    for metric in PROCESS_METRICS:
        offsets[None, metric.name] = position
        position += metric.words * len(metric.cells)
    for endpoint, own_urls in enumerate(urls):
        for metric in METRICS:
            offsets[endpoint, metric.name] = position
            position += metric.words * len(_cells(metric, own_urls))
    offsets[None, ""] = position
    return offsets


@cache
def _cells(metric: Metric, urls: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple((url,) for url in urls) if metric.labels == (URL,) else metric.cells


class MetricPage:
    """A page, mapped. ``words`` is the hot path's way in: plain item assignment on a view of signed 64-bit words."""

    def __init__(self, fd: int, layout: PageLayout) -> None:
        self.fd = fd
        self.layout = layout
        self.words = memoryview(mmap.mmap(fd, layout.size_bytes)).cast("q")

    def __repr__(self) -> str:
        return f"<MetricPage of process {self.pid}, {self.state.name.lower()}>"

    @classmethod
    def create(cls, layout: PageLayout, name: str) -> MetricPage:
        """A new page of zeros."""
        fd = os.memfd_create(f"mlproxy-metrics-{name}", os.MFD_CLOEXEC)
        os.ftruncate(fd, layout.size_bytes)
        return cls(fd, layout)

    def begin(self, now_ns: int) -> None:
        """The calling process takes the page over: counters go on, gauges start from zero."""
        for endpoint in range(len(self.layout.urls)):
            for metric in METRICS:
                if metric.kind == "gauge":
                    first = self.layout.offset(metric.name, endpoint)
                    for word in range(first, first + len(self.layout.cells(metric, endpoint))):
                        self.words[word] = 0
        self.words[_PID] = os.getpid()
        self.words[_STARTED] = self.words[_HEARTBEAT] = now_ns
        self.words[_STATE] = PageState.STARTING

    def beat(self, now_ns: int) -> None:
        """The loop that does the work turns."""
        self.words[_HEARTBEAT] = now_ns

    def set_state(self, state: PageState) -> None:
        """Written by the process itself; by the supervisor only while there is no process."""
        self.words[_STATE] = state

    @property
    def pid(self) -> int:
        """The process that has the page."""
        return self.words[_PID]

    @property
    def started_ns(self) -> int:
        """When that process took it over, on the monotonic clock."""
        return self.words[_STARTED]

    @property
    def heartbeat_ns(self) -> int:
        """When its loop last turned."""
        return self.words[_HEARTBEAT]

    @property
    def state(self) -> PageState:
        """How far it has come."""
        return PageState(self.words[_STATE])
