"""Run the proxy against an emulated Knative cluster, in real time. **Effects.**

    python -m bench.live --policy slo [--json]
    python -m bench.live --compare none,aimd,slo [--json]

The options are those of `mlproxy simulate`, with traffic and a length that suit real time. One policy prints what was
measured; several print it beside the simulation of the same scenario, and the command ends with 1 if they disagree.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

import orjson
import uvloop
from rich.console import Console

from bench.live.comparison import Pair, table
from bench.live.runs import Run, run_each
from bench.open_loop import allow_many_connections
from bench.processes import ProcessFailed
from bench.signals import Interrupted, until_signalled
from mlproxy.cli.simulation import Options, scenarios_of
from mlproxy.errors import ConfigurationError
from mlproxy.simulate import Scenario
from mlproxy.simulate.many import run_many
from mlproxy.simulate.rivals import RIVALS

#: `mlproxy simulate`'s options. Traffic and length differ: what shows pods come and go within three minutes.
_DEFAULTS: dict[str, str | float | int | None] = {
    "trace": "mmpp:10,50,30,8", "trace-step": "60s", "max-rps": None, "profile": "toxic", "slo": "500ms", "share": 0.99,
    "duration": "3m", "warmup": "30s", "seed": 1, "target": 1.0, "utilization": 0.7, "container-concurrency": 1,
    "cold-start": "2s-5s", "max-pods": 100, "min-scale": 1,
}  # fmt: skip
#: For answers, after the last request was due: as long as a call and its repetitions may take.
_ANSWER_WITHIN_S = 30.0


def main() -> int:
    """The command."""
    arguments = _arguments()
    try:
        options = _options(arguments)
        _check_live(options.policies)
        scenarios = scenarios_of(options)
    except ConfigurationError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return 2
    allow_many_connections()
    console = Console(stderr=True)
    try:
        runs = uvloop.run(until_signalled(run_each(scenarios, console, _ANSWER_WITHIN_S)))
    except ProcessFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        return interrupted.exit_code
    for policy, run in runs.items():
        late = " and ".join(f"{ms:.1f} ms" for ms in run.late_ms)
        console.print(f"{policy}: the emulator's timers were late by {late} (50th and 99th percentile)")
    if arguments.compare is None:
        _print_json(next(iter(runs.values())).report.to_json())
        return 0
    return _compare(scenarios, runs, arguments)


def _check_live(policies: Sequence[str]) -> None:
    rivals = [policy for policy in policies if policy in RIVALS]
    if rivals:
        raise ConfigurationError([f"{policy}: only the simulator has it" for policy in rivals])


def _compare(scenarios: Mapping[str, Scenario], runs: Mapping[str, Run], arguments: argparse.Namespace) -> int:
    simulated = run_many(list(scenarios.values()), len(os.sched_getaffinity(0)))
    pairs = {
        policy: Pair(run.report, outcome.report) for (policy, run), outcome in zip(runs.items(), simulated, strict=True)
    }
    if arguments.json:
        _print_json(
            {
                "live": {policy: pair.live.to_json() for policy, pair in pairs.items()},
                "simulated": {policy: pair.simulated.to_json() for policy, pair in pairs.items()},
            }
        )
    else:
        for policy, pair in pairs.items():
            title = f"{policy}: {arguments.trace}, {arguments.profile}, SLO {arguments.slo}"
            Console().print(table(pair, title))
    disagreements = [f"{policy}: {text}" for policy, pair in pairs.items() for text in pair.disagreements()]
    for text in disagreements:
        print(text, file=sys.stderr)
    return 1 if disagreements else 0


def _print_json(document: object) -> None:
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.live", description="The proxy before an emulated Knative.")
    policies = parser.add_mutually_exclusive_group(required=True)
    policies.add_argument("--policy", help="print what was measured, as JSON")
    policies.add_argument("--compare", metavar="P,P…", help="print it beside the simulation")
    for name, default in _DEFAULTS.items():
        kind = float if name == "max-rps" else type(default)
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"as of mlproxy simulate [{default}]")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--fault", action="append", default=[], dest="faults")
    parser.add_argument("--json", action="store_true", help="of a comparison too")
    return parser.parse_args()


def _options(arguments: argparse.Namespace) -> Options:
    given = {name.replace("-", "_"): getattr(arguments, name.replace("-", "_")) for name in _DEFAULTS}
    return Options(
        **given,
        policy=arguments.policy,
        compare=arguments.compare,
        changes=tuple(arguments.changes),
        faults=tuple(arguments.faults),
        keep_series=False,
    )


if __name__ == "__main__":
    sys.exit(main())
