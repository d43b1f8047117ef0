"""The emulated cluster with the real proxy in front of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import uvloop

from bench.live.emulation import Emulation
from bench.processes import PROJECT, wait_until
from mlproxy.simulate import ClusterSettings, Report, Scenario, proxy_for, simulate
from mlproxy.simulate.arrivals import Poisson
from mlproxy.simulate.faults import Fault
from mlproxy.simulate.profiles import Affine
from mlproxy.units import NS_PER_S

COMMAND = [sys.executable, "-m", "bench.live", "--trace", "poisson:30", "--profile", "affine:20,1"]
CLUSTER = ClusterSettings(cold_start_ns=(NS_PER_S // 4, NS_PER_S // 2), max_pods=6)


def scenario(policy: str, rate_per_s: float, seconds: int, faults: tuple[Fault, ...] = ()) -> Scenario:
    return Scenario(
        trace=Poisson(rate_per_s), profile=Affine(40, 1), proxy=proxy_for(policy, cluster=CLUSTER), cluster=CLUSTER,
        faults=faults, duration_ns=seconds * NS_PER_S, warmup_ns=0, seed=3,
    )  # fmt: skip


def live(wanted: Scenario) -> Report:
    return uvloop.run(Emulation(wanted, answer_within_s=10).run())


def test_pods_come_when_every_request_is_a_call_as_in_the_simulation() -> None:
    wanted = scenario("none", 80, seconds=5)
    measured, simulated = live(wanted), simulate(wanted).report
    assert (measured.requests, measured.failed) == (simulated.requests, 0)
    assert simulated.backend_calls == simulated.requests
    # What leaves in the trace's last milliseconds reaches the cluster after its end, and is not counted any more.
    assert 0 <= measured.requests - measured.backend_calls <= 3
    assert measured.max_ready_pods == simulated.max_ready_pods == 6
    assert abs(measured.mean_ready_pods - simulated.mean_ready_pods) < 0.2 * simulated.mean_ready_pods
    assert measured.slo_miss_share > 0.1


def test_batches_spare_them() -> None:
    wanted = scenario("slo", 80, seconds=5)
    measured, simulated = live(wanted), simulate(wanted).report
    assert (measured.requests, measured.failed) == (simulated.requests, 0)
    assert measured.max_ready_pods == simulated.max_ready_pods == 1
    assert abs(measured.mean_batch - simulated.mean_batch) < 0.3 * simulated.mean_batch


def test_a_cluster_that_fails_is_seen_by_the_callers() -> None:
    measured = live(scenario("none", 20, seconds=2, faults=(Fault(kind="errors", share=1.0),)))
    assert (measured.answered, measured.failed, measured.slo_miss_share) == (0, measured.requests, 1.0)
    assert measured.backend_calls > measured.requests  # 503 is tried again


def test_calls_that_are_under_way_at_the_end_are_let_go(caplog: pytest.LogCaptureFixture) -> None:
    wanted = replace(scenario("none", 20, seconds=1), profile=Affine(700, 0))
    measured = uvloop.run(Emulation(wanted, answer_within_s=0.1).run())
    assert measured.failed >= measured.requests - 2
    assert caplog.records == []


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"COLUMNS": "100", "TMPDIR": str(folder)}


def test_the_command_prints_the_numbers_of_the_simulator(tmp_path: Path) -> None:
    command = subprocess.run(
        [*COMMAND, "--compare", "none,static", "--duration", "2s", "--warmup", "500ms", "--json"], cwd=PROJECT,
        env=environment(tmp_path), capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    printed = json.loads(command.stdout)
    assert list(printed) == ["live", "simulated"]
    for runs in printed.values():
        assert list(runs) == ["none", "static"]
        assert all(list(report) == list(Report.__dataclass_fields__) for report in runs.values())
    assert printed["live"]["none"]["requests"] == printed["simulated"]["none"]["requests"]
    assert list(tmp_path.iterdir()) == []


def test_what_only_the_simulator_has_is_refused(tmp_path: Path) -> None:
    command = subprocess.run(
        [*COMMAND, "--policy", "clipper"], cwd=PROJECT, env=environment(tmp_path), capture_output=True, text=True,
        timeout=50, check=False,
    )  # fmt: skip
    assert (command.returncode, command.stdout, command.stderr) == (2, "", "clipper: only the simulator has it\n")


def test_ctrl_c_ends_the_proxy(tmp_path: Path) -> None:
    children: list[psutil.Process] = []
    with subprocess.Popen(
        [*COMMAND, "--policy", "slo"], cwd=PROJECT, env=environment(tmp_path), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as command:  # fmt: skip
        try:

            def proxy_is_whole() -> bool:
                children[:] = psutil.Process(command.pid).children(recursive=True)
                return len(children) >= 4

            assert wait_until(proxy_is_whole, within_s=20)
            command.send_signal(signal.SIGINT)
            output, _ = command.communicate(timeout=20)
        finally:
            command.kill()
    assert (command.returncode, output) == (130, "")
    assert [child for child in children if child.is_running()] == []
    assert list(tmp_path.iterdir()) == []
