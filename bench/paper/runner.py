"""Simulates runs, a process per core, and says how far it is. **Effects**: starts processes, prints."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from bench.paper.estimate import Estimate, estimate_for
from bench.paper.journal import Journal
from bench.paper.progress import Progress
from bench.paper.readings import Reading
from bench.paper.runs import Run, expected_requests, read_run
from mlproxy.simulate.many import finished

PROCESSES = len(os.sched_getaffinity(0))


class Runner:
    """Runs what the journal does not know."""

    def __init__(self, journal: Journal, estimate: Estimate, progress: Progress, processes: int) -> None:
        self._journal = journal
        self._estimate = estimate
        self._progress = progress
        self._processes = processes

    def __repr__(self) -> str:
        return f"<Runner: {self._journal!r}, {self._progress!r}>"

    def read_all(self, runs: Iterable[Run]) -> list[Reading]:
        """What each of ``runs`` shows, in their order."""
        runs = list(runs)
        missing = self._missing(runs)
        for index, read in finished(read_run, missing, self._processes):
            self._journal.add(missing[index], read)
            self._progress.advance(self._estimate.cpu_s(missing[index]))
        return [self._journal[run].reading for run in runs]

    def _missing(self, runs: Sequence[Run]) -> list[Run]:
        """The longest first, so that no core waits long for the last of the others."""
        unknown = [run for run in runs if run not in self._journal]
        return sorted(unknown, key=self._estimate.cpu_s, reverse=True)


@contextmanager
def runner_for(planned: Sequence[Run], journal: Journal, processes: int = PROCESSES) -> Iterator[Runner]:
    """To run about what is ``planned``. Says first how long that will take."""
    estimate = estimate_for(planned, processes)
    left = [run for run in planned if run not in journal]
    requests, left_s = sum(map(expected_requests, left)), sum(map(estimate.cpu_s, left))
    if journal.resumed:
        print(f"going on after {journal.resumed} runs that are done already")
    time = f"{_in_words(left_s / processes)} with {processes} processes ({_in_words(left_s)} of CPU time)"
    print(f"{len(left)} runs, {requests / 1e6:.1f} million requests: about {time}", flush=True)
    with Progress(left_s, processes) as progress:
        yield Runner(journal, estimate, progress, processes)


def _in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"
