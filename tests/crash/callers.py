"""A proxy to be hurt, and callers who check every answer: what the crash tests share. **Effects**: threads, sockets."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from bench.processes import Proxy, running_proxy
from tests.system.backends import Backend, Exchange, echo
from tests.system.raw_http import WITHIN_S, Caller, ConnectionEnded, Response, ask, request

TARGET = "/v1/models/m:predict"
SERVICE_S = 0.005


@contextmanager
def proxy_before(
    backend: Backend, folder: Path, *, batching: dict[str, Any] | None = None, retry: dict[str, Any] | None = None,
    start: Callable[..., AbstractContextManager[Proxy]] = running_proxy, **server: Any,
) -> Iterator[Proxy]:  # fmt: skip
    """A proxy of one endpoint, ``m``. Keywords are sections of its configuration; the rest belongs to ``server``."""
    file = folder / "mlproxy.yaml"
    endpoint = {
        "name": "m", "batching": batching or {},
        "backend": {"urls": [backend.url], "timeout": "30s", "retry": retry or {}},
    }  # fmt: skip
    file.write_text(json.dumps({"server": {"workers": 1} | server, "endpoints": [endpoint]}))  # YAML contains JSON
    with start("-c", str(file), log=folder / "proxy.log") as proxy:
        yield proxy


def predict(*instances: bytes) -> bytes:
    """The request."""
    return request("POST", TARGET, ["Content-Type: application/json"], b'{"instances": [%b]}' % b", ".join(instances))


def predictions(response: Response) -> list[bytes]:
    """The answers, as text."""
    assert response.status == 200, response
    return [json.dumps(item).encode() for item in response.json()["predictions"]]


def pid_of(proxy: Proxy, name: str) -> int:
    """Of the process of that name."""
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


def seen_by(backend: Backend) -> list[bytes]:
    """Every instance that the backend got, as often as it did."""
    return [instance for call in backend.predictions for instance in call.instances]
