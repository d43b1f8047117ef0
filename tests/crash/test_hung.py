"""A process stops turning its loop without dying: it is killed, and its successor serves whoever waited for it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil

from bench.processes import Proxy, wait_until
from tests.crash.callers import (
    Callers,
    Load,
    kill_batcher,
    pid_of,
    predict,
    predictions,
    proxy_before,
    slow_echo,
    total,
)  # fmt: skip
from tests.crash.impatient import PATIENCE, running_impatient_proxy
from tests.system.backends import running_backend
from tests.system.raw_http import WITHIN_S, Caller

SILENT = "has not turned its loop for 1.5s"


def test_a_batcher_that_hangs_under_load_is_replaced_and_every_caller_is_answered(tmp_path: Path) -> None:
    batching = {"max_size": 4, "max_inflight": 2}
    with (
        running_backend(slow_echo) as backend,
        proxy_before(backend, tmp_path, start=running_impatient_proxy, workers=2, batching=batching) as proxy,
    ):
        with Callers(proxy, Load(), count=6) as callers:
            assert wait_until(callers.all_answered(2), WITHIN_S)
            os.kill(pid_of(proxy, "batcher"), signal.SIGSTOP)
            assert wait_until(callers.all_answered(2), 2 * WITHIN_S), proxy.log_text()
        assert callers.wrong == []
        assert total(proxy, "mlproxy_worker_restarts_total", role="batcher") == 1
        assert total(proxy, "mlproxy_requests_total", code="200") == sum(callers.answered)
        said = proxy.log_text()
        assert said.count(f"batcher {SILENT}") == 1
        assert "batcher hangs: not a turn of its loop in 3s; killing it" in said


def test_a_worker_that_hangs_is_replaced_and_who_waits_for_it_is_served(tmp_path: Path) -> None:
    with (
        running_backend() as backend,
        proxy_before(backend, tmp_path, start=running_impatient_proxy) as proxy,
        Caller(proxy.url) as accepted,
    ):
        assert predictions(accepted.call(predict(b"1"))) == [b"1"]
        os.kill(pid_of(proxy, "ingress-0"), signal.SIGSTOP)
        with Caller(proxy.url, within_s=2 * WITHIN_S) as waiting:
            waiting.send(predict(b"2"))
            assert predictions(waiting.read_response()) == [b"2"]
        assert accepted.read_to_end() == b""
        assert "ingress-0 hangs" in proxy.log_text()


def test_a_process_that_hangs_before_it_is_ready_is_replaced_too(tmp_path: Path) -> None:
    with running_backend() as backend, proxy_before(backend, tmp_path, start=running_impatient_proxy) as proxy:
        dead = kill_batcher(proxy)
        successor = _started_after(proxy, dead)
        os.kill(successor, signal.SIGSTOP)
        with Caller(proxy.url, within_s=2 * WITHIN_S) as caller:
            caller.send(predict(b"1"))
            assert predictions(caller.read_response()) == [b"1"]
        assert pid_of(proxy, "batcher") not in (dead, successor)
        assert f"batcher hangs: not a turn of its loop in {PATIENCE.start_ns // 10**9}s" in proxy.log_text()


def _started_after(proxy: Proxy, dead: int) -> int:
    """The number of the process that was started in the place of a dead one."""
    before = {process["pid"] for process in proxy.status()["processes"]} | {dead}
    found: list[int] = []

    def started() -> bool:
        found[:] = [child.pid for child in psutil.Process(proxy.pid).children() if child.pid not in before]
        return bool(found)

    assert wait_until(started, WITHIN_S)
    return found[0]
