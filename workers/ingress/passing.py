"""Paths under an endpoint's prefix that are not predictions: passed to its backend, streamed both ways. **Effects.**

Off the hot path, so on httpx: a call costs about a millisecond of CPU and needs no code of ours for TLS, chunking or
pooling.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import anyio
import httpx

from mlproxy.backend import tls_context
from mlproxy.config import HEALTH_PATHS
from mlproxy.errors import BadRequest, Draining, EndpointNotFound, MethodNotAllowed, ProxyError
from mlproxy.units import NS_PER_S
from workers.ingress import head, hop
from workers.ingress.door import OUT_OF_TIME
from workers.ingress.pass_failure import error_of
from workers.ingress.response import error_body, error_headers

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from mlproxy.config import Backend
    from workers.ingress.door import Door
    from workers.ingress.routes import Route

logger = logging.getLogger("mlproxy.ingress")


class Exchange:
    """One request that passes through, with what its caller sends and gets."""

    def __init__(self, door: Door, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        given = dict(scope["headers"])
        self.request_id = given.get(b"x-request-id", b"")
        if not head.is_request_id(self.request_id):
            self.request_id = door.new_request_id()
        self._problem_json = head.accepts_problem_json(given.get(b"accept", b""))
        self._door = door
        self._send = send
        self._arrived_ns = time.monotonic_ns()
        self._status = 0  # none sent yet
        self._sent_bytes = 0
        self.body_taken = asyncio.Event()  #: all of the request's body that anybody wants has been received
        if not any(name in (b"content-length", b"transfer-encoding") for name in given):
            self.body_taken.set()

    @property
    def started(self) -> bool:
        """The caller has got a status."""
        return self._status != 0

    async def body(self) -> AsyncIterator[bytes]:
        """The request's, as it comes."""
        try:
            while True:
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    raise httpx.WriteError("the caller left in the middle of its body")
                if message.get("body"):
                    yield message["body"]
                if not message.get("more_body"):
                    return
        finally:
            self.body_taken.set()

    async def left(self) -> None:
        """Return when the caller has closed its connection."""
        await self.body_taken.wait()
        while (await self.receive())["type"] != "http.disconnect":
            pass  # of a body that the backend did not want to its end

    async def start(self, status: int, headers: hop.Headers) -> None:
        """Send the head of the answer."""
        self._status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, piece: bytes) -> None:
        """Send a piece of its body."""
        self._sent_bytes += len(piece)
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def finish(self) -> None:
        """The answer is complete."""
        await self._send({"type": "http.response.body", "body": b""})
        self._door.log(
            self.scope["client"], self.scope["method"], self.scope["path"], self._status, self._sent_bytes,
            self._arrived_ns, self.request_id,
        )  # fmt: skip

    async def refuse(self, error: ProxyError) -> None:
        """Answer with one of the proxy's own errors."""
        name = self.request_id.decode("latin-1")
        body = error_body(error, name)
        headers = error_headers(error, name, problem_json=self._problem_json) | {"content-length": str(len(body))}
        await self.start(error.status, [(key.encode(), value.encode("latin-1")) for key, value in headers.items()])
        await self.write(body)
        await self.finish()


class PassThrough:
    """An ASGI application: forwards to the endpoint's backend, or answers 404 or 405."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._clients: dict[int, httpx.AsyncHTTPTransport] = {}
        self._turns = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = Exchange(self._door, scope, receive, send)
        try:
            await self._forward(self._route(scope), exchange)
        except ProxyError as error:
            await exchange.refuse(error)

    def _route(self, scope: Scope) -> Route:
        target, path = scope["raw_path"], scope["path"]
        if self._door.routes.predict(target) is not None:
            raise MethodNotAllowed(f"{path} takes POST, not {scope['method']}")
        if path in HEALTH_PATHS:
            raise MethodNotAllowed(f"{path} takes GET, not {scope['method']}", allow="GET, HEAD")
        if not {".", ".."}.isdisjoint(re.split(r"[/\\]", path)):  # decoded: it must not lead out of the prefix
            raise BadRequest("the path must not have . or .. as a segment")
        route = self._door.routes.passing(path)
        if route is None:
            known = ", ".join(route.predict_path for route in self._door.routes.routes)
            raise EndpointNotFound(f"no endpoint has the path {path}; predictions go to {known}")
        return route

    async def _forward(self, route: Route, exchange: Exchange) -> None:
        backend = route.endpoint.backend
        self._turns += 1
        url = backend.urls[self._turns % len(backend.urls)]
        try:
            if await self._relay(route, url, exchange):
                await exchange.finish()
        except httpx.HTTPError as error:
            _give_up(error_of(error, url, backend), exchange)
        except asyncio.CancelledError:  # Uvicorn cancels what is not done when the time to drain is over
            if not self._door.draining:
                raise
            _give_up(Draining(OUT_OF_TIME, retry_after_s=1), exchange)

    async def _relay(self, route: Route, url: str, exchange: Exchange) -> bool:
        """The backend's reply, as it comes. False when the caller left; the call is broken off at once then.

        Uvicorn says nothing when it sends to a caller that has left, so a stream without an end would go on for ever.
        """
        with anyio.CancelScope() as call:
            watch = asyncio.create_task(_cancel_when_left(exchange, call))
            try:
                reply = await self._transport(route).handle_async_request(_request(route, url, exchange))
                try:
                    exchange.body_taken.set()
                    await exchange.start(reply.status_code, hop.passed_back(reply.headers.raw, exchange.request_id))
                    assert isinstance(reply.stream, httpx.AsyncByteStream)
                    async for piece in reply.stream:
                        await exchange.write(piece)
                finally:
                    await reply.aclose()
            finally:
                watch.cancel()
        return not call.cancelled_caught

    def _transport(self, route: Route) -> httpx.AsyncHTTPTransport:
        transport = self._clients.get(route.index)
        if transport is None:
            transport = self._clients[route.index] = _make_transport(route.endpoint.backend)
        return transport


def _request(route: Route, url: str, exchange: Exchange) -> httpx.Request:
    backend, scope = route.endpoint.backend, exchange.scope
    base = httpx.URL(url)
    target = base.raw_path.rstrip(b"/") + scope["raw_path"]
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    caller = scope["client"][0] if scope["client"] else None
    headers = hop.forwarded(scope["headers"], caller, base.netloc, exchange.request_id)
    seconds = backend.timeout_ns / NS_PER_S
    timeout = {
        "connect": backend.connect_timeout_ns / NS_PER_S, "read": seconds, "write": seconds, "pool": seconds,
    }  # fmt: skip
    return httpx.Request(
        scope["method"], base.copy_with(raw_path=target), headers=headers,
        content=None if exchange.body_taken.is_set() else exchange.body(), extensions={"timeout": timeout},
    )  # fmt: skip


def _make_transport(backend: Backend) -> httpx.AsyncHTTPTransport:
    limits = httpx.Limits(max_connections=backend.max_connections, max_keepalive_connections=8)
    return httpx.AsyncHTTPTransport(verify=tls_context(backend.tls), limits=limits, trust_env=False)


async def _cancel_when_left(exchange: Exchange, call: anyio.CancelScope) -> None:
    await exchange.left()
    call.cancel()


def _give_up(error: ProxyError, exchange: Exchange) -> None:
    if not exchange.started:
        raise error
    # Half an answer is out; returning makes Uvicorn cut the connection, which is how HTTP says "incomplete".
    logger.warning("pass-through broken off: %s", error.detail)
