"""The batcher is killed again and again: callers see latency, never an error, and each gets its own answer."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest

from bench.processes import wait_until
from tests.crash.callers import (
    Callers,
    Load,
    counters,
    kill_batcher,
    pid_of,
    predict,
    predictions,
    proxy_before,
    seen_by,
    slow_echo,
    total,
)  # fmt: skip
from tests.system.backends import Exchange, echo, running_backend
from tests.system.raw_http import WITHIN_S, Caller

POISON = b'"poison"'


LOADS = {
    "one instance per request": Load(),
    "requests larger than a batch": Load(instances=10, workers=2),
    "bodies larger than a ring": Load(padding_bytes=100_000, ring="64KiB"),
    "pipelined requests": Load(pipelined=4, workers=2),
}
KILLS_PER_LOAD = 20 // len(LOADS)


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_no_caller_notices_that_the_batcher_is_killed_again_and_again(load: Load, tmp_path: Path) -> None:
    batching = {"max_size": 4, "max_inflight": 2}
    with (
        running_backend(slow_echo) as backend,
        proxy_before(backend, tmp_path, workers=load.workers, ring=load.ring, batching=batching) as proxy,
    ):
        with Callers(proxy, load, count=6) as callers:
            assert wait_until(callers.all_answered(2), WITHIN_S)
            seen = counters(proxy)
            for _ in range(KILLS_PER_LOAD):
                kill_batcher(proxy)
                # The first answer may have been on its way already; with the second, whatever was in flight at the
                # death has been answered by the successor, and none is in flight in two deaths.
                assert wait_until(callers.all_answered(2), 2 * WITHIN_S), proxy.log_text()[-3000:]
                assert callers.wrong == []
                before, seen = seen, counters(proxy)
                assert {key: value for key, value in before.items() if seen[key] < value} == {}
        assert callers.wrong == []
        assert backend.defects == []
        answered = sum(callers.answered)
        assert wait_until(lambda: total(proxy, "mlproxy_requests_total") == answered, WITHIN_S)
        assert total(proxy, "mlproxy_requests_total", code="200") == answered
        assert total(proxy, "mlproxy_worker_restarts_total", role="batcher") == KILLS_PER_LOAD
        assert total(proxy, "mlproxy_worker_restarts_total") == KILLS_PER_LOAD
        sent = Counter(seen_by(backend))
        assert len(sent) >= answered * load.instances
        assert max(sent.values()) > 1  # some deaths did meet requests in flight


# --- what is in flight at the death --------------------------------------------------------------------------


def test_without_resending_what_was_in_flight_is_refused_and_the_next_is_served(tmp_path: Path) -> None:
    with (
        running_backend() as backend,
        proxy_before(backend, tmp_path, retry={"resend_on_crash": False}) as proxy,
        Caller(proxy.url) as first,
        Caller(proxy.url) as second,
    ):
        with backend.held():
            first.send(predict(b"1"))
            second.send(predict(b"2"))
            assert wait_until(lambda: len(seen_by(backend)) == 2, WITHIN_S)
            kill_batcher(proxy)
            for caller in (first, second):
                refusal = caller.read_response()
                assert refusal.status == 502
                assert refusal.json()["type"] == "urn:mlproxy:error:backend-unavailable"
        assert predictions(first.call(predict(b"3"))) == [b"3"]
        assert predictions(second.call(predict(b"4"))) == [b"4"]
        assert sorted(seen_by(backend)) == [b"1", b"2", b"3", b"4"]


class Poisoned:
    """Holds every call with the poison, and answers the others."""

    def __init__(self) -> None:
        self.poison_calls = 0
        self.neighbour_calls = 0
        self._lock = threading.Lock()

    def __call__(self, exchange: Exchange) -> None:
        instances = exchange.request.instances
        with self._lock:
            self.poison_calls += POISON in instances
            self.neighbour_calls += b'"neighbour"' in instances
            hold = POISON in instances or (b'"neighbour"' in instances and self.neighbour_calls == 1)
        if hold:
            exchange.wait(lambda: False)
        else:
            echo(exchange)


def test_what_was_in_flight_in_two_deaths_is_suspect_and_its_neighbours_are_served(tmp_path: Path) -> None:
    script = Poisoned()
    batching = {"policy": "none", "max_inflight": 4}
    with running_backend(script) as backend, proxy_before(backend, tmp_path, batching=batching) as proxy:
        with (
            Caller(proxy.url, within_s=2 * WITHIN_S) as poison,
            Caller(proxy.url) as neighbour,
            Caller(proxy.url) as other,
        ):
            poison.send(predict(POISON))
            neighbour.send(predict(b'"neighbour"'))
            assert predictions(other.call(predict(b"1"))) == [b"1"]
            assert wait_until(lambda: (script.poison_calls, script.neighbour_calls) == (1, 1), WITHIN_S)
            kill_batcher(proxy)
            assert predictions(neighbour.read_response()) == [b'"neighbour"']  # in flight in one death only
            assert wait_until(lambda: script.poison_calls == 2, WITHIN_S)
            assert predictions(other.call(predict(b"2"))) == [b"2"]
            kill_batcher(proxy)
            refusal = poison.read_response()
            assert refusal.status == 502
            assert refusal.json()["type"] == "urn:mlproxy:error:suspect-request"
            for caller in (poison, neighbour, other):
                assert predictions(caller.call(predict(b"3"))) == [b"3"]
            assert script.poison_calls == 2  # not sent a third time
        assert total(proxy, "mlproxy_requests_total", code="502") == 1
        assert total(proxy, "mlproxy_worker_restarts_total", role="batcher") == 2


def test_who_leaves_while_there_is_no_batcher_is_not_sent_to_the_next(tmp_path: Path) -> None:
    with (
        running_backend() as backend,
        proxy_before(backend, tmp_path) as proxy,
        backend.held() as gate,
        Caller(proxy.url) as leaving,
        Caller(proxy.url) as staying,
    ):
        leaving.send(predict(b'"leaves"'))
        staying.send(predict(b'"stays"'))
        assert wait_until(lambda: len(seen_by(backend)) == 2, WITHIN_S)
        supervisor = pid_of(proxy, "supervisor")
        os.kill(supervisor, signal.SIGSTOP)  # nobody starts a successor
        try:
            kill_batcher(proxy)
            leaving.close()
            assert wait_until(lambda: total(proxy, "mlproxy_cancelled_total") == 1, WITHIN_S)
        finally:
            os.kill(supervisor, signal.SIGCONT)
        gate.open()
        assert predictions(staying.read_response()) == [b'"stays"']
        assert seen_by(backend).count(b'"leaves"') == 1
