"""What is run for a comparison, and in which extent. **Pure** but for `courses`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.paper import statics
from bench.paper.plan import POLICIES, STATICS, WORKLOADS, Case, Method, Static
from bench.paper.readings import Reading
from bench.paper.runner import PROCESSES
from bench.paper.runs import ReadAll, Run
from bench.paper.shapes import Shape
from bench.paper.statics import Trial
from mlproxy.simulate import Series
from mlproxy.simulate.many import run_many


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One method at one scale of the rates."""

    method: Method
    scale: int
    seeds: Sequence[int]
    policies: Sequence[str] = POLICIES
    workloads: Sequence[str] = tuple(WORKLOADS)
    seconds: int = 3600
    around_peak: bool = False  #: a slice with the first ascent to the peak, else the beginning

    def shape(self, shape: Shape) -> Shape:
        """As much of it as is run."""
        return shape.around_peak(self.seconds) if self.around_peak else shape.first(self.seconds)

    def cases(self, shapes: Mapping[str, Shape]) -> Iterator[tuple[Case, Shape]]:
        """Every workload with every trace."""
        for workload in self.workloads:
            for trace, shape in shapes.items():
                yield Case(self.method, self.scale, workload, trace), self.shape(shape)

    def trials(self, shapes: Mapping[str, Shape]) -> list[Trial]:
        """What a static setting has to be found for."""
        if "static" not in self.policies:
            return []
        return [Trial(case, shapes[case.trace]) for case, _ in self.cases(shapes)]

    def runs(self, shapes: Mapping[str, Shape], best: Mapping[Case, Static]) -> Iterator[Run]:
        """All of it, with the ``best`` static setting of each case."""
        for case, shape in self.cases(shapes):
            for policy in self.policies:
                static = best[case] if policy == "static" else None
                for seed in self.seeds:
                    yield Run(case=case, shape=shape, policy=policy, seed=seed, static=static)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole comparison."""

    name: str
    extent: str  #: for the page
    parts: Sequence[Part]

    def planned(self, shapes: Mapping[str, Shape]) -> list[Run]:
        """As many runs, of as much traffic, as `compare` will make."""
        trials = [trial for part in self.parts for trial in part.trials(shapes)]
        first = {trial.case: STATICS[trial.case.scale][0] for trial in trials}
        runs = [*statics.planned(trials), *(run for part in self.parts for run in part.runs(shapes, first))]
        return list(dict.fromkeys(runs))  # a trial may be the run itself

    def compare(self, shapes: Mapping[str, Shape], read_all: ReadAll) -> list[Reading]:
        """Find the static settings, then run everything."""
        best = statics.choose([trial for part in self.parts for trial in part.trials(shapes)], read_all)
        return read_all(run for part in self.parts for run in part.runs(shapes, best))


#: The paper compares with its own baseline only.
_PAPERS = ("none", "aimd", "slo")
DEFAULT = Plan(
    name="default",
    extent="two seeds and 40 minutes at ×1, one seed and 15 minutes around the peak at ×10",
    parts=(
        Part(method="paper", scale=1, seeds=(1, 2), seconds=2400, policies=_PAPERS),
        Part(method="ours", scale=1, seeds=(1, 2), seconds=2400),
        Part(method="ours", scale=10, seeds=(1,), seconds=900, around_peak=True),
    ),
)
FULL = Plan(
    name="full",
    extent="three seeds, an hour at ×1 and 40 minutes at ×10",
    parts=(
        Part(method="paper", scale=1, seeds=(1, 2, 3)),
        Part(method="paper", scale=10, seeds=(1, 2, 3), seconds=2400),
        Part(method="ours", scale=1, seeds=(1, 2, 3)),
        Part(method="ours", scale=10, seeds=(1, 2, 3), seconds=2400),
    ),
)
QUICK = Plan(
    name="quick",
    extent="one seed and 15 minutes around the peak at ×1",
    parts=(Part(method="ours", scale=1, seeds=(1,), seconds=900, around_peak=True),),
)


def courses(case: Case, shape: Shape, policies: Sequence[str], processes: int = PROCESSES) -> dict[str, Series]:
    """What happened over time, for a picture."""
    runs = [Run(case=case, shape=shape, policy=policy, seed=1, changes=(("keep_series", True),)) for policy in policies]
    outcomes = run_many([run.scenario() for run in runs], processes, title="for the pictures")
    return {
        run.policy: outcome.series
        for run, outcome in zip(runs, outcomes, strict=True)
        if outcome.series is not None
    }  # fmt: skip
