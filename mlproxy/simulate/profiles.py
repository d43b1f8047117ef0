"""How long a model takes for a batch: the profiles that come with the simulator, and those from a file. **Pure.**

A profile is a mean and a spread for some batch sizes. Between two sizes mean and 95th percentile are interpolated,
beyond the last they follow the last slope; the time of one call is lognormal with that mean and percentile.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from mlproxy.config.suggest import closest
from mlproxy.units import NS_PER_MS

#: The standard normal's 95th percentile.
_Z95 = 1.6448536269514722
#: No lognormal's 95th percentile is further above its mean: beyond it the spread only lowers the median.
LARGEST_P95_PER_MEAN = math.exp(_Z95**2 / 2)
#: The longest mean of a batch.
LONGEST_MS = 3_600_000
PROFILE_FORMS = "toxic, iris, fashion, a YAML FILE or affine:A_MS,B_MS[,SIGMA]"


#: The distribution of one batch size: turns a standard normal draw into nanoseconds.
ServiceTime: TypeAlias = Callable[[float], float]


class Profile(Protocol):
    """What the cluster asks of a model."""

    @property
    def outlier_share(self) -> float:
        """Share of the calls that are slower by a factor drawn from `outlier_factors`."""

    @property
    def outlier_factors(self) -> tuple[float, float]:
        """Least and greatest, uniform between the two."""

    def service_time(self, instances: int) -> ServiceTime:
        """The distribution for a batch of ``instances``."""


class Point(NamedTuple):
    """One measured batch size."""

    instances: int
    mean_ms: float
    p95_ms: float


def sigma_of(p95_per_mean: float) -> float:
    """The spread of the lognormal whose 95th percentile is so many times its mean."""
    excess = math.log(max(1.0, p95_per_mean))
    return _Z95 - math.sqrt(max(0.0, _Z95**2 - 2 * excess))


def p95_of(mean: float, sigma: float) -> float:
    """The 95th percentile of the lognormal of that mean and spread."""
    return mean * math.exp(_Z95 * sigma - sigma**2 / 2)


@dataclass(frozen=True, slots=True)
class Table:
    """A profile from measured points."""

    points: tuple[Point, ...]
    outlier_share: float = 0.0
    outlier_factors: tuple[float, float] = (1.0, 1.0)

    def service_time(self, instances: int) -> ServiceTime:
        """Interpolated between the points around ``instances``, extrapolated by the last slope."""
        points = self.points
        if len(points) == 1:
            return _lognormal(points[0].mean_ms, sigma_of(points[0].p95_ms / points[0].mean_ms))
        above = next((index for index, point in enumerate(points) if point.instances >= instances), len(points) - 1)
        low, high = points[max(1, above) - 1], points[max(1, above)]
        share = (instances - low.instances) / (high.instances - low.instances)
        if instances < low.instances:  # smaller than the smallest measured: no less than it
            share = 0.0
        mean_ms = max(1e-3, low.mean_ms + share * (high.mean_ms - low.mean_ms))
        p95_ms = low.p95_ms + share * (high.p95_ms - low.p95_ms)
        return _lognormal(mean_ms, sigma_of(p95_ms / mean_ms))


@dataclass(frozen=True, slots=True)
class Affine:
    """``a_ms + b_ms`` times the batch size on average, with the same relative spread for all sizes."""

    a_ms: float
    b_ms: float
    sigma: float = 0.0
    outlier_share: float = 0.0
    outlier_factors: tuple[float, float] = (1.0, 1.0)

    def service_time(self, instances: int) -> ServiceTime:
        """The lognormal around the affine mean."""
        return _lognormal(self.a_ms + self.b_ms * instances, self.sigma)


def _lognormal(mean_ms: float, sigma: float) -> ServiceTime:
    mu = math.log(mean_ms * NS_PER_MS) - sigma**2 / 2
    return lambda z: math.exp(mu + sigma * z)


def _spread(means_ms: Mapping[int, float], p95_per_mean: float) -> tuple[Point, ...]:
    return tuple(Point(size, mean_ms, mean_ms * p95_per_mean) for size, mean_ms in means_ms.items())


def _fashion() -> tuple[Point, ...]:
    """Means of the notebook's box plots; the spread falls from .67 to .23 with the logarithm of the size."""
    means_ms = {1: 125.0, 5: 125.0, 10: 144.0, 20: 178.0, 50: 241.0, 100: 375.0}
    sigma = {size: 0.67 - 0.44 * math.log(size) / math.log(100) for size in means_ms}
    return tuple(Point(size, mean_ms, p95_of(mean_ms, sigma[size])) for size, mean_ms in means_ms.items())


