"""Runs the comparison. **Effects**: starts processes, prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.paper.plan import POLICIES, WORKLOADS, Case, Method, Static
from bench.paper.readings import Reading
from bench.paper.runs import Run, choose_statics, read_all
from bench.paper.shapes import Shape
from mlproxy.simulate import Series
from mlproxy.simulate.many import run_many


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One method at one scale of the rates."""

    method: Method
    scale: int
    seeds: Sequence[int]
    policies: Sequence[str] = POLICIES
    seconds: int = 3600
    around_peak: bool = False  #: a slice with the first ascent to the peak, else the beginning

    def shape(self, shape: Shape) -> Shape:
        """As much of it as is run."""
        return shape.around_peak(self.seconds) if self.around_peak else shape.first(self.seconds)

    def cases(self, shapes: Mapping[str, Shape]) -> Iterator[tuple[Case, Shape]]:
        """Every workload with every trace."""
        for workload in WORKLOADS:
            for trace, shape in shapes.items():
                yield Case(self.method, self.scale, workload, trace), self.shape(shape)


#: Under 20 minutes on two cores. The paper compares with its own baseline only.
DEFAULT = (
    Part(method="paper", scale=1, seeds=(1, 2), seconds=2400, policies=("none", "aimd", "slo")),
    Part(method="ours", scale=1, seeds=(1, 2), seconds=2400),
    Part(method="ours", scale=10, seeds=(1,), seconds=900, around_peak=True),
)
FULL = (
    Part(method="paper", scale=1, seeds=(1, 2, 3)),
    Part(method="paper", scale=10, seeds=(1, 2, 3), seconds=2400),
    Part(method="ours", scale=1, seeds=(1, 2, 3)),
    Part(method="ours", scale=10, seeds=(1, 2, 3), seconds=2400),
)
#: The static settings are tried on so much of the traffic, around its peak.
_TRIAL_S = 900


def compare(parts: Sequence[Part], shapes: Mapping[str, Shape]) -> list[Reading]:
    """Every run of ``parts``."""
    readings: list[Reading] = []
    for part in parts:
        for workload in WORKLOADS:
            cases = [(case, shape) for case, shape in part.cases(shapes) if case.workload == workload]
            title = f"{part.method}, {workload} ×{part.scale}"
            statics = _statics(cases, shapes, title) if "static" in part.policies else {}
            readings += read_all(list(_runs(part, cases, statics)), title)
            print(f"{title}: {len(readings)} runs", flush=True)
    return readings


def _statics(cases: Sequence[tuple[Case, Shape]], shapes: Mapping[str, Shape], title: str) -> dict[Case, Static]:
    return choose_statics(
        [(case, shapes[case.trace].around_peak(_TRIAL_S), {}) for case, _ in cases], f"{title}, static settings"
    )


def _runs(part: Part, cases: Sequence[tuple[Case, Shape]], statics: Mapping[Case, Static]) -> Iterator[Run]:
    for case, shape in cases:
        for policy in part.policies:
            static = statics[case] if policy == "static" else None
            for seed in part.seeds:
                yield Run(case=case, shape=shape, policy=policy, seed=seed, static=static)


def courses(case: Case, shape: Shape, policies: Sequence[str]) -> dict[str, Series]:
    """What happened over time, for a picture."""
    runs = [Run(case=case, shape=shape, policy=policy, seed=1, changes={"keep_series": True}) for policy in policies]
    outcomes = run_many([run.scenario() for run in runs], 2, title="for the pictures")
    return {
        run.policy: outcome.series
        for run, outcome in zip(runs, outcomes, strict=True)
        if outcome.series is not None
    }  # fmt: skip
