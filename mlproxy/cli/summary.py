"""A configuration at a glance. **Effects** only in `print_summary`."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from mlproxy.config import Configuration, Endpoint, advice
from mlproxy.config.values import NO_LIMIT
from mlproxy.units import format_duration

_COLUMNS = ("endpoint", "route", "backend", "SLO", "batching")


def print_summary(configuration: Configuration) -> None:
    """To a terminal a table; to a pipe or a file a line per endpoint, whole, with tabs between the columns."""
    console = Console(highlight=False, markup=False)
    server = configuration.server
    console.print(f"OK: {server.host}:{server.port}, workers {server.workers}", soft_wrap=True)
    if console.is_terminal:
        console.print(_table(configuration))
    else:
        for row in _rows(configuration):
            print("\t".join(row))  # noqa: T201 - rich would turn tabs into spaces
    for note in advice(configuration):
        console.print(f"note: {note}", soft_wrap=True)


def _table(configuration: Configuration) -> Table:
    table = Table()
    for column in _COLUMNS:
        table.add_column(column, overflow="fold")
    for row in _rows(configuration):
        table.add_row(*row)
    return table


def _rows(configuration: Configuration) -> Iterator[tuple[str, ...]]:
    for endpoint in configuration.endpoints:
        objective = f"{endpoint.slo.share:.4g} within {format_duration(endpoint.slo.latency_ns)}"
        yield (
            endpoint.name, f"POST {endpoint.predict_path}", " ".join(endpoint.backend.urls), objective,
            _batching(endpoint),
        )  # fmt: skip


def _batching(endpoint: Endpoint) -> str:
    batching = endpoint.batching
    words: list[str] = [batching.policy]
    if batching.policy != "none":
        words.append(f"up to {batching.max_size}")
    if batching.policy == "static" or batching.max_linger_ns is not None:
        words.append(f"linger {format_duration(batching.max_linger_ns or 0)}")
    if endpoint.max_inflight < NO_LIMIT:
        words.append(f"{endpoint.max_inflight} in flight")
    else:
        words.append("a call per pod" if batching.policy == "slo" else "any number in flight")
    return ", ".join(words)
