"""How the best static setting is chosen: the fewest pods within the objective, by halving."""

from __future__ import annotations

from collections.abc import Iterable

from bench.paper import statics
from bench.paper.plan import STATICS, Case, Static
from bench.paper.readings import Reading
from bench.paper.runs import Run
from bench.paper.shapes import steady
from bench.paper.statics import ROUNDS_S, Trial, ranked
from tests.unit.bench.paper.readings import made

SMALL, LARGE, LARGEST = Static(5, 0.1), Static(50, 0.25), Static(100, 0.55)


class FakeRunner:
    """Small batches need more pods, and are better than they look on a short slice."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def read_all(self, runs: Iterable[Run]) -> list[Reading]:
        found = list(runs)
        self.runs += found
        return [made(pods=self._pods(run)) for run in found]

    def _pods(self, run: Run) -> float:
        assert run.static is not None
        return 1 + (run.static.linger_share if run.shape.duration_s > ROUNDS_S[0] else -run.static.linger_share)


def test_the_fewest_pods_come_first_and_after_them_what_misses_the_objective_the_fewest_misses_first() -> None:
    tried = [
        (SMALL, made(pods=3.0, miss_share=0.0)),
        (LARGEST, made(pods=1.0, miss_share=0.02)),
        (LARGE, made(pods=2.0, miss_share=0.009)),
    ]
    assert ranked(tried) == [LARGE, SMALL, LARGEST]
    assert ranked([*tried[1:2], (SMALL, made(pods=9.0, miss_share=0.019))]) == [SMALL, LARGEST]


def test_the_better_half_of_a_short_slice_is_tried_on_a_longer_one_and_that_decides() -> None:
    case, runner = Case("ours", 10, "toxic", "steady"), FakeRunner()
    chosen = statics.choose([Trial(case, steady())], runner.read_all)
    shares = [static.linger_share for static in STATICS[10]]
    assert chosen[case].linger_share == sorted(shares, reverse=True)[1]
    assert [run.shape.duration_s for run in runner.runs] == [480] * 3 + [900] * 2
    assert all(run.policy == "static" and run.seed == 1 for run in runner.runs)


def test_as_many_runs_are_planned_as_are_made() -> None:
    for method, scale in (("ours", 1), ("paper", 10)):
        trial, runner = Trial(Case(method, scale, "iris", "steady"), steady()), FakeRunner()  # type: ignore[arg-type]
        statics.choose([trial], runner.read_all)
        planned = list(statics.planned([trial]))
        assert [run.shape for run in planned] == [run.shape for run in runner.runs]
