"""The batcher is killed again and again: callers see latency, never an error, and each gets its own answer."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.processes import Proxy, running_proxy, wait_until
from tests.system.backends import Backend, Exchange, echo, running_backend
from tests.system.raw_http import Caller, ConnectionEnded, Response, ask, request

TARGET = "/v1/models/m:predict"
WITHIN_S = 10.0
SERVICE_S = 0.005
POISON = b'"poison"'


@contextmanager
def proxy_before(
    backend: Backend, folder: Path, *, batching: dict[str, Any] | None = None, retry: dict[str, Any] | None = None,
    **server: Any,
) -> Iterator[Proxy]:  # fmt: skip
    """A proxy of one endpoint, ``m``. Keywords are sections of its configuration; the rest belongs to ``server``."""
    file = folder / "mlproxy.yaml"
    endpoint = {
        "name": "m", "batching": batching or {},
        "backend": {"urls": [backend.url], "timeout": "30s", "retry": retry or {}},
    }  # fmt: skip
    file.write_text(json.dumps({"server": {"workers": 1} | server, "endpoints": [endpoint]}))  # YAML contains JSON
    with running_proxy("-c", str(file), log=folder / "proxy.log") as proxy:
        yield proxy


def predict(*instances: bytes) -> bytes:
    """The request."""
    return request("POST", TARGET, ["Content-Type: application/json"], b'{"instances": [%b]}' % b", ".join(instances))


def predictions(response: Response) -> list[bytes]:
    """The answers, as text."""
    assert response.status == 200, response
    return [json.dumps(item).encode() for item in response.json()["predictions"]]


def pid_of(proxy: Proxy, name: str) -> int:
    """Of the process in a slot."""
    pids: dict[str, int] = {process["name"]: process["pid"] for process in proxy.status()["processes"]}
    return pids[name]


def kill_batcher(proxy: Proxy) -> int:
    """At once. Its number, which its successor does not have."""
    pid = pid_of(proxy, "batcher")
    os.kill(pid, signal.SIGKILL)
    return pid


def counters(proxy: Proxy) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Everything in ``/metrics`` that may only grow: all but what tells of one process, as a successor is another."""
    text = ask(proxy.admin_url, request("GET", "/metrics")).body.decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if family.type in ("counter", "histogram") and not family.name.startswith("mlproxy_process_")
    }


def total(proxy: Proxy, name: str, **labels: str) -> int:
    """One counter; labels that are not given are summed over."""
    wanted = set(labels.items())
    return int(sum(value for (found, own), value in counters(proxy).items() if found == name and wanted <= set(own)))


class Load(NamedTuple):
    """What a caller sends, over and over, with other numbers each time."""

    instances: int = 1
    padding_bytes: int = 0
    pipelined: int = 1
    workers: int = 1
    ring: str = "8MiB"

    def numbered(self, caller: int, turn: int) -> list[bytes]:
        """As many instances as a request has; nobody else sends them."""
        padding = "x" * self.padding_bytes
        return [b'"%d-%09d-%d-%s"' % (caller, turn, index, padding.encode()) for index in range(self.instances)]


class Callers:
    """Closed loops on keep-alive connections of their own, until stopped; `wrong` says what must not be."""

    def __init__(self, proxy: Proxy, load: Load, count: int) -> None:
        self.load = load
        self.wrong: list[str] = []
        self.answered = [0] * count
        self._url = proxy.url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(caller,)) for caller in range(count)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def all_answered(self, times: int) -> Callable[[], bool]:
        """Has every caller got so many answers since now? (Or has something gone wrong: no use waiting then.)"""
        goals = [answered + times * self.load.pipelined for answered in self.answered]
        return lambda: bool(self.wrong) or all(map(int.__ge__, self.answered, goals))

    def _run(self, caller: int) -> None:
        turn = 0
        try:
            with Caller(self._url, within_s=3 * WITHIN_S) as connection:
                while not self._stop.is_set() and not self.wrong:
                    turn += self.load.pipelined
                    self._take_turn(connection, caller, turn)
        except (ConnectionEnded, OSError, AssertionError) as error:
            self.wrong.append(f"caller {caller}, turn {turn}: {error!r}")

    def _take_turn(self, connection: Caller, caller: int, turn: int) -> None:
        batch = [self.load.numbered(caller, turn + index) for index in range(self.load.pipelined)]
        connection.send(b"".join(predict(*instances) for instances in batch))
        for instances in batch:
            assert predictions(connection.read_response()) == instances
            self.answered[caller] += 1


def slow_echo(exchange: Exchange) -> None:
    """The right answer after a service time, so that something is in flight at most times."""
    time.sleep(SERVICE_S)
    echo(exchange)


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


def seen_by(backend: Backend) -> list[bytes]:
    """Every instance that the backend got, as often as it did."""
    return [instance for call in backend.predictions for instance in call.instances]


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
