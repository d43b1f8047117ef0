"""One endpoint in the batcher: carries the engine's commands out and reports back. **Effects.**"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias, cast

from mlproxy import __version__
from mlproxy.backend import BackendCall, BackendFailure, BackendReply, Balancer
from mlproxy.config import Endpoint
from mlproxy.engine import (
    Abort,
    Answered,
    Arrived,
    Batch,
    Cancelled,
    Complete,
    Dispatch,
    Drain,
    Engine,
    Event,
    Failed,
    Failure,
    Part,
    Piece,
    Reject,
    Relay,
)  # fmt: skip
from mlproxy.errors import BackendContract, ProxyError
from mlproxy.observe import BatcherMetrics
from mlproxy.protocols import Answer, Codec, Text
from mlproxy.units import NS_PER_MS
from workers.batcher.apart import Apart
from workers.batcher.coalesce import Coalesced, coalesce, own_pieces
from workers.batcher.link import LinkedRequest, WorkerLink
from workers.batcher.verification import Verification

logger = logging.getLogger("mlproxy.batcher")

#: What the engine answers, as the requests that it was given.
_Answers: TypeAlias = "list[tuple[LinkedRequest, list[Piece]]]"

#: What every call says. Its reply will be cut, so it must not be encoded; nothing said would mean that it may be.
_OWN_HEADERS = f"accept-encoding: identity\r\nuser-agent: mlproxy/{__version__}\r\n".encode()
_CODING = re.compile(rb"(?:^|\n)content-encoding: *([^\r\n]*)", re.IGNORECASE)


class _Sent(NamedTuple):
    """What a reply is to be read by."""

    asked: Any  #: what the codec's `join` said
    places: dict[int, int] | None  #: of members that share what was sent; None: each has its own


class EndpointRuntime:
    """Collects one loop turn's events, hands them to the engine at once, and executes what it answers."""

    def __init__(
        self,
        endpoint: Endpoint,
        engine: Engine,
        codec: Codec[Any],
        balancer: Balancer,
        metrics: BatcherMetrics,
        wake: Callable[[EndpointRuntime], None],
    ) -> None:
        self.name = endpoint.name
        self.engine = engine
        self._codec = codec
        self._balancer = balancer
        self._metrics = metrics
        self._wake = wake
        self._path = endpoint.backend_path.encode()
        self._versioned_path = endpoint.versioned_backend_path
        self._timeout_ns = endpoint.backend.timeout_ns
        self._arrivals: list[LinkedRequest] = []
        self._events: list[Event] = []
        self._calls: dict[Batch, BackendCall] = {}
        self._coalesces = endpoint.batching.coalesce
        self._apart = Apart(metrics)
        batching = endpoint.batching
        self._verification = Verification(
            self.name, batching.verify, batching.verify_tolerance, codec, self._apart, metrics, self._verify
        ) if batching.verify else None  # fmt: skip
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0

    def __repr__(self) -> str:
        return f"<EndpointRuntime {self.name}: {self.engine!r}>"

    # --- events ----------------------------------------------------------------------------------------------

    def arrive(self, requests: list[LinkedRequest]) -> None:
        """Requests came over a link."""
        self._arrivals += requests
        self._wake(self)

    def cancel(self, request: LinkedRequest) -> None:
        """A request's caller, or its whole worker, is gone."""
        self._note(Cancelled(request))

    def drain(self) -> None:
        """Nothing more will arrive."""
        self._note(Drain())

    def _note(self, event: Event) -> None:
        if self._arrivals:  # what arrived before the event comes before it
            self._note_arrivals()
        self._events.append(event)
        self._wake(self)

    def _note_arrivals(self) -> None:
        arrivals, self._arrivals = self._arrivals, []
        if self._apart.some:
            alone, arrivals = self._apart.divide(arrivals)
            if alone:
                self._events.append(Arrived(alone, alone=True))
        self._events.append(Arrived(arrivals))

    def _verify(self, request: LinkedRequest) -> None:
        self._note(Arrived([request], spare=True))

    def resume_batching(self) -> int:
        """Batch again where verification has ended it; in how many lanes that was."""
        lanes = self._apart.resume_batching()
        if lanes:
            logger.info("batching again endpoint=%s lanes=%d", self.name, lanes)
        return lanes

    def _backend_done(
        self, batch: Batch, sent: _Sent, result: BackendReply | BackendFailure
    ) -> str | None:  # fmt: skip
        """Note how a call ended. Returns what only this side can see is wrong with its reply."""
        self._calls.pop(batch, None)
        event = self._to_event(batch, sent, result)
        self._note(event)
        failure = event.failure
        return failure.detail if failure is not None and failure.kind == "contract" else None

    def _to_event(self, batch: Batch, sent: _Sent, result: BackendReply | BackendFailure) -> Answered | Failed:
        if isinstance(result, BackendFailure):
            return Failed(batch, Failure(result.kind, result.detail))
        if not 200 <= result.status < 300:
            return Failed(batch, Failure("status", "", result.status, result.headers, result.body))
        try:
            _check_identity(result.headers)
            reply = self._codec.split_reply(result.headers, result.body, sent.asked)
        except BackendContract as error:
            return Failed(batch, Failure("contract", error.detail))
        except Exception:  # whoever waits for this batch must hear of it
            logger.exception("defect while reading a reply of %s", self.name)
            return Failed(batch, Failure("contract", "the backend's reply cannot be read"))
        if sent.places is None:
            return Answered(batch, reply.count, reply)
        if reply.count != batch.sent:
            return Failed(batch, Failure("contract", f"the backend answered {reply.count} items, not {batch.sent}"))
        return Answered(batch, batch.instances, Coalesced(reply, sent.places))

    # --- one turn --------------------------------------------------------------------------------------------

    def turn(self, now_ns: int, touched: set[WorkerLink]) -> None:
        """Hand everything noted since the last turn to the engine and carry out its commands."""
        if self._apart.some:
            self._apart.look(now_ns)
        if self._arrivals:
            self._note_arrivals()
        events, self._events = self._events, []
        for event in events:
            if isinstance(event, Answered | Failed):
                self._measure(event, now_ns)
        for command in self.engine.handle(events, now_ns):
            match command:
                case Complete(batch, answers):
                    self._complete(batch, cast("_Answers", answers), now_ns, touched)
                case Dispatch(batch):
                    self._dispatch(batch)
                case Reject(request, error):
                    self._reject(cast(LinkedRequest, request), error, touched)
                case Relay(request, failure):
                    link = cast(LinkedRequest, request).link
                    link.relay(request, failure.status, failure.headers, failure.body)
                    touched.add(link)
                case Abort(batch):
                    call = self._calls.pop(batch, None)
                    if call is not None:  # else its answer came in this very turn, for nobody
                        call.abort()
        self._gauge()

    def _complete(self, batch: Batch, answers: _Answers, now_ns: int, touched: set[WorkerLink]) -> None:
        if self._coalesces:
            answers = [(request, own_pieces(pieces)) for request, pieces in answers]
        if self._verification is not None:
            if batch.reason == "verify":
                self._verification.judge(*answers[0])
                return
            if len(batch.members) > 1:
                self._verification.sample(answers)
        render = self._codec.render
        by_link: dict[WorkerLink, tuple[list[int], list[Answer]]] = {}
        for request, pieces in answers:
            try:
                answer = render(pieces, request.own)
            except BackendContract as error:
                self._reject(request, error, touched)
                continue
            except Exception:  # must not cost others their answers
                logger.exception("defect while making an answer of %s", self.name)
                self._reject(request, BackendContract("the backend's reply cannot be read"), touched)
                continue
            request_ids, rendered = by_link.get(request.link) or by_link.setdefault(request.link, ([], []))
            request_ids.append(request.id)
            rendered.append(answer)
        for link, (request_ids, rendered) in by_link.items():
            link.answer(request_ids, rendered, batch.sent, batch.dispatched_ns, now_ns - batch.dispatched_ns)
            touched.add(link)

    def _reject(self, request: LinkedRequest, error: ProxyError, touched: set[WorkerLink]) -> None:
        request.link.reject(request, error)
        touched.add(request.link)
        self._metrics.rejected(error.slug)

    def _dispatch(self, batch: Batch) -> None:
        places = None
        try:  # whatever is read here has passed a worker, which may have judged otherwise
            items: list[Text] = [
                self._part_items(member) if isinstance(member, Part) else cast(LinkedRequest, member).items
                for member in batch.members
            ]
            if self._coalesces:
                items, places = coalesce(batch, items)
            headers, buffers, version, asked = self._codec.join(batch.lane_key, items)
            path = self._versioned_path(version).encode() if version else self._path
        except Exception:  # whoever waits for this batch must hear of it
            logger.exception("defect while writing a batch of %s", self.name)
            self._note(Failed(batch, Failure("contract", "the request cannot be sent")))
            return
        if self._coalesces:
            self._metrics.coalesced(batch.instances - batch.sent)
        headers += self._budget_line(batch) + _OWN_HEADERS
        self._calls[batch] = self._balancer.send(
            path, headers, buffers, self._timeout_ns, partial(self._backend_done, batch, _Sent(asked, places))
        )
        self._metrics.dispatched(batch.reason, batch.sent)
        if batch.first_call and batch.reason != "verify":
            dispatched_ns = batch.dispatched_ns
            self._metrics.waited([dispatched_ns - member.arrived_ns for member in batch.members])
        elif batch.attempt:
            self._metrics.retried(batch.cause)

    def _budget_line(self, batch: Batch) -> bytes:
        """What time there is for this call, where nobody in it would wait for as long as the backend may take."""
        deadline_ns = batch.last_deadline_ns
        if not deadline_ns:
            return b""
        left_ns = min(deadline_ns - batch.dispatched_ns, self._timeout_ns)
        return b"x-request-timeout-ms: %d\r\n" % max(1, left_ns // NS_PER_MS)  # 0 would mean none

    def _part_items(self, part: Part) -> Text:
        """The items of a part. The first part cuts the request; the others find it cut."""
        request = cast(LinkedRequest, part.owner)
        if request.cut is None:
            request.cut = self._codec.cut(request.lane_key, request.items)
            request.items = b""
        return request.cut.part(part.first, part.count)

    def _measure(self, event: Answered | Failed, now_ns: int) -> None:
        batch, failure = event.batch, event.failure
        code = "200" if failure is None else str(failure.status or failure.kind)
        self._metrics.backend_done(code, now_ns - batch.dispatched_ns)
        self._apart.observe(batch, failure, now_ns)

    def _gauge(self) -> None:
        engine = self.engine
        self._metrics.gauges(engine.queued_instances, engine.queued_bytes, engine.in_flight)

    def rearm(self, loop: asyncio.AbstractEventLoop, now_ns: int) -> None:
        """Keep the one timer at the engine's next wake-up; moved only when that comes earlier."""
        due_ns = self.engine.next_wakeup_ns()
        if due_ns is None or (self._timer is not None and self._timer_ns <= due_ns):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ns = due_ns
        self._timer = loop.call_later(_timer_s(due_ns, now_ns), self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._wake(self)


def _check_identity(headers: bytes) -> None:
    found = _CODING.search(headers) if b"content-encoding" in headers else None
    if found is not None and found[1].lower() != b"identity":
        coding = found[1].decode("latin-1")
        raise BackendContract(f"the backend's reply is encoded ({coding}), which the call does not accept")


def _timer_s(due_ns: int, now_ns: int) -> float:
    """How long to set a timer for that must not fire before ``due_ns``.

    uvloop's timers fire at the turn of a millisecond of the clock. One that is a fraction early would be set again, for
    nothing, until it is time: 54 turns for a wake-up on average, up to 373 (uvloop 0.23).
    """
    return max(0, -(-due_ns // NS_PER_MS) - now_ns // NS_PER_MS) / 1000