#: The paper's three workloads, rebuilt from what it published; docs/simulator.md says which numbers are estimates. One
#: call in 500 is an outlier.
BUILT_IN: dict[str, Table] = {
    "toxic": Table(_spread({1: 40.0, 10: 46.0, 20: 57.0, 50: 88.0, 100: 139.5}, 1.2), 0.002, (1.5, 4.5)),
    "iris": Table(_spread({1: 8.6, 20: 9.1, 100: 10.1}, 1.3), 0.002, (1.5, 4.5)),
    "fashion": Table(_fashion(), 0.002, (1.5, 4.5)),
}


def parse_profile(text: str) -> Profile | None:
    """A built-in or an affine profile; None when ``text`` names a file. ValueError with a sentence that helps."""
    if text.startswith("affine:"):
        return _affine(text)
    return BUILT_IN.get(text)


def _affine(text: str) -> Affine:
    parts = text.removeprefix("affine:").split(",")
    numeric = all(re.fullmatch(r"\d+(\.\d*)?|\.\d+", part) for part in parts)
    if not (numeric and len(parts) in (2, 3)):
        raise ValueError(f"{text!r}: write affine:A_MS,B_MS[,SIGMA], such as affine:40,1,0.1")
    affine = Affine(float(parts[0]), float(parts[1]), float(parts[2]) if len(parts) == 3 else 0.0)
    if not 0 < affine.a_ms + affine.b_ms <= LONGEST_MS:
        raise ValueError(f"{text!r}: a batch of one must take some time, and an hour at most")
    if affine.sigma > _Z95:
        raise ValueError(f"{text!r}: SIGMA is {_Z95:.2f} at most; beyond it only the median falls")
    return affine


def table_from(document: object) -> Table:
    """A profile from a file's mapping of ``size: {mean_ms: …, p95_ms: …}``. ValueError names the first bad line."""
    if not isinstance(document, Mapping) or not document:
        raise ValueError("a profile is a line per batch size, such as 32: {mean_ms: 11, p95_ms: 12}")
    points = tuple(sorted(_point(size, line) for size, line in document.items()))
    return Table(points)


def _point(size: object, line: object) -> Point:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"{size!r} is not a batch size; write a whole number from 1")
    if not isinstance(line, Mapping):
        raise ValueError(f"{size}: write {{mean_ms: 11, p95_ms: 12}}, not {line!r}")
    for key in line:
        if key not in ("mean_ms", "p95_ms"):
            raise ValueError(f"{size}: unknown key {key!r}{closest(str(key), ('mean_ms', 'p95_ms'))}")
    mean_ms, p95_ms = (_milliseconds(size, line, key) for key in ("mean_ms", "p95_ms"))
    if not mean_ms <= p95_ms <= mean_ms * LARGEST_P95_PER_MEAN:
        raise ValueError(f"{size}: p95_ms must be 1 to {LARGEST_P95_PER_MEAN:.1f} times mean_ms")
    return Point(size, mean_ms, p95_ms)


def _milliseconds(size: int, line: Mapping[object, object], key: str) -> float:
    value = line.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= LONGEST_MS:
        raise ValueError(f"{size}: {key} must be a number above 0, an hour at most, not {value!r}")
    return float(value)
