"""The paper's comparison, simulated: pods and misses of six policies. **Effects.**

    python -m bench.paper [--quick | --full | --render | --rows [TEXT] [--seeds 1 2 3]] [--traces FOLDER]

Writes bench/results/paper-*.json, docs/results.md with its pictures, and the table that the README quotes. Started
again after it was cut short, it goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from bench.paper import record, rows
from bench.paper.comparison import DEFAULT, FULL, QUICK, Plan, courses
from bench.paper.journal import Journal, path_for
from bench.paper.page import overview
from bench.paper.plan import WORKLOADS, Case
from bench.paper.readings import Reading
from bench.paper.runner import runner_for
from bench.paper.shapes import TRACES, Shape, shapes
from bench.paper.summary import Readings
from bench.processes import PROJECT


def main() -> int:
    """The command."""
    arguments = _parser().parse_args()
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("what is done is kept: the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.paper", description=(__doc__ or "").partition("\n")[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--quick", action="store_true", help="a small table in the terminal; writes nothing")
    what.add_argument("--full", action="store_true", help="three seeds, 60 minutes at ×1, 40 at ×10: some hours")
    what.add_argument("--render", action="store_true", help="only write page and table anew from the newest results")
    what.add_argument(
        "--rows", nargs="?", const="", metavar="TEXT",
        help="only check what the policy slo has to reach; with TEXT the rows whose name has it",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of --rows")
    parser.add_argument("--traces", type=Path, default=TRACES, help="folder of the real traces; stand-ins without it")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.rows is not None:
        return 0 if rows.check(arguments.seeds, arguments.traces, arguments.rows) else 1
    if arguments.render:
        newest = record.newest()
        if newest is None:
            print("there are no results yet: run it without --render", file=sys.stderr)
            return 1
        record.publish(newest)
    elif arguments.quick:
        _show(shapes(arguments.traces))
    else:
        _compare(FULL if arguments.full else DEFAULT, shapes(arguments.traces))
    return 0


def _show(traffic: dict[str, Shape]) -> None:
    journal = Journal()
    readings = _readings(QUICK, traffic, journal)
    table = overview(record.document_of(readings, traffic, QUICK, journal.cpu_s), Readings(readings))
    Console().print(Markdown(table))


def _compare(plan: Plan, traffic: dict[str, Shape]) -> None:
    journal = Journal(path_for(plan.name))
    readings = _readings(plan, traffic, journal)
    path = record.write(record.document_of(readings, traffic, plan, journal.cpu_s))
    print(f"wrote {path.relative_to(PROJECT)}", flush=True)
    shape = traffic["azf"]
    series = courses(Case("ours", 1, "fashion", "azf"), shape, ("none", "aimd", "slo"))
    record.publish_courses(series, WORKLOADS["fashion"].slo_ms, f"fashion ×1; {shape.source}")
    record.publish(path)
    print(f"wrote {record.PAGE.relative_to(PROJECT)} and the README's table", flush=True)
    journal.remove()


def _readings(plan: Plan, traffic: dict[str, Shape], journal: Journal) -> list[Reading]:
    with runner_for(plan.planned(traffic), journal) as runner:
        return plan.compare(traffic, runner.read_all)


if __name__ == "__main__":
    sys.exit(main())
