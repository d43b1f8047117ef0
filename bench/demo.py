"""See what batching does: a model server, the proxy in front of it, and the same traffic twice. **Effects.**

First every request is a call of its own (`policy: none`), then requests that wait share a call (`policy: static`).
Whatever ends the demo, no process of it stays behind.

    python -m bench.demo [--seconds 9]
"""

from __future__ import annotations

import sys

INTERRUPTED = "Interrupted: every process of the demo has ended."

try:
    import argparse
    import asyncio
    import signal
    from collections.abc import Awaitable
    from dataclasses import dataclass

    import orjson
    import uvloop
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
    from rich.table import Table

    from bench.iris import measurements, train
    from bench.load import Load, Result, poisson_ns
    from bench.open_loop import OpenLoop, allow_many_connections
    from bench.processes import START_WITHIN_S, ModelServer, Process, ProcessFailed, Proxy
    from mlproxy.units import NS_PER_MS
except KeyboardInterrupt:  # these take a good part of a second: Ctrl-C is as likely here as anywhere
    print(INTERRUPTED)
    sys.exit(130)

#: What one call at a time of 41 ms cannot carry (24/s), and calls of seven instances can.
RATE_PER_S = 150.0
SLO_MS = 500
#: How long to wait for what is still queued after the last request was due: whatever is left has missed the objective.
ANSWER_WITHIN_S = 1.0
STOP_WITHIN_S = 5.0
_PREDICT = "/v1/models/iris:predict"


@dataclass(frozen=True, slots=True)
class Policy:
    """A column of the table."""

    title: str
    name: str
    flags: tuple[str, ...] = ()


POLICIES = (
    Policy("one by one", "none"),
    Policy("batched", "static", ("--max-size", "64")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one policy made of the traffic, seen by the callers and by the backend."""

    policy: Policy
    result: Result
    mean_batch_size: float
    backend_calls: int


def main(seconds: float = 9.0) -> int:
    """Show it, with ``seconds`` of traffic for each policy. 130 after Ctrl-C."""
    console = Console()
    allow_many_connections()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_until_signalled(_show(console, seconds), console))
    except KeyboardInterrupt:  # before or after the loop that handles signals
        print(INTERRUPTED)
        return 130
    except ProcessFailed as failure:
        print(failure, file=sys.stderr)
        return 1


async def _until_signalled(work: Awaitable[None], console: Console) -> int:
    """Cancel ``work`` on the first SIGINT or SIGTERM and let it clean up; the ones after that change nothing."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    caught: list[int] = []

    def stop(number: int) -> None:
        caught.append(number)
        if len(caught) == 1:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        await task
    except asyncio.CancelledError:
        if not caught:
            raise
        console.print(INTERRUPTED)
        return 128 + caught[0]
    return 0


async def _show(console: Console, seconds: float) -> None:
    console.print(_INTRODUCTION.format(accuracy=train().accuracy()), highlight=False)
    model = ModelServer()
    try:
        await _ready(model)
        outcomes = await _measure_all(model, console, seconds)
    finally:
        model.stop(STOP_WITHIN_S)
    console.print(_table(outcomes), _HOW_TO_READ, _HOW_TO_GO_ON, sep="\n", highlight=False, soft_wrap=True)


async def _measure_all(model: ModelServer, console: Console, seconds: float) -> list[Outcome]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[answered]} of {task.fields[due]} answered"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bars = [
            progress.add_task(f"{policy.title} (policy: {policy.name})", total=seconds, start=False, answered=0, due=0)
            for policy in POLICIES
        ]
        return [
            await _measure(policy, model, seconds, progress, bar) for policy, bar in zip(POLICIES, bars, strict=True)
        ]


async def _measure(policy: Policy, model: ModelServer, seconds: float, progress: Progress, bar: TaskID) -> Outcome:
    """Start a proxy with ``policy``, drive it, ask it what it did."""
    proxy = Proxy(
        "--backend", model.url, "--name", "iris", "--slo", f"{SLO_MS}ms", "--policy", policy.name, *policy.flags,
        "--max-inflight", "1", "--workers", "1",
    )  # fmt: skip
    try:
        await _ready(proxy)
        progress.start_task(bar)
        result = await _drive(proxy.url + _PREDICT, seconds, progress, bar)
        endpoint = proxy.status()["endpoints"][0]
    finally:
        proxy.stop(STOP_WITHIN_S)
    return Outcome(
        policy=policy, result=result, mean_batch_size=endpoint["mean_batch_size"] or 0.0,
        backend_calls=endpoint["backend_calls"],
    )  # fmt: skip


