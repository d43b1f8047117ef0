"""From a plan to the page, small: simulated, cut short, gone on with, written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.paper import record
from bench.paper.comparison import Part, Plan, courses
from bench.paper.journal import Journal
from bench.paper.page import page as render_page
from bench.paper.plan import POLICIES, Case
from bench.paper.readings import Reading
from bench.paper.runner import runner_for
from bench.paper.runs import Read, Run
from bench.paper.shapes import Alternating, Shape

TRAFFIC: dict[str, Shape] = {"mmpp": Alternating("generated: by turns", 0.2, 30, 8)}
PLAN = Plan(
    name="tiny",
    extent="minutes",
    parts=(
        Part(method="paper", scale=1, seeds=(1,), policies=("none", "aimd", "slo"), workloads=("toxic",), seconds=780),
        Part(method="ours", scale=1, seeds=(1, 2), workloads=("toxic",), seconds=420),
    ),
)


class CutShortError(Exception):
    """In place of a Ctrl-C."""


class CutShort(Journal):
    """Ends the comparison after some runs."""

    def add(self, run: Run, read: Read) -> None:
        """Keep a few."""
        super().add(run, read)
        if len(self._known) == 7:
            raise CutShortError


def compared(journal: Journal) -> list[Reading]:
    with runner_for(PLAN.planned(TRAFFIC), journal, processes=1) as runner:
        return PLAN.compare(TRAFFIC, runner.read_all)


def test_a_comparison_that_is_cut_short_goes_on_where_it_was_and_ends_in_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "journal.jsonl"
    with pytest.raises(CutShortError):
        compared(CutShort(path))
    journal = Journal(path)
    assert journal.resumed == 7
    readings = compared(journal)
    assert "going on after 7 runs" in capsys.readouterr().out
    assert [one.policy for one in readings] == ["none", "aimd", "slo", *(policy for policy in POLICIES for _ in "12")]
    assert all(one.requests > 0 for one in readings)

    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# Title\n\n<!-- bench/results/paper.md -->\n<!-- end -->\n")
    written = record.write(record.document_of(readings, TRAFFIC, PLAN, journal.cpu_s), tmp_path)
    case = Case("ours", 1, "toxic", "mmpp")
    record.publish_courses(courses(case, TRAFFIC["mmpp"].first(420), ("none",), processes=1), 500, "toxic", tmp_path)
    record.publish(written, tmp_path)
    page = (tmp_path / "docs" / "results.md").read_text()
    assert page == render_page(*record.read(written))
    assert page.count("| mmpp | `slo` |") == 2
    claim = re.search(r"92 % fewer pods\*\* than `none`, `slo` at ×1: (.*)", page)
    assert claim is not None
    assert "toxic mmpp" in claim[1]
    pictures = tmp_path / "docs" / "results"
    assert {picture.name for picture in pictures.iterdir()} == {"fashion-azf.png", "pods-and-misses.png"}
    assert all(f"results/{picture.name}" in page for picture in pictures.iterdir())
    assert (tmp_path / "bench" / "results" / "paper.md").read_text() in (tmp_path / "README.md").read_text()
