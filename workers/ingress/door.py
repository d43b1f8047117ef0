"""What every connection of a worker shares: routes, limits, the way to the batcher, counting. **Effects.**"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

from msgspec.structs import replace

from mlproxy.config import Configuration
from mlproxy.errors import Draining, Overloaded, ProxyError
from mlproxy.observe import IngressMetrics, MetricPage, access_line
from mlproxy.protocols import JSON_TYPE
from mlproxy.units import NS_PER_S
from workers.ingress import response
from workers.ingress.batcher_client import BatcherClient
from workers.ingress.coding import inflate
from workers.ingress.retained import Retained
from workers.ingress.routes import RouteTable

if TYPE_CHECKING:
    from workers.ingress.cycle import PredictCycle

logger = logging.getLogger("mlproxy.ingress")

#: A batcher without a heartbeat for this long has missed six: new callers had better go elsewhere until it goes on, or
#: until the supervisor replaces it.
BATCHER_SILENT_NS = 3 * NS_PER_S
#: What callers are told at the end of a drain.
OUT_OF_TIME = "the proxy is shutting down, and the backend has not answered in time"


class Door:
    """Lets predictions in, and sees every one of them out exactly once."""

    def __init__(
        self,
        configuration: Configuration,
        loop: asyncio.AbstractEventLoop,
        *,
        worker: int,
        workers: int,
        max_connections: int,
        rendezvous: str,
        batcher_page: MetricPage,
        metrics: Sequence[IngressMetrics],
    ) -> None:
        self.limits = configuration.limits
        self.max_connections = max_connections
        self.routes = RouteTable(configuration.endpoints)
        self.tick = 0  #: seconds, counted by the watchdog: a clock that costs nothing to read
        self.draining = False
        self._metrics = metrics
        self._batcher_page = batcher_page
        self._access_log = configuration.logging.access
        self.default_headers = b""  #: Uvicorn's (the date) as lines: joined once per second, not once per response
        #: An id for a caller that brought none. Random per process, then counted: no random number per request.
        self.new_request_id = map((os.urandom(8).hex().encode() + b"%016x").__mod__, count(1)).__next__
        self.retained = Retained(configuration.limits.queue_bytes // workers)
        self.client = BatcherClient(
            loop,
            address=rendezvous,
            worker=worker,
            ring_bytes=configuration.server.ring_bytes,
            retained=self.retained,
            on_answers=self._on_answers,
            on_relay=self._on_relay,
            on_error=self._on_error,
        )

    def __repr__(self) -> str:
        return f"<Door {'draining' if self.draining else 'open'}, {self.client!r}>"

    def why_not_ready(self, now_ns: int) -> str | None:
        """None: nobody has asked this worker to stop, a batcher has welcomed it, and that one's loop turns."""
        if self.draining:
            return "draining"
        if not self.client.ready:
            return "no batcher yet"
        if now_ns - self._batcher_page.heartbeat_ns > BATCHER_SILENT_NS:
            return "the batcher does not turn its loop"
        return None

    def admit(self, cycle: PredictCycle, text: bytes, start: int) -> None:
        """Validate a body, ``text`` from ``start`` on, and send it on its way. Raises the error that refuses it."""
        if cycle.coding:
            text, start = inflate(cycle.coding, text, self.limits.body_bytes), 0
        parsed = cycle.route.codec.parse_request(text, start, cycle.json_bytes)
        if cycle.lane_headers:
            parsed = replace(parsed, lane_key=cycle.lane_headers + parsed.lane_key)
        if parsed.timeout_ns and not cycle.budget_stated:
            cycle.deadline_ns = cycle.arrived_ns + parsed.timeout_ns
        if parsed.priority and not cycle.priority_stated:
            cycle.priority = parsed.priority
        try:
            self.client.admit(cycle, parsed, len(text) - start)
        except Overloaded:
            self._metrics[cycle.route.index].shed()
            raise

    def hold(self, cycle: PredictCycle) -> None:
        """A body is not whole, or not in turn: keep what came of it. Raises the error that refuses it."""
        cycle.gather()
        try:
            self.retained.hold(cycle)
        except Overloaded:
            self._metrics[cycle.route.index].shed()
            raise

    def give_up(self) -> int:
        """Time is over: whoever still waits is told so. How many these were."""
        return self.client.give_up(Draining(OUT_OF_TIME, retry_after_s=1))

    def left(self, cycle: PredictCycle) -> None:
        """The caller of ``cycle`` closed its connection before it was answered."""
        self._metrics[cycle.route.index].cancelled()
        if cycle.ring_id:
            self.client.cancel(cycle)
        else:
            self.retained.release(cycle)

    def answered(self, cycle: PredictCycle, status: int, size_bytes: int) -> None:
        """``cycle`` has its response: count it, and log it if asked."""
        self._metrics[cycle.route.index].answered(status, [time.monotonic_ns() - cycle.arrived_ns])
        self._log_prediction(cycle, status, size_bytes)

    def _log_prediction(self, cycle: PredictCycle, status: int, size_bytes: int) -> None:
        path = cycle.route.predict_path
        self.log(cycle.protocol.client, "POST", path, status, size_bytes, cycle.arrived_ns, cycle.request_id)

    def log(
        self, client: tuple[str, int] | None, method: str, path: str, status: int, size_bytes: int, arrived_ns: int,
        request_id: bytes,
    ) -> None:  # fmt: skip
        """Something has its response: log it if asked."""
        if self._access_log:
            duration_ns = time.monotonic_ns() - arrived_ns
            access_line(client, method, path, status, size_bytes, duration_ns, request_id.decode("latin-1"))

    def _on_answers(
        self, headers: bytes, answers: list[tuple[PredictCycle, bytes]], batch_size: int, dispatched_ns: int,
        backend_ns: int,
    ) -> None:  # fmt: skip
        """The answers of one batch, all of one endpoint: what they have in common is made, read and counted once.

        ``headers`` are the lines about their bodies; none: these are JSON.
        """
        frame = response.answer_frame(self.default_headers, headers or JSON_TYPE, batch_size, backend_ns)
        now_ns, durations_ns = time.monotonic_ns(), []
        for cycle, body in answers:
            arrived_ns = cycle.arrived_ns
            data = response.answer(frame, cycle.request_id, body, dispatched_ns - arrived_ns, cycle.keep_alive)
            durations_ns.append(now_ns - arrived_ns)
            if self._access_log:
                self._log_prediction(cycle, 200, len(data))
            try:
                cycle.protocol.finish(cycle, data)
            except Exception:  # must not cost others their answers
                logger.exception("defect while answering %r", cycle)
                cycle.protocol.transport.abort()
        if answers:
            self._metrics[answers[0][0].route.index].answered(200, durations_ns)

    def _on_relay(self, cycle: PredictCycle, status: int, headers: bytes, body: bytes) -> None:
        data = response.relay(self.default_headers, cycle.request_id, status, headers, body, cycle.keep_alive)
        self.answered(cycle, status, len(data))
        cycle.protocol.finish(cycle, data)

    def _on_error(self, cycle: PredictCycle, error: ProxyError) -> None:
        cycle.protocol.fail(cycle, error)
