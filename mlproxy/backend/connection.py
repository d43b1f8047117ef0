"""One keep-alive connection to a backend. **Effects.**

Invariant: a call on this connection ends exactly once, whatever bytes come. Parser callbacks only note what they see;
nothing that could raise runs inside them, because an exception there would lose the reply and its callers would wait
for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from mlproxy.backend.call import BackendCall, BackendFailure, BackendReply
from mlproxy.calls import CallFailureKind

#: Below this a request is one copy and one write; above it the buffers go to the socket as they are (writev).
JOIN_BELOW_BYTES = 64 * 1024
#: What a reply may have besides its body: heads, interim ones too, trailers. Envoy's bound for a head is 60 KiB. Each
#: byte of body may bring so many more: a chunk of one byte has five around it, and its extension.
MAX_AROUND_BYTES = 64 * 1024
MAX_AROUND_PER_BODY_BYTE = 16

#: Without these a caller to whom the backend's own reply is passed on, or a codec, could not understand it.
KEPT_HEADERS = frozenset({
    b"content-type", b"content-encoding", b"content-language", b"location", b"retry-after", b"www-authenticate",
    b"inference-header-content-length",
})  # fmt: skip


class BackendConnection(asyncio.Protocol):
    """Sends one call at a time; tells its pool when it can take the next, or is gone."""

    def __init__(
        self,
        max_reply_bytes: int,
        on_idle: Callable[[BackendConnection], None],
        on_lost: Callable[[BackendConnection], None],
        on_stale: Callable[[BackendCall], None],
    ) -> None:
        self._max_reply_bytes = max_reply_bytes
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._on_stale = on_stale
        self._transport: asyncio.Transport | None = None
        self._call: BackendCall | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._calls = 0
        self._received_bytes = 0  # of the reply that is coming
        self.idle_since = 0.0  #: loop time
        self._reset()

    def __repr__(self) -> str:
        state = "closed" if self.closing else "busy" if self._call else "idle"
        return f"<BackendConnection {state}, {self._calls} calls>"

    def _reset(self) -> None:
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self._headers = b""
        self._delimited = False  # by content length or chunks; else the reply ends with the connection
        self._begun = False
        self._status = 0
        self._complete = False
        self._keep_alive = False
        self._surplus = False

    # --- calls -----------------------------------------------------------------------------------------------

    @property
    def closing(self) -> bool:
        """Not to be used any more."""
        return self._transport is None or self._transport.is_closing()

    @property
    def mute(self) -> bool:
        """A kept connection that has said nothing since its last reply: its far end may have gone without a word."""
        return self._calls > 1 and self._received_bytes == 0

    def start(self, call: BackendCall) -> None:
        """Send ``call``. The pool has reserved this connection for it."""
        transport = self._transport
        assert transport is not None
        assert self._call is None
        self._call = call
        call.connection = self
        self._calls += 1
        if sum([len(buffer) for buffer in call.request]) < JOIN_BELOW_BYTES:
            transport.write(b"".join(call.request))
        else:
            transport.writelines(call.request)

    def abandon(self, call: BackendCall) -> None:
        """``call`` ended before its reply was complete: what still comes belongs to nobody."""
        if self._call is call:
            self._call = None
            self.close()

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, kind: CallFailureKind, detail: str) -> None:
        call, self._call = self._call, None
        self.close()
        if call is not None:
            call.connection = None
            call.finish(BackendFailure(kind, detail))

    # --- transport -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._call is None:
            self.close()  # bytes that nobody asked for
            return
        self._received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                self._fail("protocol", f"the backend's reply is not HTTP: {error!r}")
                return
            self._surplus = True
        if self._size_bytes > self._max_reply_bytes:
            self._fail("too_large", f"the backend's reply exceeds {self._max_reply_bytes} bytes")
        elif self._complete and not 200 <= self._status <= 599:
            self._fail("protocol", f"the backend's reply has the status {self._status}")
        elif self._complete:
            self._succeed(keep=self._keep_alive and not self._surplus)
        elif self._received_bytes - self._size_bytes > MAX_AROUND_BYTES + MAX_AROUND_PER_BODY_BYTE * self._size_bytes:
            self._fail(
                "too_large", f"the backend sent more than {MAX_AROUND_BYTES} bytes that are not its reply's body"
            )

    def eof_received(self) -> bool:
        return False  # close the transport; `connection_lost` settles the call

    def connection_lost(self, exc: Exception | None) -> None:
        if self._call is not None:
            if self._begun and self._status and not self._delimited and exc is None:
                self._succeed(keep=False)
            elif not self._begun and self._calls > 1 and not self._call.restarted:
                # Kept alive, and closed by the backend just as it was used again: not a sign of trouble.
                call, self._call = self._call, None
                call.connection, call.restarted = None, True
                self._on_stale(call)
            else:
                self._fail("reset", f"the backend closed the connection before its reply was complete ({exc or 'EOF'})")
        self._on_lost(self)

    def _succeed(self, *, keep: bool) -> None:
        call, self._call = self._call, None
        assert call is not None
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        reply = BackendReply(self._status, self._headers, body)
        call.connection = None
        self._reset()
        self._received_bytes = 0
        if keep:
            self._on_idle(self)
        else:
            self.close()
        call.finish(reply)

    # --- parser callbacks ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            self._surplus = True
        self._begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._complete:
            return  # of a second reply, which nobody asked for
        name = name.lower()
        if name in KEPT_HEADERS:
            self._headers += b"%b: %b\r\n" % (name, value)
        elif name == b"content-length" or name == b"transfer-encoding":
            self._delimited = True

    def on_headers_complete(self) -> None:
        if not self._complete:
            self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._size_bytes += len(body)
            if self._size_bytes <= self._max_reply_bytes:
                self._pieces.append(body)

    def on_message_complete(self) -> None:
        if 100 <= self._status < 200:  # 100 Continue, 103 Early Hints: the reply itself is still to come
            self._reset()
        else:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()  # the parser knows it only now
