"""``mlproxy simulate``. **Effects**: prints, and writes the picture. Everything heavy is imported when it is needed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlproxy.cli.refusal import refuse

if TYPE_CHECKING:
    from mlproxy.cli.simulation import Options
    from mlproxy.simulate import Outcome, Scenario


def simulate(
    trace: Annotated[
        str, typer.Option(metavar="TRACE", help="A FILE of one number per line, poisson:RATE, "
                          "mmpp:LOW,HIGH,S_LOW,S_HIGH or step:R1@T1,R2@T2…"),
    ],
    profile: Annotated[
        str, typer.Option(metavar="PROFILE", help="The model: toxic, iris, fashion, a YAML FILE or "
                          "affine:A_MS,B_MS[,SIGMA]."),
    ],
    policy: Annotated[
        str | None, typer.Option(help="slo, aimd, static, none, clipper or bentoml. Default: slo.")
    ] = None,
    compare: Annotated[str | None, typer.Option(metavar="P,P…", help="Several, on the same arrivals.")] = None,
    slo: Annotated[str, typer.Option(metavar="DURATION", help="Latency objective.")] = "500ms",
    share: Annotated[float, typer.Option(help="Share of the requests that must meet it.")] = 0.99,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A key of the endpoint or of limits, such as "
                                       "batching.max_size=32; may be repeated."),
    ] = None,
    trace_step: Annotated[str, typer.Option(metavar="DURATION", help="How long a line of a trace file holds.")] = "60s",
    max_rps: Annotated[
        float | None, typer.Option(help="Requests/s of a file's largest line; without it lines are requests per step.")
    ] = None,
    duration: Annotated[str | None, typer.Option(metavar="DURATION", help="At most; else the trace, or 2h.")] = None,
    warmup: Annotated[str, typer.Option(metavar="DURATION", help="Not measured, at the beginning.")] = "5m",
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 1,
    target: Annotated[float, typer.Option(help="Requests per pod that the autoscaler aims at.")] = 1.0,
    utilization: Annotated[float, typer.Option(help="Share of the target that it aims at.")] = 0.7,
    container_concurrency: Annotated[int, typer.Option(help="Calls that a pod takes at once; 0: no limit.")] = 1,
    cold_start: Annotated[str, typer.Option(metavar="FROM-TO", help="Until a pod is ready, uniform.")] = "2s-5s",
    max_pods: Annotated[int, typer.Option(help="The cluster's size.")] = 100,
    min_scale: Annotated[int, typer.Option(help="Pods that always run; 0: scale to zero.")] = 1,
    fault: Annotated[
        list[str] | None, typer.Option(metavar="FAULT", help="drift:2@15m-35m, outliers:0.02,5, errors:0.3@10m-11m, "
                                       "slowpod:4@10m-25m; may be repeated."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Also draw a picture: .png, .svg or .pdf.")] = None,
) -> None:  # fmt: skip
    """What a policy would cost and miss on Knative, in virtual time."""
    _check_plot(plot)
    from mlproxy.cli.simulation import Options

    _run(
        Options(
            trace=trace, trace_step=trace_step, max_rps=max_rps, profile=profile, slo=slo, share=share,
            policy=policy, compare=compare, changes=tuple(changes or ()), duration=duration, warmup=warmup, seed=seed,
            target=target, utilization=utilization, container_concurrency=container_concurrency,
            cold_start=cold_start, max_pods=max_pods, min_scale=min_scale, faults=tuple(fault or ()),
            keep_series=plot is not None,
        ),
        as_json=json, several=compare is not None, plot=plot,
    )  # fmt: skip


def _check_plot(plot: Path | None) -> None:
    """Before the simulation, not after it."""
    if plot is None:
        return
    if plot.suffix not in (".png", ".svg", ".pdf"):
        refuse([f"--plot: {plot} is no picture; end it in .png, .svg or .pdf"])
    if not plot.absolute().parent.is_dir():
        refuse([f"--plot: the folder {plot.absolute().parent} is not there"])
    try:
        missing = find_spec("matplotlib") is None
    except ValueError:  # it is barred from being imported
        missing = True
    if missing:
        refuse(["--plot: matplotlib is not installed; run pip install -e '.[plots]' in a clone of the project"])


def _run(options: Options, *, as_json: bool, several: bool, plot: Path | None) -> None:
    from mlproxy.cli.simulation import scenarios_of
    from mlproxy.errors import ConfigurationError
    from mlproxy.simulate.many import run_many

    try:
        scenarios = scenarios_of(options)
    except ConfigurationError as error:
        refuse(error.problems)
    outcomes = dict(zip(scenarios, run_many(list(scenarios.values()), len(os.sched_getaffinity(0))), strict=True))
    _print(outcomes, options, as_json=as_json, several=several)
    if plot is not None:
        _draw(outcomes, scenarios, options, plot)


def _print(outcomes: Mapping[str, Outcome], options: Options, *, as_json: bool, several: bool) -> None:
    reports = {policy: outcome.report for policy, outcome in outcomes.items()}
    if as_json:
        import orjson

        runs = {policy: report.to_json() for policy, report in reports.items()}
        text = orjson.dumps(runs if several else next(iter(runs.values())), option=orjson.OPT_INDENT_2)
        typer.echo(text.decode())
        return
    from rich.console import Console

    from mlproxy.cli.simulation_table import table

    Console().print(table(reports, f"{options.trace}, {options.profile}, SLO {options.slo}"))


def _draw(
    outcomes: Mapping[str, Outcome], scenarios: Mapping[str, Scenario], options: Options, path: Path
) -> None:  # fmt: skip
    from mlproxy.simulate.plots import draw
    from mlproxy.units import NS_PER_MS

    slo_ms = next(iter(scenarios.values())).proxy.endpoint.slo.latency_ns / NS_PER_MS
    series = {policy: outcome.series for policy, outcome in outcomes.items() if outcome.series is not None}
    draw(series, slo_ms, f"{Path(options.trace).name}, {Path(options.profile).name}, SLO {options.slo}", path)
