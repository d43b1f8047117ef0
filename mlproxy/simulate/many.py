"""Many runs at once, one process each. **Effects**: starts processes, and draws a progress bar on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mlproxy.simulate.measure import Outcome
from mlproxy.simulate.scenario import Scenario
from mlproxy.simulate.world import simulate


def run_many(scenarios: Sequence[Scenario], processes: int, *, title: str = "simulating") -> list[Outcome]:
    """The outcome of each scenario, in their order; at most ``processes`` run at a time."""
    with _progress() as progress:
        bar = progress.add_task(title, total=len(scenarios))
        outcomes: dict[int, Outcome] = {}
        for index, outcome in _finished(scenarios, min(processes, len(scenarios))):
            outcomes[index] = outcome
            progress.advance(bar)
    return [outcomes[index] for index in range(len(scenarios))]


def _finished(scenarios: Sequence[Scenario], processes: int) -> Iterator[tuple[int, Outcome]]:
    if processes <= 1:
        yield from _one_by_one(scenarios)
        return
    # Spawned, not forked: the progress bar has a thread.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        runs = {pool.submit(simulate, scenario): index for index, scenario in enumerate(scenarios)}
        try:
            for run in as_completed(runs):
                yield runs[run], run.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _one_by_one(scenarios: Iterable[Scenario]) -> Iterator[tuple[int, Outcome]]:
    for index, scenario in enumerate(scenarios):
        yield index, simulate(scenario)


@contextmanager
def _progress() -> Iterator[Progress]:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress
