"""What the policy `slo` has to reach in the simulator, and whether it does. **Effects** only in `check`.

The limits are the controller's specification; 10 % more pods and 0.2 points more misses are within tolerance.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from bench.paper import statics
from bench.paper.journal import Journal, path_for
from bench.paper.plan import STATICS, Case, Changes, Static, budgets_ns
from bench.paper.readings import Reading, mean_of
from bench.paper.runner import Runner, runner_for
from bench.paper.runs import Run
from bench.paper.shapes import Shape, bursts, shapes, steady
from bench.paper.statics import Trial
from mlproxy.simulate.arrivals import Poisson
from mlproxy.simulate.faults import parse_fault

PODS_TOLERANCE, POINTS_TOLERANCE = 1.1, 0.2
#: At ten times the paper's rates runs last 40 minutes, otherwise an hour.
_SECONDS = {1: 3600, 10: 2400}
_HEAD = f"{'row':44}{'pods':>8}{'limit':>7}{'miss %':>9}{'limit':>7}{'p50':>7}{'p99':>7}{'batch':>7}  verdict"
MAIN = ("wcslow", "wcswing", "azf", "tw517", "mmpp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """At most this much of each; None: not looked at."""

    pods: float
    miss_percent: float
    p50_ms: float | None = None
    p50_of_aimd: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the specification's table, for one trace."""

    what: str
    case: Case
    limits: Limits
    changes: Changes = ()


def rows() -> list[Row]:
    """All that the simulator can run."""
    return sorted((*_main_rows(), *_hard_rows()), key=lambda row: row.case.scale)  # the short runs first


def _main_rows() -> Iterator[Row]:
    for workload, p50_ms in (("iris", 25.0), ("toxic", 90.0)):
        for trace in MAIN:
            limits = Limits(pods=1.02, miss_percent=0.05, p50_ms=p50_ms, p50_of_aimd=0.65)
            yield Row(what="", case=Case("ours", 1, workload, trace), limits=limits)
    tables: tuple[tuple[str, int, tuple[float, ...], float, float | None], ...] = (
        ("fashion", 1, (1.6, 1.15, 1.2, 1.1, 1.3), 0.5, None),
        ("iris", 10, (1.02,) * 5, 0.02, 45.0),
        ("toxic", 10, (2.0, 1.1, 1.2, 1.1, 1.5), 0.4, None),
        ("fashion", 10, (5.5, 3.1, 5.0, 2.9, 6.0), 0.8, None),
    )
    for workload, scale, pods, miss_percent, p99_ms in tables:
        for trace, most in zip(MAIN, pods, strict=True):
            limits = Limits(pods=most, miss_percent=miss_percent, p99_ms=p99_ms)
            yield Row(what="", case=Case("ours", scale, workload, trace), limits=limits)


def _hard_rows() -> Iterator[Row]:
    for workload, p50_ms in (("iris", 13.6), ("toxic", 45.0)):  # the time of a call alone, and 5 ms
        limits = Limits(pods=1.02, miss_percent=0.05, p50_ms=p50_ms)
        alone = (("trace", Poisson(1)),)
        yield Row(what="1 request/s", case=Case("ours", 1, workload, "steady"), limits=limits, changes=alone)
    for workload, scale, most in (("toxic", 1, 1.1), ("fashion", 1, 1.1), ("toxic", 10, 1.3), ("fashion", 10, 5.5)):
        yield Row(what="", case=Case("ours", scale, workload, "burst10"), limits=Limits(pods=most, miss_percent=0.5))
    for scale, most in ((1, 1.05), (10, 1.3)):
        limits = Limits(pods=most, miss_percent=0.4)
        drift = (("faults", (parse_fault("drift:2@15m-35m"),)),)
        yield Row(what="twice as slow", case=Case("ours", scale, "toxic", "wcswing"), limits=limits, changes=drift)
    for workload, most in (("toxic", 1.05), ("fashion", 2.2)):
        limits = Limits(pods=most, miss_percent=0.8)
        outliers = (("faults", (parse_fault("outliers:0.02,5"),)),)
        yield Row(what="2 % outliers × 5", case=Case("ours", 1, workload, "wcswing"), limits=limits, changes=outliers)
    mixed = (("budgets_ns", budgets_ns("toxic", (0, 0.4))),)
    for trace in ("wcswing", "mmpp"):
        limits = Limits(pods=1.05, miss_percent=0.1)
        yield Row(what="half at 0.4 SLO", case=Case("ours", 1, "toxic", trace), limits=limits, changes=mixed)


