"""See what batching saves: the same traffic twice, through the proxy, to a model on an emulated Knative. **Effects.**

First every request is a call of its own (`policy: none`), then requests share calls as the objective allows
(`policy: slo`). The proxy, the callers and HTTP are real; pods and autoscaler are `bench.live`'s. Whatever ends the
demo, no process of it stays behind.

    python -m bench.demo [--seconds 8]
"""

from __future__ import annotations

import sys

INTERRUPTED = "Interrupted: every process of the demo has ended."

try:
    import argparse
    import asyncio
    from dataclasses import dataclass

    import uvloop
    from rich.console import Console
    from rich.table import Table

    from bench.iris import train
    from bench.live.model import of_flowers
    from bench.live.runs import Run, run_each
    from bench.open_loop import allow_many_connections
    from bench.processes import ProcessFailed
    from bench.signals import Interrupted, until_signalled
    from mlproxy.simulate import ClusterSettings, Report, Scenario, proxy_for, simulate
    from mlproxy.simulate.arrivals import Poisson
    from mlproxy.simulate.profiles import Affine
    from mlproxy.units import NS_PER_MS, NS_PER_S
except KeyboardInterrupt:  # these take a good part of a second: Ctrl-C is as likely here as anywhere
    print(INTERRUPTED)
    sys.exit(130)

#: Four times what one pod can do with a call for every request (24/s), half of what it can do with batches of twenty.
RATE_PER_S = 100.0
#: Of traffic for each policy: long enough for the first pods to come, since they take 2 to 5.
SECONDS = 8.0
SLO_MS = 500
MODEL = Affine(a_ms=40.0, b_ms=1.0, sigma=0.1)
CLUSTER = ClusterSettings(max_pods=10)
#: How long to wait for what is still queued after the last request was due: whatever is left has missed the objective.
ANSWER_WITHIN_S = 1.0
#: What comes after the burst is simulated, without the first two minutes: Knative looks back one.
LATER_NS, LATER_WARMUP_NS = 300 * NS_PER_S, 120 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Policy:
    """A column of the table."""

    title: str
    name: str
    pays_for_proxy: bool  #: it needs one, so a pod for it is on the bill

    def __str__(self) -> str:
        return f"{self.title} (policy: {self.name})"


