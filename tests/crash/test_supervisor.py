"""The supervisor stops, is killed, or cannot start: nothing that was admitted is lost, and nobody is left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.processes import PROJECT, Proxy, running_proxy, wait_until
from mlproxy.config import Configuration
from tests.crash.callers import (
    Callers,
    Load,
    pid_of,
    predict,
    predictions,
    proxy_before,
    seen_by,
    slow_echo,
    total,
)  # fmt: skip
from tests.crash.processes import alive, ended, processes, refused
from tests.system.backends import Backend, never, running_backend
from tests.system.raw_http import WITHIN_S, Caller

NO_BACKEND = ("--backend", "http://127.0.0.1:9", "--name", "m", "--workers", "1")
LARGEST_WORKER_PSS_BYTES = 64 * 2**20
ROLES = {"mlproxy: supervisor", "mlproxy: ingress 0", "mlproxy: batcher", "mlproxy: admin"}


# --- at rest -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resting() -> Iterator[Proxy]:
    """A proxy that nobody asks anything."""
    with running_proxy(*NO_BACKEND) as proxy:
        yield proxy


def test_each_process_is_named_by_its_role(resting: Proxy) -> None:
    found = processes(resting)
    assert set(found) == ROLES
    for title, process in found.items():  # and by what `ps -o comm` and `top` show, of which the kernel keeps 15 bytes
        assert Path(f"/proc/{process.pid}/comm").read_text().strip() == title[:15].strip()


def test_the_supervisor_has_one_thread(resting: Proxy) -> None:
    """A role dies with the *thread* that started it (prctl(2)), and signals are blocked in one thread only."""
    assert psutil.Process(resting.pid).num_threads() == 1


def test_a_worker_at_rest_takes_less_than_64_mib(resting: Proxy) -> None:
    worker = processes(resting)["mlproxy: ingress 0"]
    rollup = Path(f"/proc/{worker.pid}/smaps_rollup").read_text()
    match = re.search(r"^Pss:\s+(\d+) kB$", rollup, re.MULTILINE)
    assert match is not None
    assert int(match[1]) * 1024 < LARGEST_WORKER_PSS_BYTES


def test_an_admin_process_that_is_killed_is_started_again(resting: Proxy) -> None:
    pid = pid_of(resting, "admin")
    restarts = total(resting, "mlproxy_worker_restarts_total", role="admin")
    os.kill(pid, signal.SIGKILL)
    # Connections wait meanwhile in the socket that the supervisor keeps open.
    assert wait_until(lambda: pid_of(resting, "admin") != pid, WITHIN_S)
    assert total(resting, "mlproxy_worker_restarts_total", role="admin") == restarts + 1
    assert set(processes(resting)) == ROLES


# --- a start that fails --------------------------------------------------------------------------------------


def _fails_to_start(folder: Path, *flags: str) -> str:
    """What it says on the way out, with 1."""
    proxy = Proxy(*NO_BACKEND, *flags, log=folder / "second.log")
    try:
        assert ended(proxy) == 1
        return proxy.log_text()
    finally:
        proxy.stop()


@pytest.mark.parametrize("flag", ["--port", "--admin-port"])
def test_two_proxies_cannot_have_the_same_port(resting: Proxy, flag: str, tmp_path: Path) -> None:
    url = resting.url if flag == "--port" else resting.admin_url
    address = url.removeprefix("http://")
    said = _fails_to_start(tmp_path, flag, address.split(":")[1])
    assert f"cannot listen on {address}: Address already in use" in said
    assert "Traceback" not in said
    assert alive(processes(resting)) == list(processes(resting))


def test_a_port_that_somebody_else_has_is_a_clear_message(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        said = _fails_to_start(tmp_path, "--port", str(port))
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in said
    assert "Traceback" not in said


def test_a_role_that_never_becomes_ready_is_given_up() -> None:
    document = {
        "server": {"port": 0, "workers": 1}, "admin": {"port": 0},
        "endpoints": [{"name": "m", "backend": {"urls": ["http://127.0.0.1:9"]}}],
    }  # fmt: skip
    configuration = Configuration.model_validate(document).to_json()
    roles = {"ingress": "workers.no_such_role", "batcher": "workers.batcher", "admin": "workers.admin"}
    program = (
        "import sys; from mlproxy.config import Configuration; from workers.supervisor import run;"
        f"sys.exit(run(Configuration.from_json({configuration!r}), {roles!r}))"
    )
    supervisor = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, timeout=50, check=False
    )
    assert supervisor.returncode == 1
    assert supervisor.stderr.splitlines()[-1].endswith("ingress-0 failed to start 5 times in a row; giving up")
    assert "No module named workers.no_such_role" in supervisor.stderr


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[tuple[Proxy, dict[str, psutil.Process]]]:
    """A proxy whose roles have been started and are not ready, and all its processes."""
    proxy = Proxy(*NO_BACKEND, log=tmp_path / "proxy.log")
    try:
        assert wait_until(lambda: len(processes(proxy)) == len(ROLES), WITHIN_S)
        yield proxy, processes(proxy)
    finally:
        proxy.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_who_stops_a_start_has_a_clean_end(
    starting: tuple[Proxy, dict[str, psutil.Process]], number: signal.Signals
) -> None:
    proxy, found = starting
    os.kill(proxy.pid, number)
    assert ended(proxy) == 0, proxy.log_text()
    assert alive(found) == []
    assert "Traceback" not in proxy.log_text()


def test_nobody_outlives_a_supervisor_that_is_killed_while_it_starts(
    starting: tuple[Proxy, dict[str, psutil.Process]],
) -> None:
    proxy, found = starting
    os.kill(proxy.pid, signal.SIGKILL)
    assert wait_until(lambda: alive(found) == [], 5.0), alive(found)  # each is at its imports, and has to get through


# --- the supervisor is killed --------------------------------------------------------------------------------


def test_nobody_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with running_backend() as backend, proxy_before(backend, tmp_path, workers=2) as proxy:
        found = processes(proxy)
        assert len(found) == 5
        with backend.held(), Caller(proxy.url) as caller:  # in the middle of a request
            caller.send(predict(b"1"))
            assert wait_until(lambda: len(seen_by(backend)) == 1, WITHIN_S)
            os.kill(proxy.pid, signal.SIGKILL)
            assert wait_until(lambda: alive(found) == [], 2.0), alive(found)
            assert caller.read_to_end() == b""
        assert refused(proxy)


# --- the clean stop ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_everything_that_was_admitted_is_answered_before_the_end(number: signal.Signals, tmp_path: Path) -> None:
    one_at_a_time = {"policy": "none", "max_inflight": 1}
    with (
        running_backend() as backend,
        proxy_before(backend, tmp_path, workers=2, batching=one_at_a_time) as proxy,
        Caller(proxy.url) as idle,
        backend.held() as gate,
    ):
        callers = [Caller(proxy.url) for _ in range(8)]
        for index, caller in enumerate(callers):
            caller.send(predict(b"%d" % index))
        assert wait_until(lambda: proxy.status()["endpoints"][0]["queue_depth"] == len(callers) - 1, WITHIN_S)
        found = processes(proxy)
        os.kill(proxy.pid, number)
        assert wait_until(lambda: refused(proxy), WITHIN_S)
        assert idle.read_to_end() == b""
        assert proxy.returncode is None
        gate.open()
        for index, caller in enumerate(callers):
            response = caller.read_response()
            assert predictions(response) == [b"%d" % index]
            assert response.header("connection") == "close"
            assert caller.read_to_end() == b""
            caller.close()
        assert ended(proxy) == 0, proxy.log_text()
        assert alive(found) == []
        assert "Traceback" not in proxy.log_text()


def test_under_load_no_answer_is_lost_or_cut_short(tmp_path: Path) -> None:
    with (
        running_backend(slow_echo) as backend,
        proxy_before(backend, tmp_path, workers=2, batching={"max_size": 4, "max_inflight": 2}) as proxy,
    ):
        with Callers(proxy, Load(padding_bytes=20_000), count=8) as callers:
            assert wait_until(callers.all_answered(5), WITHIN_S)
            os.kill(proxy.pid, signal.SIGTERM)
            assert ended(proxy) == 0, proxy.log_text()
        # Each caller ended on a connection that was closed between two answers: it never saw a part of one, …
        between_answers = re.compile(r"caller \d+, turn \d+: (ConnectionEnded\(.*(b''|Reset).*|.*(Reset|Broken).*)")
        assert [wrong for wrong in callers.wrong if not between_answers.fullmatch(wrong)] == []
        # … and whatever got as far as the backend was answered.
        for caller, answered in enumerate(callers.answered):
            assert _latest_turn(backend, caller) <= answered
        assert "Traceback" not in proxy.log_text()


def _latest_turn(backend: Backend, caller: int) -> int:
    turns = [instance.strip(b'"').split(b"-")[:2] for instance in seen_by(backend)]
    return max(int(turn) for own, turn in turns if int(own) == caller)


def test_a_backend_that_never_answers_ends_the_drain_with_an_error_for_each_caller(tmp_path: Path) -> None:
    with (
        running_backend(never) as backend,
        proxy_before(backend, tmp_path, drain_timeout="2s") as proxy,
        Caller(proxy.url) as caller,
    ):
        caller.send(predict(b"1"))
        assert wait_until(lambda: len(seen_by(backend)) == 1, WITHIN_S)
        found = processes(proxy)
        os.kill(proxy.pid, signal.SIGTERM)
        assert caller.read_response().status == 503
        assert ended(proxy) == 1, proxy.log_text()
        assert alive(found) == []


def test_a_worker_that_is_killed_in_the_drain_is_no_clean_end_and_the_log_says_why(tmp_path: Path) -> None:
    with (
        running_backend(never) as backend,
        proxy_before(backend, tmp_path, drain_timeout="30s") as proxy,
        Caller(proxy.url) as caller,
    ):
        caller.send(predict(b"1"))
        assert wait_until(lambda: len(seen_by(backend)) == 1, WITHIN_S)
        worker = pid_of(proxy, "ingress-0")
        os.kill(proxy.pid, signal.SIGTERM)
        assert wait_until(lambda: refused(proxy), WITHIN_S)
        os.kill(worker, signal.SIGKILL)
        assert ended(proxy) == 1
        assert caller.read_to_end() == b""
        assert "ingress-0 killed by SIGKILL while draining" in proxy.log_text()


def test_a_batcher_that_is_killed_in_the_drain_costs_nobody_an_answer(tmp_path: Path) -> None:
    with (
        running_backend() as backend,
        proxy_before(backend, tmp_path, drain_timeout="30s") as proxy,
        Caller(proxy.url) as caller,
        backend.held() as gate,
    ):
        caller.send(predict(b"1"))
        assert wait_until(lambda: len(seen_by(backend)) == 1, WITHIN_S)
        batcher = pid_of(proxy, "batcher")
        os.kill(proxy.pid, signal.SIGTERM)
        assert wait_until(lambda: refused(proxy), WITHIN_S)
        os.kill(batcher, signal.SIGKILL)
        gate.open()
        assert predictions(caller.read_response()) == [b"1"]
        assert ended(proxy) == 0, proxy.log_text()


def test_a_process_that_does_not_end_in_time_is_killed(tmp_path: Path) -> None:
    with running_backend() as backend, proxy_before(backend, tmp_path, drain_timeout="1s") as proxy:
        found = processes(proxy)
        found["mlproxy: batcher"].suspend()  # it hangs
        asked_at = time.monotonic()
        os.kill(proxy.pid, signal.SIGTERM)
        assert ended(proxy) == 1, proxy.log_text()
        assert time.monotonic() - asked_at >= 1.0
        assert alive(found) == []
        assert "not drained in time, killing: batcher" in proxy.log_text()


def test_who_asks_twice_does_not_want_to_wait(tmp_path: Path) -> None:
    with (
        running_backend(never) as backend,
        proxy_before(backend, tmp_path, drain_timeout="50s") as proxy,
        Caller(proxy.url) as caller,
    ):
        caller.send(predict(b"1"))
        assert wait_until(lambda: len(seen_by(backend)) == 1, WITHIN_S)
        found = processes(proxy)
        os.kill(proxy.pid, signal.SIGINT)
        assert wait_until(lambda: refused(proxy), WITHIN_S)
        os.kill(proxy.pid, signal.SIGINT)
        assert ended(proxy) == 1, proxy.log_text()
        assert alive(found) == []
