"""The hot path: predictions handled in the HTTP parser's callbacks, everything else left to Uvicorn. **Effects.**

`IngressProtocol` is Uvicorn's own protocol with another way through for ``POST <predict route>``: the body is
collected, parsed and pushed into the ring, with no ASGI scope, no task and no ``Request`` object. A `PredictCycle`
stands where Uvicorn keeps its cycle, so pipelining, ``Connection: close`` and graceful shutdown are Uvicorn's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httptools

from mlproxy.errors import BadRequest, MethodNotAllowed, ProxyError
from workers.ingress import head
from workers.ingress.connection import IngressConnection
from workers.ingress.cycle import PredictCycle

if TYPE_CHECKING:
    import asyncio

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from workers.ingress.door import Door


#: The most that uvloop reads at once.
READ_BYTES = 256 * 1024


class IngressProtocol(IngressConnection):
    """One connection."""

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None, *, door: Door,
    ) -> None:  # fmt: skip
        super().__init__(config, server_state, app_state, _loop, door=door)
        self._routes = door.routes.by_target
        self._max_body_bytes = door.limits.body_bytes
        self._max_header_bytes = door.limits.header_bytes
        # Per request
        self._read_bytes = 0  # of the read that is being parsed
        self._read_ends_request = False  # so that only a part of it, nobody knows which, belongs to the next head
        self._head_bytes = 0  # of earlier reads that belong to the head; then, of trailers
        self._shared_bytes = 0  # of the read that ended the request before: nobody knows how much of it is this head
        self._barren_bytes = 0  # since the last piece of a body: chunk extensions, trailers
        self._upgrading = False
        self._known_head: head.KnownHead | None = None

    # --- bytes in ------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.active_tick = self._door.tick
        if self.discarding:
            self._discard()
            return
        known = self._known_head
        if known is not None and known.begins(data) and self.cycle.response_complete:
            self._receive_known(known, data)
            return
        self._read_bytes = len(data)
        self._read_ends_request = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse_connection(BadRequest(f"not an HTTP request: {error}"))
        else:
            cycle = self.cycle
            if self.in_head:
                self._bound_head(len(data))
            elif isinstance(cycle, PredictCycle) and cycle.body_complete and self._read_ends_request:
                if cycle.plain_head:
                    self._known_head = head.known_head(cycle, data)
            elif self.phase.in_body:
                self._bound_body(len(data))
            elif not self._read_ends_request:
                self._hear_nothing()

    def _bound_head(self, read_bytes: int) -> None:
        """A head that goes on is refused at its bound, not at its end."""
        if self._read_ends_request:
            self._shared_bytes = read_bytes
        else:
            self._head_bytes += read_bytes
        if self._head_bytes > self._max_header_bytes:
            self._refuse_head()

    def _bound_body(self, read_bytes: int) -> None:
        """A body that goes on counts as it comes, and so does what comes in its place: chunk extensions, trailers."""
        self._barren_bytes += read_bytes
        if self._barren_bytes > self._max_header_bytes + READ_BYTES:
            self._refuse_head()
        elif isinstance(self.cycle, PredictCycle):
            self._hold(self.cycle)

    def _hear_nothing(self) -> None:
        """Line ends between two requests: allowed (RFC 9112 §2.2), but who sends only those is idle."""
        self.active_tick = self.began_tick

    def _receive_known(self, known: head.KnownHead, data: bytes) -> None:
        """A whole request whose head was parsed before: the parser, which is between two messages, need not see it."""
        said = known.said
        self.cycle = self._serving = cycle = PredictCycle(
            self, known.route, True, time.monotonic_ns(), json_bytes=said.json_bytes, priority=said.priority,
            priority_stated=said.priority_stated, lane_headers=said.lane_headers,
        )  # fmt: skip
        cycle.request_id = self._door.new_request_id()
        cycle.body_complete = True
        self._admit(cycle, data, len(known.head))

    def on_message_begin(self) -> None:
        # Uvicorn's version also builds the ASGI scope; that waits until the request turns out to need one.
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self.in_head = True
        self._known_head = None
        self._head_bytes = self._shared_bytes = 0
        self.began_tick = self._door.tick

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:
            self.headers.append((name.lower(), value))
        else:  # a trailer: allowed, of no use, and bounded
            self._head_bytes += len(name) + len(value) + 4
            if self._head_bytes > self._max_header_bytes:
                self._refuse_head()

    def on_headers_complete(self) -> None:
        self.in_head = False
        if self.discarding:  # since earlier in this very read
            return
        parser = self.parser
        if parser.should_upgrade():
            self._upgrading = True
            return
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._refuse_connection(BadRequest(f"HTTP/{version} is not spoken here; send HTTP/1.1"))
            return
        hosts = [name for name, _ in self.headers].count(b"host")
        if hosts > 1 or (not hosts and version == "1.1"):  # RFC 9112 §3.2
            self._refuse_connection(BadRequest(f"HTTP/1.1 takes exactly one Host header, not {hosts}"))
            return
        route = self._routes.get(self.url) or self._door.routes.predict(self.url)
        if route is None or parser.get_method() != b"POST":
            self._leave_to_app()
            return
        # To keep an HTTP/1.0 connection would take a header in the answer that HTTP/1.1 does not have.
        keep_alive = parser.should_keep_alive() and version == "1.1"
        cycle = PredictCycle(self, route, keep_alive, time.monotonic_ns())
        if route.lane_headers is not None:
            cycle.lane_headers = route.lane_headers.of(self.headers)
        try:
            self._check_head_size()
            head.read(cycle, self.headers, self._max_body_bytes)
        except ProxyError as error:
            cycle.error = error
        if not cycle.request_id:
            cycle.request_id = self._door.new_request_id()
        ahead, self.cycle = self.cycle, cycle
        if ahead is None or ahead.response_complete:
            self._serve(cycle)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))  # type: ignore[arg-type]

    def on_body(self, body: bytes) -> None:
        self._barren_bytes = 0
        if self.discarding:
            return
        cycle = self.cycle
        if not isinstance(cycle, PredictCycle):
            super().on_body(body)
        elif not cycle.response_complete and cycle.error is None:
            cycle.received_bytes += len(body)
            if cycle.received_bytes > self._max_body_bytes:
                self._fail_early(cycle, head.body_too_large(self._max_body_bytes))
            else:
                cycle.chunks.append(body)

    def on_message_complete(self) -> None:
        self._read_ends_request = True
        if self._upgrading or self.discarding:
            return
        cycle = self.cycle
        if not isinstance(cycle, PredictCycle):
            super().on_message_complete()
            return
        cycle.body_complete = True
        if cycle is self._serving:
            self._admit(cycle, cycle.take_body())
        else:
            self._hold(cycle)

    # --- everything else -----------------------------------------------------------------------------------------

    def _leave_to_app(self) -> None:
        url, headers = head.origin_form(self.url), self.headers
        super().on_message_begin()
        self.url = url
        self.headers += headers
        self.expect_100_continue = (b"expect", b"100-continue") in [(name, value.lower()) for name, value in headers]
        try:
            self._check_head_size()
            head.check_transfer_encoding(dict(headers).get(b"transfer-encoding", b"chunked"))
        except ProxyError as error:
            self._refuse_connection(error)
        else:
            super().on_headers_complete()

    def _check_head_size(self) -> None:
        """`HeaderTooLarge`. Counted only when so much was read that it can be: hardly ever."""
        most_bytes = self._shared_bytes + self._head_bytes + self._read_bytes
        if most_bytes > self._max_header_bytes:  # also true of a long read of many requests
            size_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size_bytes > self._max_header_bytes:
                raise head.head_too_large(self._max_header_bytes)
        self._head_bytes = 0  # from here on it counts trailers

    def _refuse_head(self) -> None:
        self._refuse_connection(head.head_too_large(self._max_header_bytes))

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Serve a request that offers ``Upgrade`` (h2c, from Java's client) as plain HTTP/1.1, as RFC 9110 §7.8 allows.

        The parser stops at such a head and takes no body, so a new one reads the head again without the offer.
        """
        self._upgrading = False
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse_connection(MethodNotAllowed("CONNECT is not served here"))
            return
        start = b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())
        plain = head.without_upgrade(start, self.headers, keep_alive=self.parser.should_keep_alive())
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(plain + rest)
