"""The hot path without the kernel: CPU time per request of each stage, in one process. **Effects**: prints.

    python -m bench.micro.hot_path [--bytes 40] [--rounds 3000]

The real protocol, door, rings, link and engine, with transports and a backend that do nothing; 32 requests a round, as
one full batch, or one a round, so that every event comes singly. Cases are interleaved round by round; the first
quartile is shown, for what else the machine does only ever adds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import uvicorn

from mlproxy.backend import BackendReply, Balancer
from mlproxy.config import Configuration
from mlproxy.engine import Engine, QueueBounds, policy_for
from mlproxy.engine.policies import SloBatching
from mlproxy.ipc.channel import DirectionFds, Receiver, Sender
from mlproxy.ipc.records import ANSWER_HEADER, REQUEST_HEADER
from mlproxy.ipc.rendezvous import Offer
from mlproxy.observe import BatcherMetrics, IngressMetrics, MetricPage, PageLayout
from mlproxy.protocols import codec_for
from workers.batcher.endpoint import EndpointRuntime
from workers.batcher.link import WorkerLink
from workers.ingress.door import Door
from workers.ingress.protocol import IngressProtocol

SIZE = 32
STAGES = ("worker, in", "batcher, in", "batcher, out", "worker, out")


class Silent:
    """Takes any call and does nothing, for as little as Python can."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return _nothing


def _nothing(*_: object, **__: object) -> None:
    return None


async def _no_app(scope: object, receive: object, send: object) -> None:
    """Never called: nothing here leaves the hot path."""


class NoMetrics:
    """What the workers and the batcher count into, without counting."""

    answered = dispatched = waited = backend_done = gauges = staticmethod(_nothing)


class NoTransport(Silent):
    """A connection that swallows what is written."""

    write = staticmethod(_nothing)

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default


class NoBackend:
    """Keeps the callback instead of sending."""

    done: Callable[[BackendReply], None]

    def send(self, path: bytes, headers: bytes, body: object, timeout_ns: int, on_done: Any) -> None:
        self.done = on_done


