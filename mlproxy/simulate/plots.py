"""Runs as a picture, in the manner of the paper's figures. **Effects**: writes a file. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlproxy.simulate.measure import Series

#: A colour per policy, the same in every picture, from the Okabe-Ito palette, which the colour-blind can tell apart.
COLOURS = {
    "none": "#999999", "aimd": "#E69F00", "static": "#56B4E9", "clipper": "#CC79A7", "bentoml": "#009E73",
    "slo": "#D55E00",
}  # fmt: skip


def draw(runs: Mapping[str, Series], slo_ms: float, title: str, path: Path) -> None:
    """Arrivals, pods, P95 against the SLO and batch size over time, and the tail of the latencies, into ``path``."""
    with matplotlib.rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "svg.hashsalt": "mlproxy"}):
        figure = Figure(figsize=(9, 12), layout="constrained")
        arrivals, pods, p95, size, tail = figure.subplots(5, 1)
        figure.suptitle(title)
        _arrivals(arrivals, next(iter(runs.values())))
        for policy, series in runs.items():
            minutes, style = series.seconds / 60, {"label": policy, "color": COLOURS.get(policy, "black"), "lw": 1.2}
            pods.step(minutes, series.ready_pods, where="post", **style)
            p95.plot(minutes, series.p95_ms, **style)
            size.plot(minutes, series.batch_size, **style)
            _tail(tail, series, style)
        for axes, label in ((pods, "ready pods"), (p95, "P95 latency, ms"), (size, "batch size")):
            axes.set(ylabel=label, xlabel="minutes")
        for axes in (p95, tail):
            _slo(axes, slo_ms, horizontal=axes is p95)
        pods.legend(ncols=len(runs), loc="upper right")
        p95.set_yscale("log")
        figure.savefig(path, dpi=120)


def _arrivals(axes: Axes, series: Series) -> None:
    axes.plot(series.seconds / 60, series.requests_per_second, color="black", lw=1)
    axes.set(ylabel="requests/s", xlabel="minutes", ylim=(0, None))


def _tail(axes: Axes, series: Series, style: dict[str, object]) -> None:
    """The share of requests that were slower (CCDF), at 1,000 points, evenly over the decades of that share."""
    latencies_ms = series.sorted_latencies_ms
    if not len(latencies_ms):
        return
    share = np.unique(np.geomspace(1 / len(latencies_ms), 1, 1000))
    at = np.minimum(np.round((1 - share) * len(latencies_ms)).astype(int), len(latencies_ms) - 1)
    axes.plot(latencies_ms[at], share, **style)  # type: ignore[arg-type]
    axes.set(xscale="log", yscale="log", xlabel="latency, ms", ylabel="share of requests above")


def _slo(axes: Axes, slo_ms: float, *, horizontal: bool) -> None:
    line = axes.axhline if horizontal else axes.axvline
    line(slo_ms, color="black", ls="--", lw=1)
