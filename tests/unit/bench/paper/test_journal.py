"""What is kept of a comparison that was cut short."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.paper import journal
from bench.paper.journal import Journal
from bench.paper.plan import Case
from bench.paper.runs import Read, Run
from bench.paper.shapes import steady
from bench.processes import PROJECT
from tests.unit.bench.paper.readings import made

RUNS = [Run(case=Case("ours", 1, "toxic", "steady"), shape=steady(), policy="slo", seed=seed) for seed in (1, 2, 3)]


def test_what_was_kept_is_known_to_the_next_process_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "runs.jsonl"
    first = Journal(path)
    for run in RUNS[:2]:
        first.add(run, Read(made(seed=run.seed), 1.5))
    second = Journal(path)
    assert [run in second for run in RUNS] == [True, True, False]
    assert second[RUNS[1]] == Read(made(seed=2), 1.5)
    assert (first.resumed, second.resumed, second.cpu_s) == (0, 2, 3.0)
    second.remove()
    assert Journal(path).resumed == 0


def test_a_line_that_was_cut_off_is_dropped_and_the_next_one_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    whole = Journal(path)
    for run in RUNS[:2]:
        whole.add(run, Read(made(seed=run.seed), 1.0))
    path.write_bytes(path.read_bytes()[:-10])
    torn = Journal(path)
    assert [run in torn for run in RUNS] == [True, False, False]
    torn.add(RUNS[2], Read(made(seed=3), 1.0))
    assert [run in Journal(path) for run in RUNS] == [True, False, True]


def test_other_code_finds_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "code.py"
    monkeypatch.setattr(journal, "_CODE", (str(code),))
    code.write_text("old")
    before = journal.path_for("default")
    assert journal.path_for("default") == before
    assert journal.path_for("full") != before
    code.write_text("new")
    assert journal.path_for("default") != before


def test_the_code_that_decides_what_a_run_shows_is_there() -> None:
    names = {str(path.relative_to(PROJECT)) for path in journal._sources()}
    assert {"mlproxy/engine/policies/slo.py", "mlproxy/simulate/world.py", "bench/paper/plan.py"} <= names
