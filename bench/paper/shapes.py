"""How the traffic of the comparison changes over time: real traces where they are, stand-ins where they are not.

**Effects** only in `shapes`, which reads the traces; they are third-party data and no part of this project.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.processes import PROJECT
from mlproxy.simulate.arrivals import Switching, Trace, from_lines
from mlproxy.units import NS_PER_S

#: Beside the project, where who has the traces keeps them.
TRACES = PROJECT.parent / "shared" / "traces"
MINUTES = 60
#: This share of a slice comes before the traffic first reaches that share of its peak.
_LEAD, _HIGH = 0.6, 0.8


@dataclass(frozen=True, slots=True)
class Lines:
    """Rates relative to each other, each held for ``step_s``."""

    source: str
    lines: tuple[float, ...]
    step_s: int = 60

    @property
    def duration_s(self) -> int:
        """How long it lasts."""
        return self.step_s * len(self.lines)

    def scaled(self, peak_per_second: float) -> Trace:
        """With the largest line at ``peak_per_second``."""
        return from_lines(self.lines, self.step_s * NS_PER_S, peak_per_second)[0]

    def first(self, seconds: int) -> Lines:
        """The beginning."""
        return Lines(self.source, self.lines[: seconds // self.step_s], self.step_s)

    def around_peak(self, seconds: int) -> Lines:
        """A slice with the first ascent to the peak, if it is no longer than that."""
        high = next(index for index, line in enumerate(self.lines) if line >= _HIGH * max(self.lines))
        last = len(self.lines) - seconds // self.step_s
        begin = min(max(0, high - int(_LEAD * seconds) // self.step_s), max(0, last))
        return Lines(self.source, self.lines[begin : begin + seconds // self.step_s], self.step_s)


@dataclass(frozen=True, slots=True)
class Alternating:
    """Low and high by turns (`Switching`); the seed of a run also draws when."""

    source: str
    low: float
    low_mean_s: int
    high_mean_s: int
    duration_s: int = MINUTES * 60

    def scaled(self, peak_per_second: float) -> Trace:
        """With the high rate at ``peak_per_second``."""
        low, high = self.low * peak_per_second, peak_per_second
        return Switching(low, high, self.low_mean_s * NS_PER_S, self.high_mean_s * NS_PER_S)

    def first(self, seconds: int) -> Alternating:
        """The beginning."""
        return Alternating(self.source, self.low, self.low_mean_s, self.high_mean_s, seconds)

    around_peak = first


Shape = Lines | Alternating


@dataclass(frozen=True, slots=True)
class _Real:
    """Where a real trace is, which hour of it is taken, and what stands in for it."""

    file: str
    source: str
    first_line: int
    stand_in: Callable[[], Lines]

    def read(self, folder: Path) -> Lines:
        path = folder / self.file
        if not path.is_file():
            return self.stand_in()
        lines = [float(line) for line in path.read_text().split()]
        return Lines(self.source, tuple(lines[self.first_line - 1 : self.first_line - 1 + MINUTES]))


def _stand_in(source: str, rates: npt.NDArray[np.float64], step_s: int = 60) -> Lines:
    return Lines(source, tuple(float(rate) for rate in rates.round(4)), step_s)


def _slow() -> Lines:
    minute = np.arange(MINUTES)
    noise = np.random.default_rng(11).normal(0, 0.03, MINUTES)
    return _stand_in("generated: rises by a tenth within the hour, 3 % noise", 0.85 + 0.1 * minute / MINUTES + noise)


def _swing() -> Lines:
    minute = np.arange(MINUTES)
    noise = np.random.default_rng(12).normal(0, 0.01, MINUTES)
    return _stand_in(
        "generated: falls from its peak to a fifth around minute 13, 1 % noise",
        0.2 + 0.8 / (1 + np.exp((minute - 13) / 3.5)) + noise,
    )


def _spikes() -> Lines:
    random = np.random.default_rng(13)
    low, spike = 0.2 * random.lognormal(0, 0.3, MINUTES), random.uniform(0.4, 1, MINUTES)
    return _stand_in(
        "generated: one minute in four at 0.4 to 1.0 of the peak, the others around 0.2",
        np.where(random.random(MINUTES) < 0.25, spike, low),
    )


def _jump() -> Lines:
    """Stands in for an hour of Twitter: the one real trace with such a jump that the comparison is meant to have."""
    level = np.where((np.arange(3600) // 60 >= 32) & (np.arange(3600) // 60 < 38), 0.85, 0.16)
    noise = np.random.default_rng(14).normal(1, 0.06, 3600)
    source = "generated: 0.18 of the peak, from minute 32 to 38 the peak; a line per second, 6 % noise"
    return _stand_in(source, level * noise, 1)


def bursts() -> Lines:
    """A tenth of the peak, and for ten seconds about every minute all of it."""
    random, lines = np.random.default_rng(15), np.full(3600, 0.1)
    begin = 0
    while (begin := begin + int(random.integers(50, 71))) < 3600:
        lines[begin : begin + 10] = 1.0
    return _stand_in("generated: 0.1 of the peak, ten seconds at the peak every 50 to 70 s", lines, 1)


def steady() -> Lines:
    """One rate."""
    return Lines("generated: one rate", (1.0,) * MINUTES)


_REAL = {
    "wcslow": _Real(
        "wc98_1998-06-30T1000_2h_slow_permin.txt", "WorldCup98 logs, slowly varying, lines 1 to 60", 1, _slow
    ),
    "wcswing": _Real(
        "wc98_1998-06-30_2h_max-swing_permin.txt", "WorldCup98 logs, largest swing, lines 21 to 80", 21, _swing
    ),
    "azf": _Real(
        "azfunc2019_fn63ecf88a_24h_permin.txt", "Azure Functions 2019, function 63ecf88a, lines 611 to 670", 611,
        _spikes,
    ),
}  # fmt: skip


def shapes(folder: Path = TRACES) -> dict[str, Shape]:
    """The five traces of the comparison, an hour each."""
    real: dict[str, Shape] = {name: trace.read(folder) for name, trace in _REAL.items()}
    return {
        **real,
        "tw517": _jump(),
        "mmpp": Alternating(
            "generated: 0.2 of the peak for 30 s and the peak for 8 s by turns, exponential", 0.2, 30, 8
        ),
    }
