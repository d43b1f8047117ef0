"""Live runs beside the simulations of the same scenarios. **Pure.**"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rich.table import Table

from mlproxy.simulate import Report

#: How far a live run may be from its simulation. The pods hinge on when a six-second mean crosses a threshold, and the
#: service times are drawn in another order.
PODS_WITHIN_SHARE, MISSES_WITHIN = 0.2, 0.01
_DIGITS = {"slo_miss_share": 4, "mean_batch": 2, "p50_ms": 1, "p95_ms": 1, "p99_ms": 1}


class Pair(NamedTuple):
    """What was measured, and what the simulator says."""

    live: Report
    simulated: Report

    def disagreements(self) -> Iterator[str]:
        """Where the two are too far apart."""
        live, simulated = self.live, self.simulated
        if abs(live.mean_ready_pods - simulated.mean_ready_pods) > PODS_WITHIN_SHARE * simulated.mean_ready_pods:
            yield f"ready pods {live.mean_ready_pods:.2f} live, {simulated.mean_ready_pods:.2f} simulated"
        if abs(live.slo_miss_share - simulated.slo_miss_share) > MISSES_WITHIN:
            yield f"misses {live.slo_miss_share:.2%} live, {simulated.slo_miss_share:.2%} simulated"


def table(pair: Pair, title: str) -> Table:
    """A row per number of the report."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("")
    for column in ("live", "simulated", "difference"):
        shown.add_column(column, justify="right")
    live, simulated = pair.live.to_json(), pair.simulated.to_json()
    for name, measured in live.items():
        shown.add_row(name, *_cells(measured, simulated[name], _DIGITS.get(name, 3)))
    return shown


def _cells(live: float, simulated: float, digits: int) -> tuple[str, str, str]:
    digits = 0 if isinstance(live, int) else digits
    return f"{live:,.{digits}f}", f"{simulated:,.{digits}f}", f"{live - simulated:+,.{digits}f}"
