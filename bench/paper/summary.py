"""Means, ranges and improvements over many runs. **Pure.**"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

from bench.paper.plan import Case, Method
from bench.paper.readings import Reading

Value: TypeAlias = Callable[[Reading], float]


def pods(one: Reading) -> float:
    """Ready pods, as the paper counts."""
    return one.pods


def billed(one: Reading) -> float:
    """Every pod that is paid for, the proxy's too."""
    return one.billed_pods


def missed(one: Reading) -> float:
    """Misses in percent."""
    return 100 * one.miss_share


def p50_ms(one: Reading) -> float:
    """The median latency."""
    return one.p50_ms


def bound_pods(one: Reading) -> float:
    """The pods of the clairvoyant bound; the run's own where it was not reckoned."""
    return one.pods if one.bound_pods is None else one.bound_pods


@dataclass(frozen=True, slots=True)
class Range:
    """A mean, and the least and greatest of what it is the mean of."""

    mean: float
    low: float
    high: float

    def text(self, digits: int = 2) -> str:
        """``1.04 [1.01–1.07]``; without brackets where they would say nothing."""
        # 0.0 is added so that what rounds to nothing has no sign.
        mean, low, high = (f"{round(value, digits) + 0.0:.{digits}f}" for value in (self.mean, self.low, self.high))
        return mean if low == high else f"{mean} [{low}–{high}]"


def spread(values: Iterable[float]) -> Range:
    """Of some values, one at least."""
    known = list(values)
    return Range(fmean(known), min(known), max(known))


@dataclass(frozen=True, slots=True)
class Improvement:
    """How much less of something there is than with another policy, in percent; negative: more."""

    percent: Range

    def text(self) -> str:
        """Whole percent, but for 99.x, where the fraction tells something."""
        return self.percent.text(1 if 99 <= self.percent.mean < 99.95 else 0) + " %"


def improvement(own: Sequence[Reading], other: Sequence[Reading], value: Value) -> Improvement | None:
    """Seed by seed; None where the other policy leaves nothing to improve."""
    by_seed = {one.seed: value(one) for one in other}
    if not own or any(by_seed.get(one.seed, 0.0) <= 0 for one in own):
        return None
    return Improvement(spread(100 * (1 - value(one) / by_seed[one.seed]) for one in own))


class Readings:
    """All runs, to be asked for some of them."""

    def __init__(self, readings: Iterable[Reading]) -> None:
        self._readings = tuple(readings)

    def __repr__(self) -> str:
        return f"<Readings of {len(self._readings)} runs>"

    def of(self, method: Method, scale: int | None = None, policy: str | None = None) -> list[Reading]:
        """Those of a method, at a scale, with a policy."""
        return [
            one for one in self._readings
            if one.method == method and scale in (None, one.scale) and policy in (None, one.policy)
        ]  # fmt: skip

    def run(self, case: Case, policy: str) -> list[Reading]:
        """One per seed."""
        return [one for one in self._readings if one.case == case and one.policy == policy]

    def scales(self, method: Method) -> list[int]:
        """In rising order."""
        return sorted({one.scale for one in self.of(method)})

    def cases(self, method: Method, scale: int) -> list[Case]:
        """In the order in which they were run."""
        return list(dict.fromkeys(one.case for one in self.of(method, scale)))

    def policies(self, method: Method, scale: int) -> list[str]:
        """In the order in which they were run."""
        return list(dict.fromkeys(one.policy for one in self.of(method, scale)))

    def mean(self, method: Method, scale: int | None, policy: str, value: Value) -> float:
        """Over the cases, whatever the number of their seeds."""
        by_case: dict[Case, list[float]] = {}
        for one in self.of(method, scale, policy):
            by_case.setdefault(one.case, []).append(value(one))
        return fmean(map(fmean, by_case.values()))

    def with_bound(self, method: Method) -> Readings:
        """Those for which the clairvoyant bound was reckoned."""
        return Readings(one for one in self.of(method) if one.bound_pods is not None)

    def above(self, method: Method, scale: int, policy: str, percent: float = 1.0) -> int:
        """Cases in which more than so many percent miss."""
        return sum(self.misses_its_objective(case, policy, percent) for case in self.cases(method, scale))

    def misses_its_objective(self, case: Case, policy: str, percent: float = 1.0) -> bool:
        """Whether more than so many percent miss."""
        return fmean(missed(one) for one in self.run(case, policy)) > percent

    def reached(
        self, method: Method, scale: int, policy: str, value: Value, percent: float
    ) -> tuple[list[Case], Case | None]:  # fmt: skip
        """The cases in which ``policy`` improves on ``none`` by ``percent`` (rounded), and the best case otherwise."""
        found = {
            case: improvement(self.run(case, policy), self.run(case, "none"), value)
            for case in self.cases(method, scale)
        }
        known = {case: one.percent.mean for case, one in found.items() if one is not None}
        best = max(known, key=known.__getitem__, default=None)
        return [case for case, mean in known.items() if mean >= percent - 0.5], best
