"""How far it is: a bar on a terminal, elsewhere a line a minute. **Effects**: prints, reads the clock."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

_LINE_EVERY_S = 60


class Progress(AbstractContextManager["Progress"]):
    """Counts work in CPU seconds as they were estimated; what is left is told by how fast it has been so far."""

    def __init__(self, total_cpu_s: float, processes: int) -> None:
        self._total_s = total_cpu_s / processes
        self._done_s = 0.0
        self._processes = processes
        self._began_s = self._told_s = time.monotonic()
        console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("simulating", total=self._total_s)

    def __repr__(self) -> str:
        return f"<Progress: {self._done_s:.0f} of {self._total_s:.0f} s>"

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        self._bar.stop()

    def advance(self, cpu_s: float) -> None:
        """A run is done that should have taken so long."""
        self._done_s += cpu_s / self._processes
        left = f"{self.left_s() / 60:.0f} min left"
        self._bar.update(self._task, completed=self._done_s, description=f"simulating, {left}")
        if self._bar.disable and time.monotonic() - self._told_s >= _LINE_EVERY_S:
            self._told_s = time.monotonic()
            print(f"{self._percent():.0f} %, {left}", flush=True)

    def _percent(self) -> float:
        return min(100.0, 100 * self._done_s / self._total_s) if self._total_s else 100.0

    def left_s(self) -> float:
        """As long as the estimate says, stretched by what it was wrong about so far."""
        elapsed_s = time.monotonic() - self._began_s
        stretched = elapsed_s / self._done_s if self._done_s else 1.0
        return max(0.0, self._total_s - self._done_s) * stretched