def verdict(limits: Limits, readings: Sequence[Reading], aimd: Sequence[Reading] = ()) -> str:
    """reached, within tolerance, or what is too much."""
    pods, miss_percent, p50_ms, p99_ms = mean_of(readings)
    beyond = [
        (miss_percent > limits.miss_percent + POINTS_TOLERANCE, f"misses {miss_percent:.2f} %"),
        (pods > limits.pods * PODS_TOLERANCE, f"pods {pods:.2f}"),
        (limits.p50_ms is not None and p50_ms > limits.p50_ms, f"p50 {p50_ms:.0f} ms > {limits.p50_ms} ms"),
        (limits.p99_ms is not None and p99_ms > limits.p99_ms, f"p99 {p99_ms:.0f} ms > {limits.p99_ms} ms"),
    ]
    if limits.p50_of_aimd is not None and aimd:
        most_ms = limits.p50_of_aimd * mean_of(aimd)[2]
        beyond.append((p50_ms > most_ms, f"p50 {p50_ms:.0f} ms > {most_ms:.0f} ms, {limits.p50_of_aimd} of aimd's"))
    if any(too_much for too_much, _ in beyond):
        return "not reached: " + ", ".join(what for too_much, what in beyond if too_much)
    exact = round(pods, 2) <= limits.pods and round(miss_percent, 2) <= limits.miss_percent
    return "reached" if exact else "within tolerance"


def check(seeds: Sequence[int], folder: Path, text: str = "") -> bool:
    """Run the rows with ``text`` in their names and print how it went; whether all are reached.

    Of those that are not, what other policies do there. A check that was cut short goes on where it was.
    """
    all_shapes = {**shapes(folder), "burst10": bursts(), "steady": steady()}
    chosen = [row for row in rows() if text in _name(row)]
    if not chosen:
        print(f"no row's name has {text!r} in it; some names: {', '.join(map(_name, rows()[:3]))}")
        return False
    shaped = [(row, all_shapes[row.case.trace].first(_SECONDS[row.case.scale])) for row in chosen]
    journal = Journal(path_for("rows" + re.sub(r"\W+", "-", text)))
    missed: list[tuple[Row, Shape]] = []
    with runner_for([run for one in shaped for run in _runs_of(*one, seeds)], journal) as runner:
        print(_HEAD, flush=True)
        for _, group in groupby(shaped, key=lambda one: (one[0].what, one[0].case.workload, one[0].case.scale)):
            missed += _check_group(list(group), seeds, runner)
    if missed:
        _print_others(missed, seeds, journal)
    journal.remove()
    return not missed


def _check_group(
    shaped: Sequence[tuple[Row, Shape]], seeds: Sequence[int], runner: Runner
) -> Iterator[tuple[Row, Shape]]:  # fmt: skip
    """Those that are not reached."""
    runs = [run for one in shaped for run in _runs_of(*one, seeds)]
    done = list(zip(runs, runner.read_all(runs), strict=True))
    for row, shape in shaped:
        slo, aimd = (
            [reading for run, reading in done if run.case == row.case and run.policy == policy]
            for policy in ("slo", "aimd")
        )
        judged = verdict(row.limits, slo, aimd)
        print(_line(_name(row), slo, row.limits, judged), flush=True)
        if judged.startswith("not"):
            yield row, shape


def _runs_of(row: Row, shape: Shape, seeds: Sequence[int]) -> list[Run]:
    policies = ("slo", *(("aimd",) if row.limits.p50_of_aimd else ()))
    return [run for policy in policies for run in _runs(row, shape, policy, seeds)]


def _runs(row: Row, shape: Shape, policy: str, seeds: Sequence[int], static: Static | None = None) -> list[Run]:
    return [
        Run(case=row.case, shape=shape, policy=policy, seed=seed, static=static, changes=row.changes)
        for seed in seeds
    ]  # fmt: skip


def _name(row: Row) -> str:
    return " ".join(filter(None, (row.case.workload, f"x{row.case.scale}", row.case.trace, row.what)))


def _line(name: str, readings: Sequence[Reading], limits: Limits | None = None, note: str = "") -> str:
    pods, miss_percent, p50_ms, p99_ms = mean_of(readings)
    most = (f"{limits.pods:.2f}", f"{limits.miss_percent:.2f}") if limits else ("", "")
    batch = sum(one.mean_batch for one in readings) / len(readings)
    return (
        f"{name:44}{pods:8.2f}{most[0]:>7}{miss_percent:9.3f}{most[1]:>7}{p50_ms:7.0f}{p99_ms:7.0f}{batch:7.1f}  {note}"
    )


def _print_others(missed: Sequence[tuple[Row, Shape]], seeds: Sequence[int], journal: Journal) -> None:
    """What the comparable policies do where `slo` falls short: the limits come from another world."""
    trials = [(row, shape, Trial(row.case, shape, row.changes)) for row, shape in missed]
    planned = [
        run
        for row, shape, trial in trials
        for run in (*statics.planned([trial]), *_runs_of_others(row, shape, STATICS[row.case.scale][0], seeds))
    ]
    with runner_for(planned, journal) as runner:
        for row, shape, trial in trials:
            runs = _runs_of_others(row, shape, statics.choose([trial], runner.read_all)[row.case], seeds)
            for _, readings in groupby(runner.read_all(runs), key=lambda one: one.policy):
                found = list(readings)
                print(_line(f"  {_name(row)}, {found[0].policy}", found, note=found[0].setting), flush=True)


def _runs_of_others(row: Row, shape: Shape, static: Static, seeds: Sequence[int]) -> list[Run]:
    others: tuple[tuple[str, Static | None], ...] = (("none", None), ("aimd", None), ("static", static))
    return [run for policy, setting in others for run in _runs(row, shape, policy, seeds, setting)]
