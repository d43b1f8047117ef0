"""The paper's comparison, simulated: pods and misses of six policies. **Effects.**

    python -m bench.paper [--full] [--traces FOLDER] [--render] [--rows [TEXT] [--seeds 1 2 3]]

Writes bench/results/paper-*.json, docs/results.md with its pictures, and the table that the README quotes.
"""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path

from bench.paper import record, rows
from bench.paper.comparison import DEFAULT, FULL, compare, courses
from bench.paper.plan import WORKLOADS, Case
from bench.paper.shapes import TRACES, Shape, shapes
from bench.processes import PROJECT
from mlproxy.simulate.plots import draw

_EXTENT = {
    False: "two seeds and 40 minutes at ×1, one seed and 15 minutes around the peak at ×10",
    True: "three seeds, an hour at ×1 and 40 minutes at ×10",
}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.paper", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="three seeds, and nothing shortened: some hours")
    parser.add_argument("--traces", type=Path, default=TRACES, help="folder of the real traces; stand-ins without it")
    parser.add_argument("--render", action="store_true", help="only write page and table anew from the newest results")
    parser.add_argument(
        "--rows", nargs="?", const="", metavar="TEXT",
        help="only check what the policy slo has to reach; with TEXT the rows whose name has it",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of --rows")
    arguments = parser.parse_args()
    try:
        if arguments.rows is not None:
            return 0 if rows.check(arguments.seeds, arguments.traces, arguments.rows) else 1
        if arguments.render:
            newest = record.newest()
            if newest is None:
                parser.error("there are no results yet: run it without --render")
            record.publish(newest)
        else:
            _compare(arguments.traces, full=arguments.full)
    except KeyboardInterrupt:
        return 130
    return 0


def _compare(folder: Path, *, full: bool) -> None:
    traffic = shapes(folder)
    readings = compare(FULL if full else DEFAULT, traffic)
    cpu_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    path = record.write(record.document_of(readings, traffic, full=full, extent=_EXTENT[full], cpu_s=cpu_s))
    print(f"wrote {path.relative_to(PROJECT)}", flush=True)
    record.publish(path)
    _draw_courses(traffic["azf"])


def _draw_courses(shape: Shape) -> None:
    series = courses(Case("ours", 1, "fashion", "azf"), shape, ("none", "aimd", "slo"))
    slo_ms = WORKLOADS["fashion"].slo_ms
    draw(series, slo_ms, f"fashion ×1; {shape.source}", record.PICTURES / "fashion-azf.png")


if __name__ == "__main__":
    sys.exit(main())
