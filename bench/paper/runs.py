"""Runs scenarios and reads them, a group at a time. **Effects**: starts processes, prints."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.paper.plan import STATICS, WORKLOADS, Case, Static, scenario
from bench.paper.readings import Reading, reading
from bench.paper.shapes import Shape
from mlproxy.simulate import Scenario
from mlproxy.simulate.many import run_many


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A scenario and what it is called."""

    case: Case
    shape: Shape
    policy: str
    seed: int
    static: Static | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def setting(self) -> str:
        """Of policy static."""
        if self.static is None:
            return ""
        return f"{self.static.max_size}, {self.static.linger_share * WORKLOADS[self.case.workload].slo_ms:.0f} ms"

    def scenario(self) -> Scenario:
        """What the simulator is given."""
        return scenario(self.case, self.shape, self.policy, self.seed, self.static, **self.changes)


def read_all(runs: Sequence[Run], title: str) -> list[Reading]:
    """Simulate ``runs``, a process per core, and read them in their order."""
    outcomes = run_many([run.scenario() for run in runs], len(os.sched_getaffinity(0)), title=title)
    return [
        reading(run.case, run.policy, run.seed, outcome, run.setting)
        for run, outcome in zip(runs, outcomes, strict=True)
    ]


def best_static(tried: Iterable[tuple[Static, Reading]], miss_target: float = 0.01) -> Static:
    """The one with the fewest pods among those that miss no more than they may, else the one that misses least."""

    def rank(one: tuple[Static, Reading]) -> tuple[bool, float, float]:
        pods, missed = one[1].pods, one[1].miss_share
        return (True, missed, pods) if missed > miss_target else (False, round(pods, 2), missed)

    return min(tried, key=rank)[0]


def choose_statics(cases: Iterable[tuple[Case, Shape, Mapping[str, Any]]], title: str) -> dict[Case, Static]:
    """The best setting of each case in hindsight, by seed 1."""
    runs = [
        Run(case=case, shape=shape, policy="static", seed=1, static=static, changes=changes)
        for case, shape, changes in cases
        for static in STATICS[case.scale]
    ]
    tried: dict[Case, list[tuple[Static, Reading]]] = {}
    for run, read in zip(runs, read_all(runs, title), strict=True):
        if run.static is not None:
            tried.setdefault(run.case, []).append((run.static, read))
    return {case: best_static(readings) for case, readings in tried.items()}
