"""Many runs at once, one process each. **Effects**: starts processes, and draws a progress bar on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mlproxy.simulate.measure import Outcome
from mlproxy.simulate.scenario import Scenario
from mlproxy.simulate.world import simulate

T = TypeVar("T")
R = TypeVar("R")


def run_many(scenarios: Sequence[Scenario], processes: int, *, title: str = "simulating") -> list[Outcome]:
    """The outcome of each scenario, in their order; at most ``processes`` run at a time."""
    with _progress() as progress:
        bar = progress.add_task(title, total=len(scenarios))
        outcomes: dict[int, Outcome] = {}
        for index, outcome in finished(simulate, scenarios, processes):
            outcomes[index] = outcome
            progress.advance(bar)
    return [outcomes[index] for index in range(len(scenarios))]


def finished(work: Callable[[T], R], items: Sequence[T], processes: int) -> Iterator[tuple[int, R]]:
    """Each item's index and what ``work``, a function of a module, made of it, as it is done; begun in their order."""
    processes = min(processes, len(items))
    if processes <= 1:
        yield from ((index, work(item)) for index, item in enumerate(items))
        return
    # Spawned, not forked: the progress bar has a thread.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        runs = {pool.submit(work, item): index for index, item in enumerate(items)}
        try:
            for run in as_completed(runs):
                yield runs[run], run.result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _progress() -> Iterator[Progress]:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress
