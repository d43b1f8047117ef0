"""When requests arrive: rates over time, and Poisson arrivals within them. **Pure.**"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlproxy.units import NS_PER_S, parse_duration

TRACE_FORMS = "a FILE, poisson:RATE, mmpp:LOW,HIGH,S_LOW,S_HIGH or step:R1@T1,R2@T2…"


class Segment(NamedTuple):
    """A stretch of time with one rate."""

    start_ns: int
    end_ns: int
    per_second: float


class Poisson(NamedTuple):
    """One rate throughout."""

    per_second: float

    @property
    def peak_per_second(self) -> float:
        """The highest rate."""
        return self.per_second

    def segments(self, duration_ns: int, rng: np.random.Generator) -> Iterator[Segment]:
        """The rate until ``duration_ns``."""
        yield Segment(0, duration_ns, self.per_second)


class Switching(NamedTuple):
    """A Markov-modulated Poisson process: low and high by turns, each for an exponential time. Begins low."""

    low_per_second: float
    high_per_second: float
    low_mean_ns: int
    high_mean_ns: int

    @property
    def peak_per_second(self) -> float:
        """The highest rate."""
        return max(self.low_per_second, self.high_per_second)

    def segments(self, duration_ns: int, rng: np.random.Generator) -> Iterator[Segment]:
        """The rates until ``duration_ns``."""
        start_ns, high = 0, False
        while start_ns < duration_ns:
            end_ns = start_ns + max(1, int(rng.exponential(self.high_mean_ns if high else self.low_mean_ns)))
            yield Segment(start_ns, min(end_ns, duration_ns), self.high_per_second if high else self.low_per_second)
            start_ns, high = end_ns, not high


class Steps(NamedTuple):
    """Rates that hold from an instant on; none before the first."""

    changes: tuple[tuple[int, float], ...]  #: (from_ns, per_second), in order

    @property
    def peak_per_second(self) -> float:
        """The highest rate."""
        return max(per_second for _, per_second in self.changes)

    def segments(self, duration_ns: int, rng: np.random.Generator) -> Iterator[Segment]:
        """The rates until ``duration_ns``."""
        ends = [*(start_ns for start_ns, _ in self.changes[1:]), duration_ns]
        for (start_ns, per_second), end_ns in zip(self.changes, ends, strict=True):
            if start_ns < min(end_ns, duration_ns):
                yield Segment(start_ns, min(end_ns, duration_ns), per_second)


Trace = Poisson | Switching | Steps


def from_lines(lines: Sequence[float], step_ns: int, max_per_second: float | None) -> tuple[Steps, int]:
    """A trace of one number per line and its duration; scaled so that the largest is ``max_per_second``.

    Without ``max_per_second`` a line is the number of requests within its step.
    """
    scale = NS_PER_S / step_ns if max_per_second is None else max_per_second / max(*lines, 1e-12)
    changes = tuple((index * step_ns, line * scale) for index, line in enumerate(lines))
    return Steps(changes), step_ns * len(lines)


def parse_trace(text: str) -> Trace | None:
    """One of the generated forms; None when ``text`` names a file. ValueError with a sentence that helps."""
    kind, colon, rest = text.partition(":")
    parsers: dict[str, Callable[[str], Trace]] = {"poisson": _poisson, "mmpp": _mmpp, "step": _steps}
    parser = parsers.get(kind) if colon else None
    return parser(rest) if parser else None


def _poisson(text: str) -> Poisson:
    return Poisson(_rate(text, "poisson:RATE"))


def _mmpp(text: str) -> Switching:
    form = "mmpp:LOW,HIGH,S_LOW,S_HIGH"
    parts = text.split(",")
    if len(parts) != 4:
        raise ValueError(f"mmpp:{text} has {len(parts)} numbers; write {form}, such as mmpp:10,50,30,8")
    low, high, low_s, high_s = (_rate(part, form) for part in parts)
    if min(low_s, high_s) < 0.01:
        raise ValueError(f"mmpp:{text}: S_LOW and S_HIGH are mean seconds, 0.01 or more")
    return Switching(low, high, int(low_s * NS_PER_S), int(high_s * NS_PER_S))


def _steps(text: str) -> Steps:
    form = "step:R1@T1,R2@T2…, such as step:10@0s,50@10m"
    changes = []
    for part in text.split(","):
        rate, at, instant = part.partition("@")
        if not at:
            raise ValueError(f"{part!r} has no @; write {form}")
        changes.append((0 if instant == "0" else parse_duration(instant), _rate(rate, form)))
    if any(later[0] <= earlier[0] for earlier, later in pairwise(changes)):
        raise ValueError(f"step:{text}: the instants must rise")
    return Steps(tuple(changes))


def _rate(text: str, form: str) -> float:
    if re.fullmatch(r"\d+(\.\d*)?|\.\d+", text) is None:
        raise ValueError(f"{text!r} is not a number; write {form}")
    return float(text)


def arrivals_ns(trace: Trace, duration_ns: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Every arrival until ``duration_ns``, in order."""
    pieces = [
        np.sort(rng.integers(start_ns, end_ns, rng.poisson(per_second * (end_ns - start_ns) / NS_PER_S)))
        for start_ns, end_ns, per_second in trace.segments(duration_ns, rng)
    ]
    return np.concatenate(pieces) if pieces else np.empty(0, np.int64)
