"""How a connection lives and ends: whose turn it is, admission, answers, refusals. **Effects.**

Invariant: every `PredictCycle` that was begun is finished exactly once, or its caller has left; and answers leave in
the order of their requests.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mlproxy.errors import Overloaded, ProxyError, RequestTimeout
from workers.ingress import response
from workers.ingress.cycle import PredictCycle
from workers.ingress.flow import Flow
from workers.ingress.phase import Phase, phase_of

if TYPE_CHECKING:
    import asyncio

    from starlette.types import Message, Receive, Scope, Send
    from uvicorn.config import Config
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
    from uvicorn.server import ServerState

    from workers.ingress.door import Door


#: So many callers beyond ``limits.connections`` are told so at once, and each keeps its connection until it has been
#: discarded; more are closed without a word, as nginx does with all of them.
MOST_TURNED_AWAY = 100


class IngressConnection(HttpToolsProtocol):
    """Uvicorn's connection, shared by predictions and by what passes through to the application."""

    cycle: RequestResponseCycle | PredictCycle  # type: ignore[assignment]  # the latest; None before the first

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None, *, door: Door,
    ) -> None:  # fmt: skip
        super().__init__(config, server_state, app_state, _loop)
        self._door = door
        self._serving: RequestResponseCycle | PredictCycle | None = None  # whose turn it is
        self.url = b""
        self._said_close = False  # before the answer was complete
        self._turned_away = False  # one connection too many: to be told so when it asks for something
        # Read by the watchdog
        self.active_tick = door.tick  # last heard from, or seen to take of its answers
        self.began_tick = door.tick  # when what comes in began: a request, or what is discarded
        self.in_head = False
        self.discarding = False
        # Kept by the watchdog
        self.sent_tick = door.tick  # when the caller last took something of its answers, or owed nothing
        self.unsent_bytes = 0

    def __repr__(self) -> str:
        caller = f"{self.client[0]}:{self.client[1]}" if self.client else "nobody"
        return f"<{type(self).__name__} from {caller}: {self.phase.value}, {len(self.pipeline)} behind>"

    @property
    def phase(self) -> Phase:
        """Where it stands."""
        return phase_of(self.in_head, self.discarding, self.cycle)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport, self.pipeline)
        excess = len(self.connections) - self._door.max_connections
        if excess > MOST_TURNED_AWAY:
            transport.abort()
        elif excess > 0:  # answered when it asks: an answer to nothing confuses clients (Go's calls it unsolicited)
            self._turned_away = self.discarding = True

    # --- one prediction ------------------------------------------------------------------------------------------

    def _serve(self, cycle: PredictCycle) -> None:
        """It is this cycle's turn on the connection."""
        self._serving = cycle
        if cycle.error is not None:
            self.fail(cycle, cycle.error)
        elif cycle.body_complete:
            self._admit(cycle, cycle.take_body())
        elif cycle.expects_continue:
            self.transport.write(response.CONTINUE)

    def _admit(self, cycle: PredictCycle, text: bytes, start: int = 0) -> None:
        if cycle.response_complete:
            return
        try:
            self._door.admit(cycle, text, start)
        except ProxyError as error:
            self.fail(cycle, error)

    def _hold(self, cycle: PredictCycle) -> None:
        if cycle.error is not None:
            return
        try:
            self._door.hold(cycle)
        except ProxyError as error:
            self._fail_early(cycle, error)

    def _fail_early(self, cycle: PredictCycle, error: ProxyError) -> None:
        """Refuse a request before it can be sent, now or when its turn comes."""
        cycle.error = error
        cycle.chunks = []
        self._door.retained.release(cycle)
        if cycle is self._serving:
            self.fail(cycle, error)

    # --- answers -------------------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._serving = cycle
        super()._start_asgi_task(cycle, partial(self._run, cycle, app))

    async def _run(self, cycle: RequestResponseCycle, app: Any, scope: Scope, receive: Receive, send: Send) -> None:
        """The application; but an answer that begins before the request is whole says that it is the last one here."""

        async def send_with_end(message: Message) -> None:
            if message["type"] != "http.response.start" or not cycle.more_body:
                await send(message)
                return
            self._said_close, cycle.keep_alive = True, False
            await send(message)
            cycle.keep_alive = True  # Uvicorn would close at once, and a reset overtake the answer

        await app(scope, receive, send_with_end)

    def fail(self, cycle: PredictCycle, error: ProxyError) -> None:
        """Answer ``cycle`` with one of the proxy's own errors."""
        if not cycle.body_complete:
            cycle.keep_alive = False
        if cycle.retained_bytes:
            self._door.retained.release(cycle)
        data = response.error(
            self._door.default_headers, cycle.request_id, error,
            problem_json=cycle.problem_json, keep_alive=cycle.keep_alive,
        )  # fmt: skip
        self._door.answered(cycle, error.status, len(data))
        self.finish(cycle, data)

    def finish(self, cycle: PredictCycle, data: bytes) -> None:
        """Write the whole response and go on with what the connection has waiting."""
        cycle.response_complete = True
        self.transport.write(data)
        if cycle.keep_alive:
            self._go_on()
        elif cycle.body_complete:
            self.transport.close()
        else:
            self._discard_rest()

    def on_response_complete(self) -> None:
        """The application has answered."""
        early = cast("RequestResponseCycle", self._serving).more_body
        self._go_on()
        if early and not self.transport.is_closing():
            self._discard_rest()  # the rest of the body is of no interest, and to wait for it has no bound
        elif self._said_close:
            self.transport.close()

    def _go_on(self) -> None:
        """Without Uvicorn's keep-alive timer: the watchdog closes idle connections, at no cost per request."""
        self._serving = None
        self.server_state.total_requests += 1
        self.active_tick = self._door.tick
        self.flow.resume_reading()
        if self.pipeline:
            self.loop.call_soon(self._serve_next)  # a call from here would nest, for hundreds of refused requests

    def _serve_next(self) -> None:
        if not self.pipeline or self.transport.is_closing():
            return
        waiting: tuple[RequestResponseCycle | PredictCycle, Any] = self.pipeline.pop()
        cycle, app = waiting
        self.flow.resume_reading()  # the rest of its own body may still be coming
        if isinstance(cycle, PredictCycle):
            self._serve(cycle)
        else:
            self._start_asgi_task(cycle, app)

    # --- back-pressure and the end -------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        if isinstance(self.cycle, PredictCycle):  # who does not take answers may not pipeline further requests
            self.flow.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.flow.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        cycle = self._serving
        if isinstance(cycle, PredictCycle):
            if not cycle.response_complete:
                cycle.response_complete = True
                self._door.left(cycle)
        elif cycle is not None:  # Uvicorn tells the latest request only, and this one may have others behind it
            cycle.disconnected = True
            cycle.message_event.set()
        self._serving = None
        while self.pipeline:
            self._drop_latest()

    def time_out(self, limit: str) -> None:
        """The watchdog: the caller is too slow with its request, or stopped in the middle of it."""
        self._refuse_connection(RequestTimeout(f"the request did not arrive within {limit}"))

    # --- refusals ------------------------------------------------------------------------------------------------

    def _discard(self) -> None:
        """Something came that does not count any more; who was turned away is told so now."""
        if self._turned_away:
            self._turned_away = False
            detail = f"{self._door.max_connections} connections are open, this worker's share of limits.connections"
            self._answer_and_discard(Overloaded(detail, retry_after_s=1))

    def _refuse_connection(self, error: ProxyError) -> None:
        """What comes is no request, or not all of one: answer it if no earlier one is pending, and close."""
        if self.discarding or self.transport.is_closing():
            return
        broken = self.cycle if self.phase.in_body else None
        if broken is not None and broken is not self._serving:
            self._drop_latest()  # its turn has not come
        elif isinstance(broken, PredictCycle):
            self.fail(broken, error)
            return
        elif broken is not None:
            self._cut_off(broken)
        if self._serving is not None or self.pipeline:
            # Answers to earlier requests on this connection are due first: let them go out, then close.
            self.cycle = self.pipeline[0][0] if self.pipeline else cast("PredictCycle", self._serving)
            self.cycle.keep_alive = False
            self.discarding = True
        else:
            self._answer_and_discard(error)

    def _drop_latest(self) -> None:
        cycle: RequestResponseCycle | PredictCycle = self.pipeline.popleft()[0]
        if isinstance(cycle, PredictCycle):
            self._door.retained.release(cycle)

    def _cut_off(self, cycle: RequestResponseCycle) -> None:
        """To the application this caller has left; a response that has begun cannot be taken back."""
        cycle.disconnected = True
        cycle.message_event.set()
        cycle.response_complete = True
        self._serving = None
        if cycle.response_started:
            self.transport.abort()

    def _answer_and_discard(self, error: ProxyError) -> None:
        request_id = self._door.new_request_id()
        data = response.error(self._door.default_headers, request_id, error, problem_json=False, keep_alive=False)
        self.transport.write(data)
        method, path = self._request_line()
        self._door.log(self.client, method, path, error.status, len(data), time.monotonic_ns(), request_id)
        self._discard_rest()

    def _request_line(self) -> tuple[str, str]:
        """Method and path of what comes in, as far as they are known. (The parser has the method when it has a URL.)"""
        if not self.url:
            return "-", "-"
        return self.parser.get_method().decode(), self.url.partition(b"?")[0].decode("latin-1")

    def _discard_rest(self) -> None:
        """Half-close, and discard what still comes: closing at once would reset the connection under the answer."""
        self.discarding = True
        self.began_tick = self._door.tick
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
