"""Descriptors run out: nothing spins, nothing is lost, and all goes on when there is room again."""

from __future__ import annotations

import os
import resource
import signal
import time
from itertools import count, islice
from pathlib import Path

import psutil
import pytest

from bench.processes import Proxy, wait_until
from tests.crash.callers import pid_of, predict, predictions, proxy_before
from tests.crash.processes import processes
from tests.system.backends import running_backend
from tests.system.raw_http import WITHIN_S, Caller
from workers.supervisor.supervisor import MAX_START_FAILURES

SAYS_SO = ("cannot accept a worker", "channel refused")


def complaints(proxy: Proxy) -> int:
    return sum(any(text in line for text in SAYS_SO) for line in proxy.log_text().splitlines())


def leave_room_for(descriptors: int, process: psutil.Process) -> None:
    """It may open so many more."""
    taken = {int(fd.name) for fd in Path(f"/proc/{process.pid}/fd").iterdir()}
    free = (number for number in count() if number not in taken)
    _, hard = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (next(islice(free, descriptors, None)), hard))


@pytest.mark.parametrize("room", [0, 4], ids=["to accept a worker", "for the whole of a channel"])
def test_a_batcher_without_room_for_a_worker_takes_it_as_soon_as_there_is(room: int, tmp_path: Path) -> None:
    with running_backend() as backend, proxy_before(backend, tmp_path) as proxy:
        batcher, worker = psutil.Process(pid_of(proxy, "batcher")), pid_of(proxy, "ingress-0")
        os.kill(proxy.pid, signal.SIGSTOP)  # nobody starts a successor
        try:
            os.kill(worker, signal.SIGKILL)
            assert wait_until(lambda: "worker left" in proxy.log_text(), WITHIN_S)
            leave_room_for(room, batcher)
        finally:
            os.kill(proxy.pid, signal.SIGCONT)
        assert wait_until(lambda: complaints(proxy) > 0, WITHIN_S)
        began_at = time.monotonic()
        with Caller(proxy.url, within_s=2 * WITHIN_S) as caller:
            caller.send(predict(b"1"))
            assert wait_until(lambda: complaints(proxy) > 4, WITHIN_S)
            assert complaints(proxy) <= 4 + 2 * (time.monotonic() - began_at)  # a line of each side in a second
            leave_room_for(100, batcher)
            assert predictions(caller.read_response()) == [b"1"]  # refused offers are not deaths: it is no suspect
        assert pid_of(proxy, "batcher") == batcher.pid


def test_a_supervisor_without_room_to_start_a_process_starts_it_as_soon_as_there_is(tmp_path: Path) -> None:
    with running_backend() as backend, proxy_before(backend, tmp_path) as proxy:
        supervisor, killed = psutil.Process(proxy.pid), pid_of(proxy, "ingress-0")
        leave_room_for(0, supervisor)
        os.kill(killed, signal.SIGKILL)
        # More often than a start may fail before the proxy gives up: this is not the first start.
        said = "cannot start a process for ingress-0"
        assert wait_until(lambda: proxy.log_text().count(said) > MAX_START_FAILURES, WITHIN_S), proxy.log_text()
        assert "Too many open files" in proxy.log_text()
        leave_room_for(100, supervisor)
        with Caller(proxy.url, within_s=WITHIN_S) as caller:
            assert predictions(caller.call(predict(b"1"))) == [b"1"]


def test_every_process_may_have_as_many_as_the_administrator_allows(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with running_backend() as backend:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        try:
            with proxy_before(backend, tmp_path) as proxy:
                limits = {process.rlimit(psutil.RLIMIT_NOFILE) for process in processes(proxy).values()}
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert limits == {(hard, hard)}