class Rig:
    """One worker with as many connections as requests come at once, one batcher, one channel between them."""

    def __init__(
        self, head_lines: Callable[[int], bytes], body: bytes, *,
        counted: bool = True, policy: str = "static", at_once: int = SIZE,
    ) -> None:  # fmt: skip
        endpoint = {
            "name": "iris", "backend": {"urls": ["http://127.0.0.1:1"], "scaling": {"slots": 1}},
            "batching": {"policy": policy, "max_size": SIZE},
        }  # fmt: skip
        self._at_once = at_once
        configuration = Configuration.model_validate({"endpoints": [endpoint]})
        page = MetricPage.create(PageLayout.of(configuration), "bench")
        self._loop = asyncio.new_event_loop()
        self._backend = NoBackend()
        self._head_lines, self._body, self._sent = head_lines, body, 0
        self._make_worker(configuration, page, IngressMetrics(page, 0, 10**9) if counted else NoMetrics())
        self._make_batcher(configuration, BatcherMetrics(page, 0) if counted else NoMetrics())
        predictions = b",".join([b"[0.1,0.7,0.2]"] * at_once)
        self._reply = BackendReply(200, b"", b'{"predictions":[%b]}' % predictions)

    def _make_worker(self, configuration: Configuration, page: MetricPage, metrics: Any) -> None:
        config = uvicorn.Config(
            _no_app, log_config=None, access_log=False, ws="none", lifespan="off", interface="asgi3"
        )
        config.load()
        server = uvicorn.Server(config)
        self._door = Door(
            configuration, cast(Any, Silent()), worker=0, workers=1, max_connections=self._at_once, rendezvous="",
            batcher_page=page, metrics=[metrics],
        )  # fmt: skip
        self._door.default_headers = b"date: Tue, 24 Nov 2026 12:00:00 GMT\r\n"
        self._requests = DirectionFds.create("requests", 8 * 2**20)
        self._answers = DirectionFds.create("answers", 8 * 2**20)
        self._client = self._door.client
        self._client._requests = Sender(self._requests, REQUEST_HEADER)
        self._client._answers = Receiver(self._answers, ANSWER_HEADER)
        self._connections = []
        for _ in range(self._at_once):
            connection = IngressProtocol(config, server.server_state, {}, self._loop, door=self._door)
            connection.connection_made(cast(Any, NoTransport()))
            self._connections.append(connection)

    def _make_batcher(self, configuration: Configuration, metrics: Any) -> None:
        endpoint = configuration.endpoints[0]
        policy = policy_for(endpoint)
        if isinstance(policy, SloBatching):
            policy.controller.service.size_cap.seen(SIZE)  # or the first batches would be smaller
        engine = Engine(policy, QueueBounds(10_000, 2**28), slo_ns=endpoint.slo.latency_ns, retry_attempts=2)
        self._runtime = EndpointRuntime(
            endpoint, engine, codec_for("kserve-v1"), cast(Balancer, self._backend), metrics, _nothing
        )  # fmt: skip
        offer = Offer(0, *(DirectionFds(*map(os.dup, fds)) for fds in (self._requests, self._answers)))
        self._link = WorkerLink(
            cast(Any, Silent()), socket.socket(), offer, max_backlog_bytes=2**28, on_requests=self._runtime.arrive,
            on_cancel=self._runtime.cancel, on_closed=_nothing,
        )  # fmt: skip

    def round_ns(self) -> tuple[float, ...]:
        """One batch through everything: CPU-ns per request of each stage."""
        requests = [self._request() for _ in self._connections]
        touched: set[WorkerLink] = set()
        marks = [time.thread_time_ns()]
        for connection, data in zip(self._connections, requests, strict=True):
            connection.data_received(data)
        self._client._publish()
        marks.append(time.thread_time_ns())
        self._link._receive()
        self._runtime.turn(time.monotonic_ns(), touched)
        marks.append(time.thread_time_ns())
        self._backend.done(self._reply)
        self._runtime.turn(time.monotonic_ns(), touched)
        for link in touched:
            link.flush()
        marks.append(time.thread_time_ns())
        self._client._receive()
        marks.append(time.thread_time_ns())
        return tuple((later - earlier) / self._at_once for earlier, later in pairwise(marks))

    def _request(self) -> bytes:
        self._sent += 1
        head = b"POST /v1/models/iris:predict HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n"
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (head, self._head_lines(self._sent), len(self._body), self._body)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.micro.hot_path")
    parser.add_argument("--bytes", type=int, default=40, help="size of the body")
    parser.add_argument("--rounds", type=int, default=3000)
    arguments = parser.parse_args()
    body = b'{"instances": [[%b]]}' % b", ".join([b"0.123"] * max(1, (arguments.bytes - 20) // 7))
    rigs = {
        "the same head again": Rig(lambda _: b"", body),
        "a request id in each head": Rig(lambda number: b"X-Request-Id: caller-%d\r\n" % number, body),
        "the same head, no metrics": Rig(lambda _: b"", body, counted=False),
        "policy slo": Rig(lambda _: b"", body, policy="slo"),
        "one by one, policy static": Rig(lambda _: b"", body, at_once=1),
        "one by one, policy slo": Rig(lambda _: b"", body, policy="slo", at_once=1),
    }
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in rigs}
    for _ in range(arguments.rounds):
        for name, rig in rigs.items():
            rows[name].append(rig.round_ns())
    print(f"{'CPU-ns per request':28}" + "".join(f"{stage:>14}" for stage in (*STAGES, "sum")))
    for name, times in rows.items():
        quartiles = [sorted(column)[len(column) // 4] for column in zip(*times, strict=True)]
        print(f"{name:28}" + "".join(f"{value:14.0f}" for value in (*quartiles, sum(quartiles))))


if __name__ == "__main__":
    main()
