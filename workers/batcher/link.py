"""The batcher's end of one worker's channel. **Effects.**"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from typing import cast

import orjson

from mlproxy.engine import Request, State
from mlproxy.errors import ProxyError
from mlproxy.ipc.channel import Receiver, Sender
from mlproxy.ipc.records import ANSWER_HEADER, REQUEST_HEADER, Kind, pack_answers
from mlproxy.ipc.rendezvous import Offer
from mlproxy.protocols import Answer, Cut
from mlproxy.units import NS_PER_S

logger = logging.getLogger("mlproxy.batcher")

#: A worker that takes none of its answers for this long, while too many wait for it, is hung: its loop would have
#: read them a thousand times. One batch alone may answer with more than any bound, so bytes are not evidence by
#: themselves.
STALLED_AFTER_NS = NS_PER_S

_pack = ANSWER_HEADER.pack
_REQUEST = int(Kind.REQUEST)  # a plain integer: compared per request

#: From a mean of so many bytes on answers travel in records of their own: what one record would save is nothing then,
#: and nobody waits for a whole batch of large ones to pass.
_ALONE_FROM_BYTES = 64 * 1024


class LinkedRequest(Request, eq=False):
    """A request that came over a link."""

    link: WorkerLink = cast("WorkerLink", None)  #: always given: the default is there because those before have one
    endpoint: int = 0
    items: bytes = b""  #: its instances
    cut: Cut | None = None  #: in their place, once a part of them has been sent
    own: bytes = b""  #: what its answer needs and its batch does not

    @property
    def twin(self) -> bytes:
        return self.items

    def release(self) -> None:
        self.items = b""
        self.cut = None


class WorkerLink:
    """Turns records into requests and answers into records, for one worker, until that worker's socket ends."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        peer: socket.socket,
        offer: Offer,
        *,
        max_backlog_bytes: int,
        on_requests: Callable[[list[LinkedRequest]], None],
        on_cancel: Callable[[LinkedRequest], None],
        on_closed: Callable[[WorkerLink], None],
    ) -> None:
        self.worker = offer.worker
        self._loop = loop
        self._peer = peer
        self._max_backlog_bytes = max_backlog_bytes
        self._on_requests = on_requests
        self._on_cancel = on_cancel
        self._on_closed = on_closed
        self._requests = Receiver(offer.requests, REQUEST_HEADER)
        self._answers = Sender(offer.answers, ANSWER_HEADER)
        self._unanswered: dict[int, LinkedRequest] = {}
        self._watching_credit = False
        self._stalled_at = (-1, 0)  # where the backlog began when it was last seen too long, and since when
        self.open = True
        loop.add_reader(peer.fileno(), self._peer_ended)
        loop.add_reader(offer.requests.data, self._receive)

    def __repr__(self) -> str:
        return f"<WorkerLink {self.worker}: {len(self._unanswered)} unanswered, {self._answers!r}>"

    def answer(
        self, request_ids: Sequence[int], answers: Sequence[Answer], batch_size: int, dispatched_ns: int,
        backend_ns: int,
    ) -> None:  # fmt: skip
        """Queue the answers of one batch; `flush` publishes them."""
        if not self.open:
            return
        forget = self._unanswered.pop
        for request_id in request_ids:
            forget(request_id, None)
        headers, bodies = zip(*answers, strict=True)
        kind = Kind.ANSWERS
        if any(headers):
            kind, bodies = Kind.ENTITIES, tuple([b"%b\0%b" % answer for answer in answers])
        size_bytes = sum([len(body) for body in bodies])
        step = len(bodies) if size_bytes < _ALONE_FROM_BYTES * len(bodies) else 1
        for first in range(0, len(bodies), step):
            group = bodies[first : first + step]
            body = pack_answers(request_ids[first : first + step], group)
            header = _pack(len(body), kind, 200, batch_size, len(group), dispatched_ns, backend_ns)
            self._answers.send(header, body)

    def relay(self, request: Request, status: int, headers: bytes, body: bytes) -> None:
        """Answer with the backend's own words."""
        self._fail(request, Kind.RELAY, status, headers + b"\0" + body)

    def reject(self, request: Request, error: ProxyError) -> None:
        """Answer with one of the proxy's own errors; the worker renders it."""
        self._fail(request, Kind.ERROR, error.status, orjson.dumps((error.slug, error.detail, error.retry_after_s)))

    def _fail(self, request: Request, kind: Kind, status: int, body: bytes) -> None:
        if self._unanswered.pop(request.id, None) is not None and self.open:
            self._answers.send(_pack(len(body), kind, status, 0, request.id, 0, 0), body)

    def flush(self) -> None:
        """Publish what this loop turn answered; watch for credit while the ring is full."""
        if not self.open:
            return
        self._answers.publish()
        if not self._answers.blocked:
            return
        if not self._watching_credit:
            self._watching_credit = True
            self._loop.add_reader(self._answers.fds.credit, self._credited)
        if self._answers.backlog_bytes > self._max_backlog_bytes:
            self._close_if_stalled()

    def close(self) -> None:
        """Forget the worker: its unanswered requests are cancelled, its memory unmapped."""
        if not self.open:
            return
        self.open = False
        for fd in (self._peer.fileno(), self._requests.fds.data, self._answers.fds.credit):
            self._loop.remove_reader(fd)
        for request in self._unanswered.values():
            self._on_cancel(request)
        self._unanswered.clear()
        self._requests.close()
        self._answers.close()
        self._peer.close()
        self._on_closed(self)

    def _receive(self) -> None:
        unanswered, arrived = self._unanswered, []
        for fields, body in self._requests.receive():
            _, kind, endpoint, key_bytes, own_bytes, count, request_id, arrived_ns, deadline_ns, priority = fields
            if kind == _REQUEST:
                start = key_bytes + own_bytes
                # Positional: this line runs once per request.
                request = LinkedRequest(
                    request_id, body[:key_bytes], count, len(body), arrived_ns, deadline_ns, State.QUEUED, None,
                    priority, False, self, endpoint, body[start:] if start else body,
                )  # fmt: skip
                if own_bytes:
                    request.own = body[key_bytes:start]
                unanswered[request_id] = request
                arrived.append(request)
            elif kind == Kind.CANCEL and (gone := unanswered.pop(request_id, None)) is not None:
                self._on_requests(arrived)  # among them may be the one that goes
                arrived = []
                self._on_cancel(gone)
        self._on_requests(arrived)

    def _close_if_stalled(self) -> None:
        now_ns, (seen_start, since_ns) = time.monotonic_ns(), self._stalled_at
        if self._answers.backlog_start != seen_start:
            self._stalled_at = (self._answers.backlog_start, now_ns)
        elif now_ns - since_ns > STALLED_AFTER_NS:
            logger.error(
                "worker takes no answers, closing its channel worker=%d unanswered=%d waiting_bytes=%d",
                self.worker, len(self._unanswered), self._answers.backlog_bytes,
            )  # fmt: skip
            self.close()

    def _credited(self) -> None:
        self._answers.take_credit()
        if not self._answers.blocked:
            self._watching_credit = False
            self._loop.remove_reader(self._answers.fds.credit)

    def _peer_ended(self) -> None:
        try:
            ended = self._peer.recv(64) == b""
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            logger.info("worker left worker=%d unanswered=%d", self.worker, len(self._unanswered))
            self.close()
