"""The pictures of docs/results.md. **Effects**: writes files. Needs matplotlib (extra `plots`)."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.paper.summary import Readings, missed, pods
from mlproxy.simulate.plots import COLOURS

#: Less is drawn here: a logarithm has no zero.
_LEAST_PERCENT = 0.003


def draw_pods_and_misses(readings: Readings, path: Path) -> None:
    """A point per case and policy: the cheaper the further left, the better the further down."""
    scales = readings.scales("ours")
    with matplotlib.rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3}):
        figure = Figure(figsize=(4.5 * len(scales), 4), layout="constrained")
        for axes, scale in zip(figure.subplots(1, len(scales), squeeze=False)[0], scales, strict=True):
            _points(axes, readings, scale)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(COLOURS))
        figure.savefig(path, dpi=100)


def _points(axes: Axes, readings: Readings, scale: int) -> None:
    for policy in readings.policies("ours", scale):
        runs = [readings.run(case, policy) for case in readings.cases("ours", scale)]
        across = [fmean(pods(one) for one in run) for run in runs]
        up = [max(_LEAST_PERCENT, fmean(missed(one) for one in run)) for run in runs]
        axes.scatter(across, up, s=22, color=COLOURS[policy], label=policy, alpha=0.85, linewidths=0)
    axes.axhline(1, color="black", ls="--", lw=1)
    axes.set(
        xscale="log", yscale="log", xlabel="mean ready pods", ylabel=f"misses, % (at least {_LEAST_PERCENT})",
        title=f"×{scale}",
    )  # fmt: skip
