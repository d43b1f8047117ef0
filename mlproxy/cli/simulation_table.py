"""Simulated runs at a glance. **Pure.**"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.table import Table

from mlproxy.simulate import Report

_ROWS: dict[str, Callable[[Report], str]] = {
    "requests": lambda run: f"{run.requests:,}",
    "failed": lambda run: f"{run.failed:,}",
    "missed the SLO": lambda run: f"{100 * run.slo_miss_share:.2f} %",
    "P50, ms": lambda run: f"{run.p50_ms:.0f}",
    "P95, ms": lambda run: f"{run.p95_ms:.0f}",
    "P99, ms": lambda run: f"{run.p99_ms:.0f}",
    "mean batch": lambda run: f"{run.mean_batch:.1f}",
    "backend calls": lambda run: f"{run.backend_calls:,}",
    "ready pods": lambda run: f"{run.mean_ready_pods:.2f}",
    "most ready pods": lambda run: f"{run.max_ready_pods}",
    "provisioned pods": lambda run: f"{run.mean_provisioned_pods:.2f}",
    "busy pods": lambda run: f"{run.mean_busy_pods:.2f}",
    "panics": lambda run: f"{run.panic_entries}",
    "cost": lambda run: f"${run.cost_usd:.3f}",
    "cost with the proxy": lambda run: f"${run.cost_usd_with_proxy:.3f}",
}


def table(runs: Mapping[str, Report], title: str) -> Table:
    """A column per policy: six fit into a terminal of 80 characters."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("policy", no_wrap=True)
    for policy in runs:
        shown.add_column(policy, justify="right", no_wrap=True)
    for name, cell in _ROWS.items():
        shown.add_row(name, *(cell(run) for run in runs.values()))
    return shown