async def _drive(url: str, seconds: float, progress: Progress, bar: TaskID) -> Result:
    """Every policy gets the same flowers at the same instants."""
    bodies = [orjson.dumps({"instances": [flower]}) for flower in measurements().tolist()]
    generator = OpenLoop(
        Load(url=url, bodies=bodies, due_ns=poisson_ns(RATE_PER_S, seconds), answer_within_s=ANSWER_WITHIN_S)
    )
    async with asyncio.TaskGroup() as group:
        display = group.create_task(_display(generator.result, progress, bar))
        result = await generator.run()
        display.cancel()
    progress.update(bar, completed=seconds, answered=result.answered, due=result.due)
    return result


async def _display(result: Result, progress: Progress, bar: TaskID) -> None:
    while True:
        await asyncio.sleep(0.1)
        progress.update(bar, completed=progress.tasks[bar].elapsed, answered=result.answered, due=result.due)


async def _ready(process: Process) -> None:
    try:
        async with asyncio.timeout(START_WITHIN_S):
            while not process.ready():  # noqa: ASYNC110 - another process sets no Event
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise process.failure(f"was not ready within {START_WITHIN_S:g} s") from None


_INTRODUCTION = f"""\
A real model server (softmax regression on iris, {{accuracy:.0%}} right) serves one
call at a time, in 40 ms + 1 ms per instance: 24 calls a second. The callers:
{RATE_PER_S:.0f} requests a second at random instants, one flower each. Their objective
(SLO): an answer within {SLO_MS} ms.
"""

_HOW_TO_READ = f"""
Latency counts from the instant a request was due, over all requests. A run
stops waiting {ANSWER_WITHIN_S:g} s after the last one: what is unanswered then has missed the
SLO, and "no answer" stands where a percentile falls on such a request.
"""

_HOW_TO_GO_ON = """\
Go on, each in a terminal of its own:

  .venv/bin/python -m bench.model_server --port 9000
  .venv/bin/mlproxy serve --backend http://127.0.0.1:9000 --name iris --slo 200ms --max-inflight 1
  curl http://127.0.0.1:8080/v1/models/iris:predict -H 'Content-Type: application/json' \\
       -d '{"instances": [[5.1, 3.5, 1.4, 0.2]]}'

Put your own model server in place of the first line. README.md tells the rest.
"""


def _table(outcomes: list[Outcome]) -> Table:
    """A column per policy."""
    table = Table(title="The same traffic, twice", title_justify="left")
    table.add_column("")
    for outcome in outcomes:
        table.add_column(f"{outcome.policy.title}\n(policy: {outcome.policy.name})", justify="right")
    columns = [figures(outcome) for outcome in outcomes]
    for row in columns[0]:
        table.add_row(row, *(column[row] for column in columns))
    return table


def figures(outcome: Outcome) -> dict[str, str]:
    """A column of the table, by the names of its rows. The README shows some of them."""
    result = outcome.result
    return {
        "requests sent": f"{result.due:,}",
        "answered": f"{result.answered:,}",
        "requests/s served": f"{result.answered_per_s:.0f}",
        **{f"p{percent}": _milliseconds(result.percentile_ms(percent)) for percent in (50, 95, 99)},
        f"SLO met (within {SLO_MS} ms)": f"{result.share_within(SLO_MS * NS_PER_MS):.1%}",
        "mean batch size": f"{outcome.mean_batch_size:.1f}",
        "backend calls": f"{outcome.backend_calls:,}",
    }


def _milliseconds(latency_ms: float | None) -> str:
    return "no answer" if latency_ms is None else f"{latency_ms:,.0f} ms"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.demo", description="See what batching does.")
    parser.add_argument("--seconds", type=float, default=9.0, help="of traffic for each policy [9]")
    sys.exit(main(parser.parse_args().seconds))
