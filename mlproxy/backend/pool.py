"""The connections to one backend URL. **Effects.**

Invariant: a connection is reserved for a call (taken out of the idle stack, or counted as open) before anything else
can run, so it is never given to two calls (the race of encode/httpcore#1035).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from mlproxy.backend.call import BackendCall, BackendFailure, BackendReply
from mlproxy.backend.connection import BackendConnection
from mlproxy.backend.dial import dial
from mlproxy.backend.url import BackendUrl
from mlproxy.units import NS_PER_S, format_duration

#: Idle connections older than this are not used again: the common idle time-out of gateways is 60 s, and a request
#: sent just then is lost.
MAX_IDLE_S = 55.0
#: What a handshake gets when dialling has used up the time: none would be no time-out at all.
_SHORTEST_HANDSHAKE_S = 0.001


class ConnectionPool:
    """At most ``max_connections`` connections, the most recently used one first; calls beyond them wait in line."""

    def __init__(
        self,
        url: BackendUrl,
        loop: asyncio.AbstractEventLoop,
        *,
        max_connections: int,
        connect_timeout_ns: int,
        max_reply_bytes: int,
        tls: ssl.SSLContext | None = None,
        dial: Callable[[asyncio.AbstractEventLoop, str, int], Awaitable[socket.socket]] = dial,
    ) -> None:
        self.url = url
        self._loop = loop
        self._max_connections = max_connections
        self._connect_timeout_ns = connect_timeout_ns
        self._max_reply_bytes = max_reply_bytes
        self._tls = tls
        self._dial = dial
        self._idle: list[BackendConnection] = []
        self._open: set[BackendConnection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._waiting: deque[BackendCall] = deque()
        self._closed = False
        self._head_start = f"POST {url.prefix}".encode()
        self._head_middle = f" HTTP/1.1\r\nhost: {url.authority}\r\n".encode()

    def __repr__(self) -> str:
        return (
            f"<ConnectionPool {self.url}: {len(self._open)} open, {len(self._idle)} idle, "
            f"{len(self._connecting)} connecting, {len(self._waiting)} waiting>"
        )

    def send(
        self,
        path: bytes,
        headers: bytes,
        body: Sequence[bytes | memoryview],
        timeout_ns: int,
        on_done: Callable[[BackendReply | BackendFailure], None],
    ) -> BackendCall:
        """POST ``body`` (buffers, sent one after the other). ``headers`` are whole lines. ``on_done`` is called later.

        ``timeout_ns`` covers everything: waiting for a connection, connecting, sending, the whole reply.
        """
        size = sum([len(buffer) for buffer in body])
        head = b"%b%b%b%bcontent-length: %d\r\n\r\n" % (self._head_start, path, self._head_middle, headers, size)
        call = BackendCall([head, *body], on_done)
        call.timer = self._loop.call_later(timeout_ns / NS_PER_S, self._time_out, call, timeout_ns)
        connection = self._take_idle()
        if connection is not None:
            connection.start(call)
        elif len(self._open) + len(self._connecting) < self._max_connections:
            self._connect(call)
        else:
            self._waiting.append(call)
        return call

    async def close(self) -> None:
        """Close every connection, and open none again; calls still out are abandoned."""
        self._closed = True
        for task in list(self._connecting):
            task.cancel()
        for connection in list(self._open):
            connection.close()
        await asyncio.sleep(0)

    def _time_out(self, call: BackendCall, timeout_ns: int) -> None:
        if call.connection is not None and call.connection.mute:
            for connection in self._idle:  # kept as long as that one, and perhaps as dead
                connection.close()
        call.finish(BackendFailure("timeout", f"the backend did not answer within {format_duration(timeout_ns)}"))

    # --- connections -----------------------------------------------------------------------------------------

    def _take_idle(self) -> BackendConnection | None:
        oldest_usable = self._loop.time() - MAX_IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if not connection.closing and connection.idle_since > oldest_usable:
                return connection
            connection.close()
        return None

    def _became_idle(self, connection: BackendConnection) -> None:
        call = self._next_waiting()
        if call is not None:
            connection.start(call)
        else:
            connection.idle_since = self._loop.time()
            self._idle.append(connection)

    def _was_lost(self, connection: BackendConnection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._connect_for_waiting()

    def _next_waiting(self) -> BackendCall | None:
        while self._waiting:
            call = self._waiting.popleft()
            if not call.done:
                return call
        return None

    def _connect_for_waiting(self) -> None:
        if len(self._open) + len(self._connecting) < self._max_connections:
            call = self._next_waiting()
            if call is not None:
                self._connect(call)

    def _connect(self, call: BackendCall) -> None:
        """Open a connection for ``call``: one task per connection, none per call."""
        if self._closed:
            return
        task = self._loop.create_task(self._open_for(call))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _open_for(self, call: BackendCall) -> None:
        try:
            connection = await self._open_connection()
        except TimeoutError:
            limit = format_duration(self._connect_timeout_ns)
            self._could_not_connect(call, BackendFailure("connect", f"no connection to {self.url} within {limit}"))
        except (OSError, ValueError) as error:  # refused, unreachable, unknown name or no name at all, bad certificate
            reason = str(error) or "the connection was closed in the TLS handshake"
            self._could_not_connect(call, BackendFailure("connect", f"cannot connect to {self.url}: {reason}"))
        else:
            self._connected(call, connection)

    async def _open_connection(self) -> BackendConnection:
        """Within the time-out.

        Only dialling is cancelled when it is over; a handshake has uvloop's own time-out. Cancelled just before the
        handshake begins, uvloop writes to a closed transport and calls that a defect, at which the batcher ends.
        """
        loop, seconds = self._loop, self._connect_timeout_ns / NS_PER_S
        give_up_at = loop.time() + seconds
        async with asyncio.timeout(seconds):
            dialled = await self._dial(loop, self.url.host, self.url.port)
        tls: dict[str, Any] = {}
        if self._tls is not None:
            left_s = max(_SHORTEST_HANDSHAKE_S, give_up_at - loop.time())
            tls = {"ssl": self._tls, "server_hostname": self.url.host, "ssl_handshake_timeout": left_s}
        try:
            _, connection = await loop.create_connection(self._make_connection, sock=dialled, **tls)
        except ConnectionAbortedError as error:  # what uvloop calls a handshake that takes too long
            raise TimeoutError from error
        return connection

    def _make_connection(self) -> BackendConnection:
        return BackendConnection(self._max_reply_bytes, self._became_idle, self._was_lost, self._connect)

    def _connected(self, call: BackendCall, connection: BackendConnection) -> None:
        if self._closed:
            connection.close()
        elif connection.closing:
            # The backend has hung up already: nobody may count on a notice of its loss, which may have been before.
            self._could_not_connect(call, BackendFailure("reset", f"{self.url} closed the connection at once"))
        else:
            self._leave_connecting()
            self._open.add(connection)
            if call.done:
                self._became_idle(connection)
            else:
                connection.start(call)

    def _could_not_connect(self, call: BackendCall, failure: BackendFailure) -> None:
        self._leave_connecting()
        call.finish(failure)
        self._connect_for_waiting()

    def _leave_connecting(self) -> None:
        """The running task's place is free now, not only when it has been seen to end: a call may be waiting for it."""
        self._connecting.discard(cast("asyncio.Task[None]", asyncio.current_task()))
