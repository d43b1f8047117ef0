"""An ingress worker is killed: only its own connections break, and the next ones are served at once."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from bench.processes import Proxy, wait_until
from tests.crash.callers import (
    counters,
    pid_of,
    predict,
    predictions,
    proxy_before,
    seen_by,
    total,
)  # fmt: skip
from tests.system.backends import running_backend
from tests.system.raw_http import WITHIN_S, Caller, ConnectionEnded, Response

#: With two workers, so many connections meet only one of them once in 2**31 runs.
CONNECTIONS = 32
#: A connection is served again within this time; the best of some kills counts, since this machine may be busy.
SERVED_AGAIN_WITHIN_S = 1.0
KILLS = 3


def worker_of(response: Response) -> str:
    """The ids that a worker makes up begin with a number of its own."""
    request_id = response.header("x-request-id")
    assert request_id is not None
    return request_id[:16]


def kill_worker(proxy: Proxy, index: int) -> None:
    """At once, and wait until its successor has its seat."""
    name = f"ingress-{index}"
    pid = pid_of(proxy, name)
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: pid_of(proxy, name) != pid, WITHIN_S)


def survives(caller: Caller, instance: bytes) -> bool:
    """Is a request answered on this connection?"""
    try:
        return predictions(caller.call(predict(instance))) == [instance]
    except (ConnectionEnded, ConnectionError):
        return False


def test_only_the_dead_workers_connections_break_and_nothing_is_miscounted(tmp_path: Path) -> None:
    with running_backend() as backend, proxy_before(backend, tmp_path, workers=2) as proxy, ExitStack() as callers:
        of_worker: dict[str, list[Caller]] = {}
        for number in range(CONNECTIONS):
            caller = callers.enter_context(Caller(proxy.url))
            of_worker.setdefault(worker_of(caller.call(predict(b"%d" % number))), []).append(caller)
        assert len(of_worker) == 2
        before = counters(proxy)
        kill_worker(proxy, 0)

        fates = {
            worker: {survives(caller, b'"again"') for caller in connections}
            for worker, connections in of_worker.items()
        }
        assert sorted(map(list, fates.values())) == [[False], [True]]

        # Counted by the dead worker, by its neighbour, and (on new connections) by its successor as well.
        answered = CONNECTIONS + sum(len(of_worker[worker]) for worker, survived in fates.items() if survived == {True})
        workers = set()
        for number in range(CONNECTIONS):
            with Caller(proxy.url) as caller:
                workers.add(worker_of(caller.call(predict(b"%d" % number))))
        assert len(workers) == 2
        answered += CONNECTIONS
        assert wait_until(lambda: total(proxy, "mlproxy_requests_total", code="200") == answered, WITHIN_S)
        assert total(proxy, "mlproxy_request_duration_seconds_count") == answered
        assert total(proxy, "mlproxy_instances_total") == answered
        assert total(proxy, "mlproxy_worker_restarts_total", role="ingress") == 1
        assert total(proxy, "mlproxy_worker_restarts_total") == 1
        after = counters(proxy)
        assert {key: value for key, value in before.items() if after[key] < value} == {}


def test_requests_in_flight_from_the_other_worker_are_answered(tmp_path: Path) -> None:
    """The dead worker's requests wait in the same queue, and share batches with those of the living."""
    batching = {"max_size": 8, "max_inflight": 1}
    with (
        running_backend() as backend,
        proxy_before(backend, tmp_path, workers=2, batching=batching) as proxy,
        ExitStack() as stack,
        backend.held() as gate,
    ):
        callers = [stack.enter_context(Caller(proxy.url)) for _ in range(CONNECTIONS)]
        for number, caller in enumerate(callers):
            caller.send(predict(b"%d" % number))
        assert wait_until(lambda: _queued(proxy) + len(seen_by(backend)) == CONNECTIONS, WITHIN_S)
        first_batch = seen_by(backend)
        kill_worker(proxy, 1)
        gate.open()
        answered = []
        for number, caller in enumerate(callers):
            with suppress(ConnectionEnded):
                assert predictions(caller.read_response()) == [b"%d" % number]
                answered.append(b"%d" % number)
        assert 0 < len(answered) < CONNECTIONS
        assert wait_until(lambda: total(proxy, "mlproxy_requests_total") == len(answered), WITHIN_S)
        assert _queued(proxy) == 0
        # What the dead worker had waiting left the queue; only what was on its way already went in vain.
        assert sorted(seen_by(backend)) == sorted({*first_batch, *answered})


def _queued(proxy: Proxy) -> int:
    depth: int = proxy.status()["endpoints"][0]["queue_depth"]
    return depth


def test_the_next_connections_are_served_within_a_second(tmp_path: Path) -> None:
    """Of the only worker: until its successor accepts them, they wait in the socket that the supervisor keeps open."""
    with running_backend() as backend, proxy_before(backend, tmp_path, workers=1) as proxy:
        times_s = []
        for kill in range(KILLS):
            pid = pid_of(proxy, "ingress-0")
            with Caller(proxy.url) as witness:
                assert predictions(witness.call(predict(b"%d" % kill))) == [b"%d" % kill]
                killed_at = time.monotonic()
                os.kill(pid, signal.SIGKILL)
                assert witness.read_to_end() == b""
            for number in range(3):
                with Caller(proxy.url) as caller:
                    assert predictions(caller.call(predict(b"%d" % number))) == [b"%d" % number]
            times_s.append(time.monotonic() - killed_at)
        assert min(times_s) < SERVED_AGAIN_WITHIN_S, times_s
        assert total(proxy, "mlproxy_worker_restarts_total", role="ingress") == KILLS
