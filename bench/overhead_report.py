"""The overhead benchmark's results as JSON, and as the table that the README shows. **Effects**: writes files."""

from __future__ import annotations

import platform
import re
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version as package_version
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from bench import tools
from bench.quotes import RESULTS, quote

Row = Mapping[str, Any]


def write_report(closed: Sequence[Row], opened: Sequence[Row], rest_pss_bytes: int, failed: int) -> str:
    """Write everything; return the table."""
    RESULTS.mkdir(exist_ok=True)
    machine = describe_machine()
    document = {
        "machine": machine, "closed": closed, "open": opened, "ingress_pss_at_rest_bytes": rest_pss_bytes,
        "failed": failed,
    }  # fmt: skip
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    (RESULTS / f"overhead-{stamp}.json").write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    table = render(closed, opened, rest_pss_bytes, machine)
    quote("overhead.md", table)
    return table


def describe_machine() -> dict[str, str]:
    """What a reader needs to judge the numbers."""
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    cores = len(re.findall(r"^processor", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
    packages = {name: package_version(name) for name in ("uvicorn", "uvloop", "httptools", "fastapi", "httpx")}
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "cpu": found[1] if found else platform.machine(),
        "cores": str(cores), "kernel": platform.release(), "python": sys.version.split()[0],
        "nginx": tools.version("nginx"), "wrk": tools.version("wrk").split(" [")[0], **packages,
    }  # fmt: skip


def render(closed: Sequence[Row], opened: Sequence[Row], rest_pss_bytes: int, machine: Mapping[str, str]) -> str:
    """Medians over the rounds, with ranges, and the ratio to nginx."""
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {machine['nginx']}, "
        f"{machine['date']}; "
        "64 connections, one worker process each; medians of the rounds [range]. CPU time is summed over all "
        "processes of a system; × nginx is the median of each round's own ratio. “nginx” is Debian's configuration "
        "with keep-alive to the backend, which writes bodies beyond 16 KiB to a file; “bodies in memory” is with "
        "`client_body_buffer_size 1m`.",
        "",
        "| body | system | requests/s | CPU-µs per request | × nginx | p50 ms | p99 ms | PSS MiB |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for body in dict.fromkeys(row["body"] for row in closed):
        rows = [row for row in closed if row["body"] == body]
        lines += [_line(body, system, rows) for system in dict.fromkeys(row["system"] for row in rows)]
    rounds = sum(1 for row in opened if row["system"] == "direct")
    lines += ["", f"Added latency at 200 requests/s, 40 B, open loop from the scheduled instant, rounds: {rounds}.", ""]
    lines += ["| system | p50 ms | added p50 ms | p99 ms |", "|---|--:|--:|--:|"]
    direct_ms = _middle(opened, "direct", "p50_ms")
    for system in dict.fromkeys(row["system"] for row in opened):
        p50_ms = _middle(opened, system, "p50_ms")
        p99_ms = _middle(opened, system, "p99_ms")
        lines.append(f"| {system} | {p50_ms:.2f} | {p50_ms - direct_ms:+.2f} | {p99_ms:.2f} |")
    lines += ["", f"An ingress worker at rest: {rest_pss_bytes / 2**20:.1f} MiB PSS."]
    return "\n".join(lines) + "\n"


def _line(body: str, system: str, rows: Sequence[Row]) -> str:
    own = [row for row in rows if row["system"] == system]
    cpu = [row["cpu_us_per_request"] for row in own]
    cells = [
        body, system, f"{median(row['requests_per_s'] for row in own):,.0f}",
        f"{median(cpu):.1f} [{min(cpu):.1f}–{max(cpu):.1f}]", _ratio(rows, own),
        f"{median(row['p50_ms'] for row in own):.2f}", f"{median(row['p99_ms'] for row in own):.2f}",
        f"{max(row['pss_bytes'] for row in own) / 2**20:.0f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _ratio(rows: Sequence[Row], own: Sequence[Row]) -> str:
    """Median of the ratios within each round: what else the machine did then hit both."""
    nginx = [row["cpu_us_per_request"] for row in rows if row["system"] == "nginx"]
    ratios = [mine["cpu_us_per_request"] / theirs for mine, theirs in zip(own, nginx, strict=True)]
    return f"{median(ratios):.2f}"


def _middle(rows: Sequence[Row], system: str, key: str) -> float:
    return float(median(row[key] for row in rows if row["system"] == system))
