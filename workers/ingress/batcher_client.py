"""The worker's end of the channel: what is with the batcher, and what to do when the batcher dies. **Effects.**

Invariant: whatever the batcher knew when it died, everything can be sent again, because what was admitted is
`Retained` until it has been answered; and nothing is sent to a third batcher that two have died with.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

import orjson

from mlproxy.errors import BackendUnavailable, ProxyError, SuspectRequest, error_from_slug
from mlproxy.ipc.channel import Receiver, Sender
from mlproxy.ipc.records import ANSWER_HEADER, REQUEST_HEADER, Kind, unpack_answers
from mlproxy.ipc.rendezvous import offer_channel
from mlproxy.protocols import ParsedRequest
from workers.ingress.cycle import PredictCycle
from workers.ingress.retained import Retained

logger = logging.getLogger("mlproxy.ingress")

#: In flight in this many batcher deaths, a request may be what kills the batcher.
SUSPECT_DEATHS = 2
RECONNECT_PAUSE_S = 0.1
#: A batcher that took no channel is short of descriptors; asking again at once would be asking all the time.
REFUSED_PAUSE_S = 1.0

_pack = REQUEST_HEADER.pack
_REQUEST = int(Kind.REQUEST)  # a plain integer: packed per request


class BatcherClient:
    """Sends admitted requests to the batcher and hands its answers to their cycles."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        address: str,
        worker: int,
        ring_bytes: int,
        retained: Retained,
        on_answers: Callable[[bytes, list[tuple[PredictCycle, bytes]], int, int, int], None],
        on_relay: Callable[[PredictCycle, int, bytes, bytes], None],
        on_error: Callable[[PredictCycle, ProxyError], None],
    ) -> None:
        self._loop = loop
        self._address = address
        self._worker = worker
        self._ring_bytes = ring_bytes
        self._retained = retained
        self._on_answers = on_answers
        self._on_relay = on_relay
        self._on_error = on_error
        self._last_id = 0
        self._peer: socket.socket | None = None
        self._requests: Sender | None = None
        self._answers: Receiver | None = None
        self._publish_scheduled = False
        self._watching_credit = False
        self.ready = False  #: a batcher has welcomed this worker

    def __repr__(self) -> str:
        return f"<BatcherClient {self._worker}{'' if self.ready else ' without a batcher'}, {self._retained!r}>"

    # --- requests --------------------------------------------------------------------------------------------

    def admit(self, cycle: PredictCycle, parsed: ParsedRequest, size_bytes: int) -> None:
        """Take charge of ``cycle`` until it is answered; `Overloaded` when too many bytes wait already.

        ``size_bytes`` is what ``parsed`` keeps alive: its items may be a view of the whole body.
        """
        retained = self._retained
        retained.keep(cycle, size_bytes + len(parsed.lane_key))
        self._last_id = ring_id = self._last_id + 1
        cycle.ring_id = ring_id
        cycle.parsed = parsed
        retained.unanswered[ring_id] = cycle
        if self._requests is not None:
            self._send(cycle, parsed)

    def cancel(self, cycle: PredictCycle) -> None:
        """The caller of ``cycle`` left."""
        requests, retained_bytes = self._requests, cycle.retained_bytes
        if self._retained.forget(cycle.ring_id) is None or not cycle.sent or requests is None:
            return
        requests.send(_pack(0, Kind.CANCEL, 0, 0, 0, 0, cycle.ring_id, 0, 0, 0), b"")
        self._schedule_publish()
        if requests.blocked:  # the body may stand before this record, and is memory until it is in the ring
            self._retained.leave_behind(retained_bytes, requests.backlog_end)

    def _send(self, cycle: PredictCycle, parsed: ParsedRequest) -> None:
        assert self._requests is not None
        key, own, items = parsed.lane_key, parsed.own, parsed.items
        body = b"".join((key, own, items)) if key or own else items
        header = _pack(
            len(body), _REQUEST, cycle.route.index, len(key), len(own), parsed.instances, cycle.ring_id,
            cycle.arrived_ns, cycle.deadline_ns, cycle.priority,
        )  # fmt: skip
        self._requests.send(header, body)
        cycle.sent = True
        if not self._publish_scheduled:
            self._schedule_publish()

    def _schedule_publish(self) -> None:
        self._publish_scheduled = True
        self._loop.call_soon(self._publish)

    def _publish(self) -> None:
        """Once per loop turn: everything that this turn's reads brought, with one system call."""
        self._publish_scheduled = False
        requests = self._requests
        if requests is None:
            return
        requests.publish()
        self._retained.give_back(requests.backlog_start)
        if requests.blocked and not self._watching_credit:
            self._watching_credit = True
            self._loop.add_reader(requests.fds.credit, self._credited)

    def _credited(self) -> None:
        requests = self._requests
        assert requests is not None
        requests.take_credit()
        self._retained.give_back(requests.backlog_start)
        if not requests.blocked:
            self._watching_credit = False
            self._loop.remove_reader(requests.fds.credit)

    # --- answers ---------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        assert self._answers is not None
        for (_, kind, status, batch_size, number, dispatched_ns, backend_ns), body in self._answers.receive():
            if kind == Kind.ANSWERS or kind == Kind.ENTITIES:
                forget = self._retained.forget
                answers = [
                    (cycle, own_body)
                    for ring_id, own_body in unpack_answers(number, body)
                    if (cycle := forget(ring_id)) is not None  # else its caller left while the answer was on its way
                ]
                if kind == Kind.ANSWERS:
                    self._on_answers(b"", answers, batch_size, dispatched_ns, backend_ns)
                    continue
                for cycle, entity in answers:
                    headers, _, own_body = entity.partition(b"\0")
                    self._on_answers(headers, [(cycle, own_body)], batch_size, dispatched_ns, backend_ns)
            elif (cycle := self._retained.forget(number)) is not None:
                self._receive_failure(cycle, kind, status, body)

    def _receive_failure(self, cycle: PredictCycle, kind: int, status: int, body: bytes) -> None:
        try:
            if kind == Kind.RELAY:
                headers, _, own_body = body.partition(b"\0")
                self._on_relay(cycle, status, headers, own_body)
            else:
                self._on_error(cycle, error_from_slug(*orjson.loads(body)))
        except Exception:  # must not cost others their answers
            logger.exception("defect while answering %r", cycle)
            cycle.protocol.transport.abort()

    # --- the batcher's life ----------------------------------------------------------------------------------

    def connect(self) -> None:
        """Offer a new channel and send everything unanswered; tried again until somebody listens."""
        try:
            self._peer, offer = offer_channel(self._address, self._worker, self._ring_bytes)
        except OSError as error:
            logger.warning("no rendezvous error=%s", error)
            self._loop.call_later(RECONNECT_PAUSE_S, self.connect)
            return
        self._requests = Sender(offer.requests, REQUEST_HEADER)
        self._answers = Receiver(offer.answers, ANSWER_HEADER)
        self._loop.add_reader(self._peer.fileno(), self._peer_spoke)
        self._loop.add_reader(offer.answers.data, self._receive)
        for cycle in list(self._retained.unanswered.values()):
            assert cycle.parsed is not None
            self._send(cycle, cycle.parsed)

    def close(self) -> None:
        """Leave the batcher."""
        if self._peer is None or self._requests is None or self._answers is None:
            return
        for fd in (self._peer.fileno(), self._answers.fds.data, self._requests.fds.credit):
            self._loop.remove_reader(fd)
        self._retained.give_back(self._requests.backlog_end)
        self._requests.close()
        self._answers.close()
        self._peer.close()
        self._peer = self._requests = self._answers = None
        self._watching_credit = False
        self.ready = False

    def _peer_spoke(self) -> None:
        assert self._peer is not None
        try:
            said = self._peer.recv(64)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if said:
            self.ready = True
        elif self.ready:
            self._batcher_died()
        else:
            self._refused()

    def _refused(self) -> None:
        """The batcher ended the connection before its welcome, so it has seen nothing of what was sent."""
        self.close()
        logger.warning("channel refused; offering another in %.1f s", REFUSED_PAUSE_S)
        for cycle in self._retained.unanswered.values():
            cycle.sent = False
        self._loop.call_later(REFUSED_PAUSE_S, self.connect)

    def _batcher_died(self) -> None:
        self._receive()  # whole answers that it published before it died
        self.close()
        unanswered = list(self._retained.unanswered.values())
        logger.warning("batcher lost; unanswered requests go to its successor unanswered=%d", len(unanswered))
        for cycle in [cycle for cycle in unanswered if cycle.sent]:
            cycle.sent = False
            cycle.deaths += 1
            if not cycle.route.endpoint.backend.retry.resend_on_crash:
                self._give_up(cycle, BackendUnavailable("the batching process died while this request was in flight"))
            elif cycle.deaths >= SUSPECT_DEATHS:
                detail = f"the batching process died {cycle.deaths} times while this request was in flight"
                self._give_up(cycle, SuspectRequest(detail))
        self.connect()

    def give_up(self, error: ProxyError) -> int:
        """Answer everyone who still waits with ``error``; how many these were."""
        waiting = len(self._retained.unanswered)
        while self._retained.unanswered:  # an answer may let in what was pipelined behind it
            self._give_up(next(iter(self._retained.unanswered.values())), error)
        return waiting

    def _give_up(self, cycle: PredictCycle, error: ProxyError) -> None:
        self._retained.forget(cycle.ring_id)
        self._on_error(cycle, error)
