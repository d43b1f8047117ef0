"""A configuration at a glance. **Pure.**"""

from __future__ import annotations

from rich.table import Table

from mlproxy.config import Configuration, Endpoint
from mlproxy.units import format_duration


def summary(configuration: Configuration) -> Table:
    """A row per endpoint."""
    server = configuration.server
    table = Table(title=f"OK: {server.host}:{server.port}, workers {server.workers}", title_justify="left")
    for column in ("endpoint", "route", "backend", "SLO", "batching"):
        table.add_column(column, overflow="fold")
    for endpoint in configuration.endpoints:
        table.add_row(
            endpoint.name, f"POST {endpoint.predict_path}", "\n".join(endpoint.backend.urls),
            f"{endpoint.slo.share:.4g} within {format_duration(endpoint.slo.latency_ns)}", _batching(endpoint),
        )  # fmt: skip
    return table


def _batching(endpoint: Endpoint) -> str:
    batching = endpoint.batching
    inflight = endpoint.backend.scaling.slots if batching.max_inflight == "auto" else batching.max_inflight
    if batching.policy == "none":
        return f"none, {inflight} in flight"
    linger = format_duration(batching.max_linger_ns or 0)
    return f"{batching.policy}, up to {batching.max_size}, linger {linger}, {inflight} in flight"