POLICIES = (Policy("one by one", "none", pays_for_proxy=False), Policy("batched", "slo", pays_for_proxy=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one policy made of the traffic: of a burst, live, and of what comes after it, simulated."""

    policy: Policy
    run: Run
    later: Report


def main(seconds: float = SECONDS) -> int:
    """Show it, with ``seconds`` of traffic for each policy. 128 and the signal's number after a signal."""
    console = Console()
    allow_many_connections()
    scenarios = {str(policy): scenario(policy, int(seconds * NS_PER_S)) for policy in POLICIES}
    classifier = train()
    console.print(_INTRODUCTION.format(accuracy=classifier.accuracy()), highlight=False, soft_wrap=True)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runs = runner.run(until_signalled(run_each(scenarios, console, ANSWER_WITHIN_S, of_flowers(classifier))))
        outcomes = [Outcome(policy=policy, run=runs[str(policy)], later=_later(policy)) for policy in POLICIES]
    except Interrupted as interrupted:
        console.print(INTERRUPTED)
        return interrupted.exit_code
    except KeyboardInterrupt:  # before or after the loop that handles signals
        console.print(INTERRUPTED)
        return 130
    except ProcessFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    console.print(_table(outcomes), _HOW_TO_READ, _HOW_TO_GO_ON, sep="\n", highlight=False, soft_wrap=True)
    return 0


def scenario(policy: Policy, duration_ns: int, warmup_ns: int = 0) -> Scenario:
    """The same callers, model and cluster for every policy."""
    return Scenario(
        trace=Poisson(RATE_PER_S), profile=MODEL, proxy=proxy_for(policy.name, slo=f"{SLO_MS}ms", cluster=CLUSTER),
        cluster=CLUSTER, duration_ns=duration_ns, warmup_ns=warmup_ns,
    )  # fmt: skip


def _later(policy: Policy) -> Report:
    return simulate(scenario(policy, LATER_NS, LATER_WARMUP_NS)).report


_INTRODUCTION = f"""\
A model that names irises, trained just now ({{accuracy:.1%}} of the flowers named rightly),
on a Knative that is emulated on this machine: a pod serves one call at a time, in
{MODEL.a_ms:.0f} ms + {MODEL.b_ms:.0f} ms per instance; it takes 2 to 5 s to start; there is one to begin with,
and Knative's autoscaler may have {CLUSTER.max_pods}. The proxy, HTTP, the predictions and the callers are
real: {RATE_PER_S:.0f} requests a second at random instants, one flower each. Their objective
(SLO): an answer within {SLO_MS} ms.
"""

_HOW_TO_READ = f"""
Latency counts from the instant a request was due, over all requests. A run
stops waiting {ANSWER_WITHIN_S:g} s after the last one: what is unanswered then has missed the
SLO, and "no answer" stands where a percentile falls on such a request.

"Later" is what this burst settles to: minutes of the same traffic, simulated with
the proxy's own engine. Costs are Cloud Run's for pods of 1 CPU and 1 GiB, with one
pod more for the proxy where it batches.
"""

_HOW_TO_GO_ON = """\
Go on, each in a terminal of its own:

  make model
  .venv/bin/mlproxy serve --backend http://127.0.0.1:9000 --name iris --slo 200ms --max-inflight 1
  curl http://127.0.0.1:8080/v1/models/iris:predict -d '{"instances": [[5.1, 3.5, 1.4, 0.2]]}'

Put your own model server in place of the first line. What your traffic would cost:

  .venv/bin/mlproxy simulate --trace mmpp:20,100,30,8 --profile affine:40,1,0.1 --compare none,aimd,slo

README.md tells the rest.
"""


def _table(outcomes: list[Outcome]) -> Table:
    """A column per policy."""
    table = Table(title="The same traffic, twice", title_justify="left")
    table.add_column("")
    for outcome in outcomes:
        table.add_column(f"{outcome.policy.title}\n(policy: {outcome.policy.name})", justify="right")
    columns = [figures(outcome) for outcome in outcomes]
    for row in columns[0]:
        table.add_row(row, *(column[row] for column in columns), end_section=row == _LAST_LIVE_ROW)
    return table


_LAST_LIVE_ROW = "cost of the burst"


def figures(outcome: Outcome) -> dict[str, str]:
    """A column of the table, by the names of its rows. The README shows some of them."""
    report, result, _ = outcome.run
    later, hours = outcome.later, (LATER_NS - LATER_WARMUP_NS) / NS_PER_S / 3600
    return {
        "requests sent": f"{result.due:,}",
        "requests/s served": f"{result.answered_per_s:.0f}",
        **{f"p{percent}": _milliseconds(result.percentile_ms(percent)) for percent in (50, 95, 99)},
        f"SLO met (within {SLO_MS} ms)": f"{result.share_within(SLO_MS * NS_PER_MS):.1%}",
        "mean batch size": f"{report.mean_batch:.1f}",
        "backend calls": f"{report.backend_calls:,}",
        "pods, at most": f"{report.max_ready_pods}",
        _LAST_LIVE_ROW: f"${_cost_usd(outcome.policy, report):.4f}",
        "later: pods": f"{later.mean_ready_pods:.1f}",
        "later: cost of an hour": f"${_cost_usd(outcome.policy, later) / hours:.2f}",
    }


def _cost_usd(policy: Policy, report: Report) -> float:
    return report.cost_usd_with_proxy if policy.pays_for_proxy else report.cost_usd


def _milliseconds(latency_ms: float | None) -> str:
    return "no answer" if latency_ms is None else f"{latency_ms:,.0f} ms"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.demo", description="See what batching saves.")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of traffic for each policy [{SECONDS:g}]")
    sys.exit(main(parser.parse_args().seconds))
