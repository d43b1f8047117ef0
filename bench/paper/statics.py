"""The best static setting of each case in hindsight, by successive halving. **Pure**: who runs is passed in.

All settings are tried on a short slice of the traffic around its peak, the better half of them on a longer one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from bench.paper.plan import STATICS, WARM_UP_S, Case, Changes, Static
from bench.paper.readings import Reading
from bench.paper.runs import ReadAll, Run
from bench.paper.shapes import Shape

#: Seconds of traffic per round, the warm-up included. The last is as long as a run at ten times the paper's rates: the
#: winner's trial is its run there.
ROUNDS_S = (480, 900)


class Trial(NamedTuple):
    """Traffic to find a setting for."""

    case: Case
    shape: Shape
    changes: Changes = ()  #: further fields of the scenario


def choose(trials: Sequence[Trial], read_all: ReadAll) -> dict[Case, Static]:
    """The best setting of each, by seed 1."""
    settings: dict[Case, Sequence[Static]] = {trial.case: STATICS[trial.case.scale] for trial in trials}
    for seconds in ROUNDS_S:
        runs = [run for trial in trials for run in _runs(trial, settings[trial.case], seconds)]
        tried: dict[Case, list[tuple[Static, Reading]]] = {}
        for run, reading in zip(runs, read_all(runs), strict=True):
            if run.static is not None:
                tried.setdefault(run.case, []).append((run.static, reading))
        settings = {case: better_half(ranked(found)) for case, found in tried.items()}
    return {case: ranking[0] for case, ranking in settings.items()}


def planned(trials: Iterable[Trial]) -> Iterator[Run]:
    """As many runs of as much traffic as `choose` will want, though not of the settings that it will prefer."""
    for trial in trials:
        settings = STATICS[trial.case.scale]
        for seconds in ROUNDS_S:
            yield from _runs(trial, settings, seconds)
            settings = better_half(settings)


def better_half(ranking: Sequence[Static]) -> Sequence[Static]:
    """The first half, rounded up."""
    return ranking[: (len(ranking) + 1) // 2]


def _runs(trial: Trial, settings: Iterable[Static], seconds: int) -> Iterator[Run]:
    # By the paper's method the last minutes are dropped.
    shape = trial.shape.around_peak(seconds + (WARM_UP_S if trial.case.method == "paper" else 0))
    for static in settings:
        yield Run(case=trial.case, shape=shape, policy="static", seed=1, static=static, changes=trial.changes)


def ranked(tried: Iterable[tuple[Static, Reading]], miss_target: float = 0.01) -> list[Static]:
    """The best first: the fewest pods among those that miss no more than they may, then those that miss least."""

    def rank(one: tuple[Static, Reading]) -> tuple[bool, float, float]:
        pods, missed = one[1].pods, one[1].miss_share
        return (True, missed, pods) if missed > miss_target else (False, round(pods, 2), missed)

    return [static for static, _ in sorted(tried, key=rank)]
