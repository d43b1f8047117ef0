"""An open-loop HTTP load: requests leave when they are due, whether or not earlier ones were answered. **Effects.**

When is given; the command draws random instants (Poisson arrivals) at a rate, from a seed. **Latency counts from the
instant a request was due**, not from when it could be sent, so a server that stalls is charged for everybody who would
have come meanwhile (Tene's "coordinated omission"). Every due request ends in exactly one way: answered, or failed for
a named reason.

    python -m bench.open_loop URL --rate 200 --duration 10s --body FILE [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import time
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httptools
import orjson
import uvloop

from bench.instant_timer import InstantTimer
from bench.load import (
    BAD_RESPONSE,
    CONNECTION_CLOSED,
    NO_ANSWER_IN_TIME,
    NOT_CONNECTED,
    NOT_SENT,
    Load,
    Result,
    poisson_ns,
)
from mlproxy.units import NS_PER_S, parse_duration

#: An idle connection older than this is replaced: servers close theirs after some seconds (Uvicorn after five), and a
#: request that met the close on its way would count as failed.
_REUSE_WITHIN_NS = 2 * NS_PER_S


class OpenLoop:
    """Produces one load once. ``result`` may be read while `run` runs."""

    def __init__(self, load: Load) -> None:
        self.result = Result()
        self._load = load
        parts = urlsplit(load.url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._requests = [_request_bytes(load.url, body) for body in load.bodies]
        self._idle: list[_Connection] = []  # the last one used comes first
        self._connections: set[_Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._outstanding = 0
        self._started_ns = 0
        self._done = asyncio.Event()
        self._all_closed = asyncio.Event()
        self._all_closed.set()

    def __repr__(self) -> str:
        return (
            f"<OpenLoop {self.result.due} due, {self.result.answered} answered, {self._outstanding} outstanding on "
            f"{len(self._connections)} connections, {len(self._idle)} idle>"
        )

    async def run(self, started_ns: int | None = None) -> Result:
        """Send everything, wait for the answers within bounds, close every connection.

        ``started_ns`` is the instant from which the others count; None: now.
        """
        self._started_ns = time.monotonic_ns() if started_ns is None else started_ns
        self._timer = InstantTimer(self._send_due)
        self._send_due()
        last_ns = self._started_ns + (self._load.due_ns[-1] if self._load.due_ns else 0)
        try:
            async with asyncio.timeout((last_ns - time.monotonic_ns()) / NS_PER_S + self._load.answer_within_s):
                await self._done.wait()
        except TimeoutError:
            self.result.failed[NO_ANSWER_IN_TIME] += self._outstanding
        finally:
            self.result.elapsed_ns = time.monotonic_ns() - self._started_ns
            self._timer.close()
            await self._close()
        return self.result

    def _send_due(self) -> None:
        all_due_ns, now_ns = self._load.due_ns, time.monotonic_ns() - self._started_ns
        while self.result.due < len(all_due_ns) and all_due_ns[self.result.due] <= now_ns:
            self._send(self._started_ns + all_due_ns[self.result.due])
        if self.result.due < len(all_due_ns):
            self._timer.arm(self._started_ns + all_due_ns[self.result.due])
        else:
            self._check_done()

    def _send(self, due_ns: int) -> None:
        number = self.result.due
        data = self._requests[number % len(self._requests)]
        self.result.due += 1
        if self._outstanding >= self._load.max_outstanding:
            self.result.failed[NOT_SENT] += 1
            return
        self._outstanding += 1
        while self._idle:
            connection = self._idle.pop()
            if due_ns - connection.idle_since_ns < _REUSE_WITHIN_NS:
                self.result.sent += 1
                connection.send(data, number, due_ns)
                return
            connection.close()
        task = asyncio.get_running_loop().create_task(self._send_on_new(data, number, due_ns))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _send_on_new(self, data: bytes, number: int, due_ns: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: _Connection(self), self._host, self._port)
        except OSError:
            self.ended(NOT_CONNECTED)
            return
        self.result.sent += 1
        connection.send(data, number, due_ns)

    # --- what connections report -----------------------------------------------------------------------------

    def opened(self, connection: _Connection) -> None:
        """``connection`` exists now."""
        self._connections.add(connection)
        self._all_closed.clear()

    def lost(self, connection: _Connection) -> None:
        """``connection`` is no more."""
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._connections:
            self._all_closed.set()

    def answered(self, connection: _Connection, number: int, latency_ns: int, *, reusable: bool) -> None:
        """``connection`` has the 2xx answer to request ``number``."""
        self.result.latencies_ns.append(latency_ns)
        self.result.answered_numbers.append(number)
        self.ended(None, connection if reusable else None)

    def ended(self, failure: str | None, reusable: _Connection | None = None) -> None:
        """A request is no longer outstanding."""
        self._outstanding -= 1
        if failure is not None:
            self.result.failed[failure] += 1
        if reusable is not None:
            self._idle.append(reusable)
        self._check_done()

    def _check_done(self) -> None:
        if self._outstanding == 0 and self.result.due == len(self._load.due_ns):
            self._done.set()

    async def _close(self) -> None:
        """Leave no socket behind: a server may be waiting for these connections to end."""
        self._abort_all()
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        self._abort_all()  # one may have been made meanwhile
        await self._all_closed.wait()

    def _abort_all(self) -> None:
        for connection in list(self._connections):
            connection.close()


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on it."""

    def __init__(self, owner: OpenLoop) -> None:
        self._owner = owner
        self._due_ns: int | None = None  # of the request on it
        self._number = 0  # of that request
        self.idle_since_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only
        self._owner.opened(self)

    def send(self, data: bytes, number: int, due_ns: int) -> None:
        """Put a request on it."""
        self._number, self._due_ns = number, due_ns
        if self._transport.is_closing():
            self._fail(CONNECTION_CLOSED)
            return
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(data)

    def close(self) -> None:
        """At once; what is on it no longer counts."""
        self._due_ns = None
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._due_ns is None:  # nothing was asked
            self._transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(BAD_RESPONSE)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._due_ns is None or self._parser.get_status_code() < 200:  # an interim response
            return
        due_ns, self._due_ns = self._due_ns, None
        self.idle_since_ns = time.monotonic_ns()
        status, reusable = self._parser.get_status_code(), self._parser.should_keep_alive()
        if not reusable:
            self._transport.abort()
        if status < 300:
            self._owner.answered(self, self._number, self.idle_since_ns - due_ns, reusable=reusable)
        else:
            self._owner.ended(str(status), self if reusable else None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.lost(self)
        self._fail(CONNECTION_CLOSED)

    def _fail(self, reason: str) -> None:
        if self._due_ns is not None:
            self.close()
            self._owner.ended(reason)


def allow_many_connections() -> None:
    """Raise the limit of open files, often 1024, as far as this user may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def measure(load: Load) -> Result:
    """Produce ``load`` in an event loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(OpenLoop(load).run())


def _request_bytes(url: str, body: bytes) -> bytes:
    parts = urlsplit(url)
    target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    head = f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def main() -> int:
    """The command: print what was measured; 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.open_loop", description="POST a body at a rate, open loop.")
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=200.0, metavar="PER_SECOND")
    parser.add_argument("--duration", type=parse_duration, default="10s")
    parser.add_argument("--body", type=Path, required=True, metavar="FILE")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    arguments = parser.parse_args()
    allow_many_connections()
    result = measure(
        Load(
            url=arguments.url, bodies=[arguments.body.read_bytes()],
            due_ns=poisson_ns(arguments.rate, arguments.duration / NS_PER_S, arguments.seed),
        )
    )  # fmt: skip
    summary = result.summary()
    print(orjson.dumps(summary).decode() if arguments.json else "\n".join(f"{k:>15}  {v}" for k, v in summary.items()))
    return 1 if result.failed else 0


if __name__ == "__main__":
    sys.exit(main())
