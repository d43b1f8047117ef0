"""Live runs one after the other, with a bar each. **Effects**: runs them, draws."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from bench.live.emulation import Emulation
from bench.live.model import ECHO, Model
from bench.load import Result
from mlproxy.simulate import Report, Scenario
from mlproxy.units import NS_PER_MS, NS_PER_S

#: The bars are drawn by a thread of the process that emulates: not more often than one can read.
_DRAWN_PER_S = 4


class Run(NamedTuple):
    """What became of a scenario."""

    report: Report
    result: Result  #: as the callers saw it, the warm-up included
    late_ms: tuple[float, float]  #: the emulator's own timers: 50th and 99th percentile


async def run_each(
    scenarios: Mapping[str, Scenario], console: Console, answer_within_s: float, model: Model = ECHO
) -> dict[str, Run]:
    """Every scenario, by its title."""
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=14),
        TextColumn("pods {task.fields[pods]:>2}, {task.fields[answered]:,} of {task.fields[due]:,} answered"),
        TimeRemainingColumn(),
    )  # fmt: skip
    progress = Progress(*columns, console=console, refresh_per_second=_DRAWN_PER_S, disable=not console.is_terminal)
    with progress:
        bars = [
            progress.add_task(title, total=scenario.duration_ns / NS_PER_S, start=False, pods=0, answered=0, due=0)
            for title, scenario in scenarios.items()
        ]
        return {
            title: await _run(Emulation(scenario, answer_within_s, model), progress, bar)
            for (title, scenario), bar in zip(scenarios.items(), bars, strict=True)
        }


async def _run(emulation: Emulation, progress: Progress, bar: TaskID) -> Run:
    async with asyncio.TaskGroup() as group:
        display = group.create_task(_display(emulation, progress, bar))
        report = await emulation.run()
        display.cancel()
    _update(emulation, progress, bar)
    late_ms = np.percentile(emulation.late_ns or [0], (50, 99)) / NS_PER_MS
    return Run(report, emulation.result, (float(late_ms[0]), float(late_ms[1])))


async def _display(emulation: Emulation, progress: Progress, bar: TaskID) -> None:
    while True:
        if emulation.elapsed_ns is not None:
            progress.start_task(bar)  # which it does once
            _update(emulation, progress, bar)
        await asyncio.sleep(1 / _DRAWN_PER_S)


def _update(emulation: Emulation, progress: Progress, bar: TaskID) -> None:
    progress.update(
        bar, completed=(emulation.elapsed_ns or 0) / NS_PER_S, pods=emulation.cluster.fleet.ready_level.now,
        answered=emulation.result.answered, due=emulation.result.due,
    )  # fmt: skip
