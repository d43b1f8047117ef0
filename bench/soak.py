"""A proxy under callers of every kind, a backend that errs, and processes that are killed and stopped. **Effects.**

Open loop: exchanges begin at random instants at a given rate, whatever became of earlier ones. Who is hurt when, and
what callers and backend do, comes from one seed (what it meets does not, so no run is another exactly). The verdict:

* every request got one answer, its own, or a documented refusal, in time; only a killed worker loses connections;
* at rest nothing waits and nothing is in flight, and every answer that a caller saw has been counted;
* memory and descriptors of no process have grown; no process is left; no log has a traceback.

    python -m bench.soak [--duration 5m] [--rate 100] [--seed 1] [--hurt-every 4s] [--policy static|linger|none|slo]

ends with 0 if all of that held, with 1 and a list of what did not.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import psutil
import uvloop

from bench.processes import Process, Proxy, running, wait_until
from bench.soak_caller import ANSWER_WITHIN_S, Caller, Tally
from bench.soak_kinds import MIX
from mlproxy.units import NS_PER_S, parse_duration

#: Beyond what allocators and pools settle at after the first fifth of a run.
LARGEST_GROWTH_BYTES = 40 * 2**20
MOST_OPEN_FDS_AT_REST = 100
REST_WITHIN_S = 15.0
BATCHING = {
    "static": {"max_size": 8}, "linger": {"max_size": 8, "max_linger": "20ms"}, "none": {"policy": "none"},
    "slo": {"policy": "slo", "max_size": 8},
}  # fmt: skip


class ErraticServer(Process):
    """``bench.erratic_server``. Arguments are its flags."""

    listening = re.compile(r"^(http://\S+)$", re.MULTILINE)
    ready_path = "/"

    def __init__(self, *flags: str) -> None:
        super().__init__([sys.executable, "-m", "bench.erratic_server", "--port", "0", *flags])


def configuration(backend_url: str, policy: str) -> dict[str, Any]:
    """Two endpoints, two workers, and every bound so near that it is reached."""
    backend = {"urls": [backend_url], "timeout": "2s"}
    endpoints = [
        {"name": "a", "batching": BATCHING[policy], "backend": backend},
        {"name": "b", "protocol": "json-list", "batching": BATCHING[policy], "backend": backend},
    ]
    limits = {"body": "1MiB", "queue_instances": 400, "queue_bytes": "4MiB", "connections": 600}
    return {
        "server": {"workers": 2, "ring": "64KiB", "drain_timeout": "10s"}, "limits": limits, "endpoints": endpoints,
    }  # fmt: skip


class Chaos:
    """Hurts one process after the other."""

    def __init__(self, proxy: Proxy, tally: Tally, rng: random.Random, every_s: float) -> None:
        self._supervisor = psutil.Process(proxy.pid)
        self._tally = tally
        self._random = rng
        self._every_s = every_s

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._random.expovariate(1 / self._every_s))
            roles = [child for child in self._supervisor.children() if child.is_running()]
            if roles:
                with suppress(psutil.NoSuchProcess):
                    await self._hurt(self._random.choice(roles))

    async def _hurt(self, victim: psutil.Process) -> None:
        name = " ".join(victim.cmdline()).strip()
        if self._random.random() < 0.5:
            self._tally.saw(f"stopped {name}")
            victim.suspend()
            try:
                await asyncio.sleep(self._random.uniform(0.1, 2))
            finally:
                victim.resume()
        else:
            self._tally.saw(f"killed {name}")
            victim.kill()
            if "ingress" in name:
                self._tally.worker_killed_ns = time.monotonic_ns()


async def load(address: tuple[str, int], tally: Tally, rng: random.Random, rate_per_s: float, until_ns: int) -> None:
    """Begin exchanges until then; return when all have ended."""
    kinds, weights, number = list(MIX), list(MIX.values()), 0
    async with asyncio.TaskGroup() as callers:
        while time.monotonic_ns() < until_ns:
            await asyncio.sleep(rng.expovariate(rate_per_s))
            number += 1
            [kind] = rng.choices(kinds, weights)
            callers.create_task(Caller(address, tally, random.Random(rng.random()), number).run(kind))


class Soak:
    """One run."""

    def __init__(self, proxy: Proxy, arguments: argparse.Namespace) -> None:
        self.tally = Tally()
        self._proxy = proxy
        self._arguments = arguments
        self._early: dict[str, int] = {}

    def run(self) -> list[str]:
        """Load and chaos, then rest; everything that was wrong."""
        uvloop.run(self._disturb())
        if not wait_until(self._at_rest, REST_WITHIN_S):
            self.tally.wrong.append(f"not at rest: {orjson.dumps(self._proxy.status()['endpoints']).decode()}")
        self._check_counters()
        self._check_processes()
        return self.tally.wrong

    async def _disturb(self) -> None:
        host, _, port = self._proxy.url.removeprefix("http://").partition(":")
        until_ns = time.monotonic_ns() + int(self._arguments.duration_s * NS_PER_S)
        rng = random.Random(self._arguments.seed)
        chaos = Chaos(self._proxy, self.tally, random.Random(rng.random()), self._arguments.hurt_every_s)
        disturbance = asyncio.create_task(chaos.run())
        memory = asyncio.create_task(self._look_at_memory(self._arguments.duration_s / 5))
        await load((host, int(port)), self.tally, rng, self._arguments.rate, until_ns)
        disturbance.cancel()
        memory.cancel()
        await asyncio.gather(disturbance, memory, return_exceptions=True)

    async def _look_at_memory(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self._early = {title: process.memory_info().rss for title, process in self._processes().items()}

    def _processes(self) -> dict[str, psutil.Process]:
        supervisor = psutil.Process(self._proxy.pid)
        return {" ".join(process.cmdline()).strip(): process for process in (supervisor, *supervisor.children())}

    def _at_rest(self) -> bool:
        with suppress(OSError):
            return self._proxy.ready() and not any(
                endpoint["queue_depth"] or endpoint["queue_bytes"] or endpoint["backend_inflight"]
                for endpoint in self._proxy.status()["endpoints"]
            )
        return False

    def _check_counters(self) -> None:
        """A caller that left, or was lost with its worker, did not see what was counted."""
        counted: dict[str, int] = {}
        for endpoint in self._proxy.status()["endpoints"]:
            for code, count in endpoint["by_code"].items():
                counted[code] = counted.get(code, 0) + count
        for code, seen in self.tally.statuses.items():
            if counted.get(code, 0) < seen:
                self.tally.wrong.append(f"callers saw {seen} times {code}, counted were {counted.get(code, 0)}")
        if sum(counted.values()) > self.tally.sent:
            self.tally.wrong.append(f"{sum(counted.values())} answers to {self.tally.sent} requests")

    def _check_processes(self) -> None:
        for title, process in self._processes().items():
            growth = process.memory_info().rss - self._early.get(title, process.memory_info().rss)
            print(f"{title}: {process.memory_info().rss >> 20} MiB ({growth / 2**20:+.1f}), {process.num_fds()} fds")
            if growth > LARGEST_GROWTH_BYTES:
                self.tally.wrong.append(f"{title} has grown by {growth >> 20} MiB")
            if process.num_fds() > MOST_OPEN_FDS_AT_REST:
                self.tally.wrong.append(f"{title} has {process.num_fds()} descriptors open")


def soak(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Start everything, run, stop everything."""
    log, file = folder / "proxy.log", folder / "mlproxy.yaml"
    with running(ErraticServer("--seed", str(arguments.seed), "--trouble", str(arguments.trouble))) as backend:
        file.write_bytes(orjson.dumps(configuration(backend.url, arguments.policy)))  # YAML contains JSON
        proxy = Proxy("-c", str(file), log=log)
        try:
            proxy.wait_until_ready()
            run = Soak(proxy, arguments)
            wrong = run.run()
            pids = [process.pid for process in psutil.Process(proxy.pid).children()]
        finally:
            exit_code = proxy.stop(within_s=ANSWER_WITHIN_S)
    for outcome, count in run.tally.outcomes.most_common():
        print(f"{count:8} {outcome}")
    print(f"slowest exchange: {run.tally.slowest_s:.1f} s")
    if exit_code:
        wrong.append(f"the proxy ended with {exit_code}")
    wrong += [f"process {pid} is left" for pid in pids if _runs(pid)]
    if "Traceback" in (text := log.read_text()):
        wrong.append("a traceback in the log:\n" + text[max(0, text.index("Traceback") - 300) :][:3000])
    return wrong


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def main() -> int:
    """Run, and say the verdict."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="mlproxy-soak-") as folder:
        wrong = soak(arguments, Path(folder))
        if arguments.log is not None:
            arguments.log.write_bytes((Path(folder) / "proxy.log").read_bytes())
    for line in wrong[:50]:
        print(f"WRONG: {line}")
    print("all held" if not wrong else f"{len(wrong)} things were wrong")
    return 1 if wrong else 0


def _seconds(text: str) -> float:
    return parse_duration(text) / NS_PER_S


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="Chaos with a verdict.")
    parser.add_argument("--duration", dest="duration_s", type=_seconds, default="5m", help="of the load [5m]")
    parser.add_argument("--rate", type=float, default=100, help="exchanges begun per second [100]")
    parser.add_argument("--seed", type=int, default=1, help="[1]")
    parser.add_argument("--hurt-every", dest="hurt_every_s", type=_seconds, default="4s", help="on average [4s]")
    parser.add_argument("--trouble", type=int, default=50, help="one backend call in so many goes wrong [50]")
    parser.add_argument("--policy", choices=BATCHING, default="static", help="[static]")
    parser.add_argument("--log", type=Path, help="where to keep the proxy's log")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
