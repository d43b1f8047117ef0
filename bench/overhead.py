"""What a proxy in between costs: MLProxy beside nothing, nginx and a naive batcher. **Effects.**

    python -m bench.overhead [--rounds 3] [--seconds 5]

Every round drives every system in turn with the same closed load (wrk, 64 connections), so that what else the machine
does hits all alike; then an open load of 200 requests/s finds the latency that each adds. CPU time is that of all
processes of a system. Results go to bench/results: each run as JSON, and the table of the last one.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson

from bench import tools
from bench.load import Load, poisson_ns
from bench.open_loop import measure
from bench.overhead_report import write_report
from bench.processes import Process, ProcessFailed
from bench.readings import cpu_ns, pss_bytes, tree
from bench.systems import INFER, PREDICT, running_systems

CONNECTIONS = 64
OPEN_RATE_PER_S = 200.0
_WRK_SCRIPT = """
wrk.method = "POST"
{headers}
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
"""
_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One system under one body in one round."""

    system: str
    body: str
    requests_per_s: float
    cpu_us_per_request: float
    p50_ms: float
    p99_ms: float
    pss_bytes: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenReading:
    """One system under the open load, 40 B."""

    system: str
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What is sent, where and how it says what it is."""

    data: bytes
    path: str = PREDICT
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    skip: tuple[str, ...] = ()  #: systems that do not speak it


def make_bodies() -> dict[str, Body]:
    """One instance each: four numbers as iris has them, as many four-digit numbers as fill 10 and 150 KiB, and 150 KiB
    of a tensor in binary.
    """
    numbers = random.Random(1)

    def filled(size_bytes: int) -> bytes:
        count = (size_bytes - 20) // 8
        return orjson.dumps({"instances": [[round(numbers.uniform(0.1, 1), 5) for _ in range(count)]]})

    return {
        "40 B": Body(data=b'{"instances": [[5.1, 3.5, 1.4, 0.210]]}'),
        "10 KiB": Body(data=filled(10_240)),
        "150 KiB": Body(data=filled(153_600)),
        "150 KiB, v2 binary": _tensor_body(153_600, numbers),
    }


def _tensor_body(size_bytes: int, numbers: random.Random) -> Body:
    """One row of KServe v2, whose caller wants its outputs in binary too."""
    tensor = {
        "name": "x", "shape": [1, size_bytes // 4], "datatype": "FP32", "parameters": {"binary_data_size": size_bytes},
    }  # fmt: skip
    text = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(text))}
    return Body(data=text + numbers.randbytes(size_bytes), path=INFER, headers=headers, skip=("naive batcher",))


def run_wrk(url: str, script: Path, seconds: int) -> tuple[int, float, float, float, int]:
    """(requests, requests/s, p50 ms, p99 ms, failed) of a closed load."""
    command = [
        tools.find("wrk") or "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(script), url,
    ]  # fmt: skip
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    requests, elapsed_s = _numbers(said, r"(\d+) requests in ([\d.]+)s")
    if not requests:
        raise ProcessFailed(f"{url} answered nothing within {seconds} s; a busy machine needs longer: --seconds")
    failed = sum(_numbers(said, r"Non-2xx or 3xx responses: (\d+)"))
    failed += sum(_numbers(said, r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)"))
    return int(requests), requests / elapsed_s, _latency_ms(said, 50), _latency_ms(said, 99), int(failed)


def _numbers(text: str, pattern: str) -> list[float]:
    found = re.search(pattern, text)
    return [float(number) for number in found.groups()] if found else []


def _latency_ms(text: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s)\s*$", text, re.MULTILINE)
    if found is None:
        raise ProcessFailed(f"wrk printed no {percent}th percentile:\n{text}")
    return float(found[1]) * _UNITS_MS[found[2]]


def read_closed(name: str, process: Process, body: str, path: str, script: Path, seconds: int) -> Reading:
    """Drive one system once."""
    pids = tree(process.pid)
    before_ns = cpu_ns(pids)
    requests, per_s, p50_ms, p99_ms, failed = run_wrk(process.url + path, script, seconds)
    return Reading(
        system=name, body=body, requests_per_s=round(per_s, 1),
        cpu_us_per_request=round((cpu_ns(pids) - before_ns) / 1000 / requests, 2), p50_ms=p50_ms, p99_ms=p99_ms,
        pss_bytes=pss_bytes(pids), failed=failed,
    )  # fmt: skip


def read_open(name: str, process: Process, body: bytes, seconds: float) -> OpenReading:
    """Latency from the scheduled instant, with nothing else to do."""
    load = Load(url=process.url + PREDICT, bodies=[body], due_ns=poisson_ns(OPEN_RATE_PER_S, seconds))
    result = measure(load)
    p50_ms, p99_ms = result.percentile_ms(50), result.percentile_ms(99)
    if p50_ms is None or p99_ms is None:
        raise ProcessFailed(f"{name} failed requests: {dict(result.failed)}")
    return OpenReading(system=name, p50_ms=round(p50_ms, 3), p99_ms=round(p99_ms, 3))


def run_rounds(systems: Mapping[str, Process], rounds: int, seconds: int) -> tuple[list[Reading], list[OpenReading]]:
    """Everything, interleaved: rounds outside, bodies next, systems inside."""
    bodies = make_bodies()
    closed: list[Reading] = []
    opened: list[OpenReading] = []
    with tempfile.TemporaryDirectory(prefix="mlproxy-bench-") as folder:
        scripts = {name: _write_script(Path(folder), index, body) for index, (name, body) in enumerate(bodies.items())}
        for number in range(-1, rounds):  # the first warms up: caches, pools, nginx's and our memory
            label = f"round {number + 1}" if number >= 0 else "warm-up"
            for body, script in scripts.items():
                for name, process in systems.items():
                    if name in bodies[body].skip:
                        continue
                    within_s = min(2, seconds) if number < 0 else seconds
                    reading = read_closed(name, process, body, bodies[body].path, script, within_s)
                    print(f"{label}  {body:>18}  {name:24} {reading.requests_per_s:9.0f}/s "
                          f"{reading.cpu_us_per_request:8.1f} CPU-µs", flush=True)  # fmt: skip
                    if number >= 0:
                        closed.append(reading)
            if number >= 0:
                print(f"{label}  latency at {OPEN_RATE_PER_S:g} requests/s", flush=True)
                for name, process in systems.items():
                    opened.append(read_open(name, process, bodies["40 B"].data, float(seconds)))
    return closed, opened


def _write_script(folder: Path, index: int, body: Body) -> Path:
    body_file, script = folder / f"{index}.body", folder / f"{index}.lua"
    body_file.write_bytes(body.data)
    headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in body.headers.items())
    script.write_text(_WRK_SCRIPT.format(body=body_file, headers=headers))
    return script


def rest_pss_bytes(proxy: Process) -> int:
    """The largest ingress worker before its first request."""
    workers = [pid for pid in tree(proxy.pid) if "ingress" in Path(f"/proc/{pid}/cmdline").read_text()]
    return max(pss_bytes([pid]) for pid in workers)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    arguments = parser.parse_args()
    try:
        tools.provide("wrk", "nginx", "cc")
        with running_systems() as systems:
            at_rest = rest_pss_bytes(systems["MLProxy"])
            closed, opened = run_rounds(systems, arguments.rounds, arguments.seconds)
    except (tools.ToolMissing, ProcessFailed) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    failed = sum(reading.failed for reading in closed if reading.system == "MLProxy")
    print(write_report([asdict(one) for one in closed], [asdict(one) for one in opened], at_rest, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
