"""What a comparison found, as JSON, and the page made of it. **Effects**: reads and writes files."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from bench.paper.page import page, readme_table
from bench.paper.readings import Reading
from bench.paper.shapes import Shape
from bench.paper.summary import Readings
from bench.processes import PROJECT
from bench.quotes import RESULTS, quote

PAGE = PROJECT / "docs" / "results.md"
PICTURES = PROJECT / "docs" / "results"


def document_of(
    readings: Sequence[Reading], shapes: Mapping[str, Shape], *, full: bool, extent: str, cpu_s: float
) -> dict[str, Any]:  # fmt: skip
    """All that the page needs."""
    return {
        "made": {
            "date": time.strftime("%Y-%m-%d", time.gmtime()), "python": platform.python_version(),
            "cpu_minutes": round(cpu_s / 60), "full": full, "extent": extent,
            "real_traces": any(not shape.source.startswith("generated") for shape in shapes.values()),
        },
        "traces": {name: shape.source for name, shape in shapes.items()},
        "readings": [asdict(one) for one in readings],
    }  # fmt: skip


def write(document: Mapping[str, Any]) -> Path:
    """As bench/results/paper-*.json, a line per run."""
    rest = {key: value for key, value in document.items() if key != "readings"}
    lines = b",\n".join(orjson.dumps(one) for one in document["readings"])
    path = RESULTS / f"paper-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    path.write_bytes(orjson.dumps(rest)[:-1] + b',"readings":[\n' + lines + b"\n]}\n")
    return path


def newest() -> Path | None:
    """The latest comparison, if there is one."""
    return max(RESULTS.glob("paper-*.json"), default=None)


def read(path: Path) -> tuple[dict[str, Any], Readings]:
    """A comparison that was written."""
    document = orjson.loads(path.read_bytes())
    return document, Readings(Reading(**one) for one in document["readings"])


def rendered(path: Path) -> tuple[str, str]:
    """(docs/results.md, bench/results/paper.md) of what was written to ``path``."""
    document, readings = read(path)
    return page(document, readings), readme_table(document, readings)


def publish(path: Path) -> None:
    """Write the page and its picture, and the table into the README."""
    from bench.paper.pictures import draw_pods_and_misses  # matplotlib is an extra; `rendered` needs none

    results, table = rendered(path)
    PICTURES.mkdir(exist_ok=True)
    draw_pods_and_misses(read(path)[1], PICTURES / "pods-and-misses.png")
    PAGE.write_text(results, encoding="utf-8")
    quote("paper.md", table)
