"""A signal that comes while a role starts is obeyed, not lost and not fatal."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.processes import wait_until
from mlproxy.config import Configuration
from mlproxy.observe import MetricPage, PageLayout
from workers.supervisor.seat import Seat, make_seats
from workers.supervisor.sockets import bind
from workers.supervisor.supervisor import ROLES

WITHIN_S = 10.0


@contextmanager
def seats() -> Iterator[dict[str, Seat]]:
    """Those of a proxy with one worker, empty; nothing is left of them at the end."""
    configuration = Configuration.model_validate({
        "server": {"host": "127.0.0.1", "port": 0, "workers": 1}, "admin": {"port": 0},
        "endpoints": [{"name": "m", "backend": {"urls": ["http://127.0.0.1:9"]}}],
    })  # fmt: skip
    sockets = bind(configuration, 1)
    layout = PageLayout.of(configuration)
    own_page = MetricPage.create(layout, "supervisor")
    made = make_seats(configuration, sockets, layout, own_page, ROLES)
    try:
        yield {seat.role: seat for seat in made}
    finally:
        for seat in made:
            if seat.pid is not None:
                seat.kill()
                os.waitpid(seat.pid, 0)
        for page in (own_page, *(seat.page for seat in made)):
            page.words.release()
            os.close(page.fd)
        sockets.close()


@pytest.fixture
def as_the_supervisor() -> Iterator[None]:
    """Its children inherit its signal mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.usefixtures("as_the_supervisor")
@pytest.mark.parametrize("role", ROLES)
def test_a_role_that_is_told_to_stop_as_it_starts_stops_cleanly(role: str) -> None:
    with seats() as by_role:
        seat = by_role[role]
        seat.start(time.monotonic_ns())
        seat.signal(signal.SIGTERM)
        pid = seat.pid
        assert pid is not None
        assert wait_until(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None, WITHIN_S)
        _, status = os.waitpid(pid, 0)
        seat.ended(status, time.monotonic_ns(), restart=False)
        assert os.waitstatus_to_exitcode(status) == 0
