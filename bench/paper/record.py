"""What a comparison found, as JSON, and the page made of it. **Effects**: reads and writes files."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from bench.paper.comparison import Plan
from bench.paper.page import page, readme_table
from bench.paper.pictures import draw_pods_and_misses
from bench.paper.readings import Reading
from bench.paper.shapes import Shape
from bench.paper.summary import Readings
from bench.processes import PROJECT
from bench.quotes import RESULTS, quote
from mlproxy.simulate import Series
from mlproxy.simulate.plots import draw

TABLE = "paper.md"
PAGE = PROJECT / "docs" / "results.md"


def document_of(readings: Sequence[Reading], shapes: Mapping[str, Shape], plan: Plan, cpu_s: float) -> dict[str, Any]:
    """All that the page needs."""
    return {
        "made": {
            "date": time.strftime("%Y-%m-%d", time.gmtime()), "python": platform.python_version(),
            "cpu_minutes": round(cpu_s / 60), "plan": plan.name, "extent": plan.extent,
            "real_traces": any(not shape.source.startswith("generated") for shape in shapes.values()),
        },
        "traces": {name: shape.source for name, shape in shapes.items()},
        "readings": [asdict(one) for one in readings],
    }  # fmt: skip


def write(document: Mapping[str, Any], root: Path = PROJECT) -> Path:
    """As bench/results/paper-*.json, a line per run."""
    rest = {key: value for key, value in document.items() if key != "readings"}
    lines = b",\n".join(orjson.dumps(one) for one in document["readings"])
    path = root / "bench" / "results" / f"paper-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(rest)[:-1] + b',"readings":[\n' + lines + b"\n]}\n")
    return path


def newest() -> Path | None:
    """The latest comparison, if there is one."""
    return max(RESULTS.glob("paper-*.json"), default=None)


def read(path: Path) -> tuple[dict[str, Any], Readings]:
    """A comparison that was written."""
    document = orjson.loads(path.read_bytes())
    return document, Readings(Reading(**one) for one in document["readings"])


def publish(path: Path, root: Path = PROJECT) -> None:
    """Write the page and the picture of all cases, and the table into the README."""
    document, readings = read(path)
    draw_pods_and_misses(readings, _pictures(root) / "pods-and-misses.png")
    (root / "docs" / "results.md").write_text(page(document, readings), encoding="utf-8")
    quote(TABLE, readme_table(document, readings), root)


def publish_courses(courses: Mapping[str, Series], slo_ms: float, title: str, root: Path = PROJECT) -> None:
    """Write the picture of one case over time."""
    draw(courses, slo_ms, title, _pictures(root) / "fashion-azf.png")


def _pictures(root: Path) -> Path:
    folder = root / "docs" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
