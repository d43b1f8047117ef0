"""What runs have shown, kept as it comes: a comparison that was cut short goes on where it was. **Effects**: a file.

A line per run. The file's name says which code the runs are of, so that none is taken for what other code would do.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import orjson

from bench.paper.readings import Reading
from bench.paper.runs import Read, Run
from bench.processes import PROJECT

FOLDER = PROJECT / "bench" / ".build" / "paper"
#: What a run and its reading depend on, beside the run itself.
_CODE = (
    "mlproxy/engine", "mlproxy/simulate", "mlproxy/config", "mlproxy/units.py", "bench/paper/bound.py",
    "bench/paper/plan.py", "bench/paper/readings.py", "bench/paper/runs.py",
)  # fmt: skip


def path_for(what: str) -> Path:
    """Where runs of the present code are kept."""
    digest = hashlib.sha256(f"{platform.python_version()} {np.__version__}".encode())
    for source in _sources():
        digest.update(source.read_bytes())
    return FOLDER / f"{what}-{digest.hexdigest()[:16]}.jsonl"


def _sources() -> Iterator[Path]:
    for name in _CODE:
        path = PROJECT / name
        yield from [path] if path.is_file() else sorted(path.rglob("*.py"))


class Journal:
    """By run, what it has shown; in ``path`` too, if there is one."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, Read] = {}
        if path is not None and path.exists():
            self._load(path)
        self.resumed = len(self._known)  #: runs that were known from the beginning

    def __repr__(self) -> str:
        return f"<Journal: {len(self._known)} runs, {self.cpu_s:.0f} CPU-s>"

    def __contains__(self, run: Run) -> bool:
        return _key(run) in self._known

    def __getitem__(self, run: Run) -> Read:
        return self._known[_key(run)]

    @property
    def cpu_s(self) -> float:
        """What all of them took."""
        return sum(read.cpu_s for read in self._known.values())

    def add(self, run: Run, read: Read) -> None:
        """Keep it."""
        key = _key(run)
        self._known[key] = read
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(orjson.dumps([key, read.cpu_s, asdict(read.reading)]) + b"\n")

    def remove(self) -> None:
        """Nothing is left to go on with."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _load(self, path: Path) -> None:
        *lines, torn = path.read_bytes().split(b"\n")
        if torn:  # written by a process that was killed
            path.write_bytes(b"".join(line + b"\n" for line in lines))
        for line in lines:
            key, cpu_s, fields = orjson.loads(line)
            self._known[key] = Read(Reading(**fields), cpu_s)


def _key(run: Run) -> str:
    return hashlib.sha256(repr(run).encode()).hexdigest()
