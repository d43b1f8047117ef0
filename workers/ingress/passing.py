"""Paths under an endpoint's prefix that are not predictions: passed to its backend, streamed both ways. **Effects.**

Off the hot path, so on httpx: a call costs about a millisecond of CPU and needs no code of ours for TLS, chunking or
pooling.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx

from mlproxy.backend import tls_context
from mlproxy.errors import (
    BackendTimeout,
    BackendUnavailable,
    BadRequest,
    EndpointNotFound,
    MethodNotAllowed,
    ProxyError,
)  # fmt: skip
from mlproxy.units import NS_PER_S
from workers.ingress.response import error_body, error_headers

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from mlproxy.config import Backend
    from workers.ingress.door import Door
    from workers.ingress.routes import Route

logger = logging.getLogger("mlproxy.ingress")

#: RFC 9110 §7.6.1: about one hop only, so never passed on; with those that Knative's own hops use (K-*).
_HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te",
    b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings", b"expect",
})  # fmt: skip


class PassThrough:
    """An ASGI application: forwards to the endpoint's backend, or answers 404 or 405."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._clients: dict[int, httpx.AsyncHTTPTransport] = {}
        self._turns = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            await self._forward(self._route(scope), scope, receive, send)
        except ProxyError as error:
            await self._refuse(error, scope, send)

    def _route(self, scope: Scope) -> Route:
        target, path = scope["raw_path"], scope["path"]
        if self._door.routes.predict(target) is not None:
            raise MethodNotAllowed(f"{path} takes POST, not {scope['method']}")
        if not {".", ".."}.isdisjoint(re.split(r"[/\\]", path)):  # decoded: it must not lead out of the prefix
            raise BadRequest("the path must not have . or .. as a segment")
        route = self._door.routes.passing(path)
        if route is None:
            known = ", ".join(route.predict_path for route in self._door.routes.routes)
            raise EndpointNotFound(f"no endpoint has the path {path}; predictions go to {known}")
        return route

    async def _forward(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        try:
            reply = await self._transport(route).handle_async_request(self._request(route, scope, receive))
            try:
                await send({"type": "http.response.start", "status": reply.status_code, "headers": _passed(reply)})
                started = True
                assert isinstance(reply.stream, httpx.AsyncByteStream)
                async for piece in reply.stream:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            finally:
                await reply.aclose()
        except httpx.TimeoutException as error:
            self._give_up(BackendTimeout(f"the backend did not answer in time: {error!r}"), started)
        except httpx.HTTPError as error:
            self._give_up(BackendUnavailable(f"the backend call failed: {error!r}"), started)

    def _give_up(self, error: ProxyError, started: bool) -> None:
        if not started:
            raise error
        # Half an answer is out; returning makes Uvicorn cut the connection, which is how HTTP says "incomplete".
        logger.warning("pass-through broken off: %s", error.detail)

    def _request(self, route: Route, scope: Scope, receive: Receive) -> httpx.Request:
        urls = route.endpoint.backend.urls
        self._turns += 1
        base = httpx.URL(urls[self._turns % len(urls)])
        target = base.raw_path.rstrip(b"/") + scope["raw_path"]
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        headers = _forwarded(scope, base)
        has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
        content = _body(receive) if has_body else None
        backend = route.endpoint.backend
        seconds = backend.timeout_ns / NS_PER_S
        timeout = {
            "connect": backend.connect_timeout_ns / NS_PER_S, "read": seconds, "write": seconds, "pool": seconds,
        }  # fmt: skip
        return httpx.Request(
            scope["method"], base.copy_with(raw_path=target), headers=headers, content=content,
            extensions={"timeout": timeout},
        )  # fmt: skip

    def _transport(self, route: Route) -> httpx.AsyncHTTPTransport:
        transport = self._clients.get(route.index)
        if transport is None:
            transport = self._clients[route.index] = _make_transport(route.endpoint.backend)
        return transport

    async def _refuse(self, error: ProxyError, scope: Scope, send: Send) -> None:
        given = dict(scope["headers"])
        request_id = given.get(b"x-request-id", self._door.new_request_id()).decode("latin-1")
        problem_json = b"application/problem+json" in given.get(b"accept", b"")
        body = error_body(error, request_id)
        headers = error_headers(error, request_id, problem_json=problem_json) | {"content-length": str(len(body))}
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": error.status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})
        self._door.refused(error)


def _make_transport(backend: Backend) -> httpx.AsyncHTTPTransport:
    limits = httpx.Limits(max_connections=backend.max_connections, max_keepalive_connections=8)
    return httpx.AsyncHTTPTransport(verify=tls_context(backend.tls), limits=limits, trust_env=False)


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise httpx.WriteError("the caller left in the middle of its body")
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            return


def _forwarded(scope: Scope, base: httpx.URL) -> list[tuple[bytes, bytes]]:
    """The caller's headers as the backend gets them."""
    nominated = {
        token.strip().lower()
        for name, value in scope["headers"]
        if name == b"connection"
        for token in value.split(b",")
    }
    dropped = _HOP_BY_HOP | nominated | {b"host", b"x-forwarded-for"}
    headers = [(name, value) for name, value in scope["headers"] if name not in dropped and name[:2] != b"k-"]
    hops = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    if scope["client"]:
        hops.append(scope["client"][0].encode())
    return [*headers, (b"host", base.netloc), (b"x-forwarded-for", b", ".join(hops))]


def _passed(reply: httpx.Response) -> list[tuple[bytes, bytes]]:
    """The backend's headers as the caller gets them."""
    return [
        (name.lower(), value)
        for name, value in reply.headers.raw
        if name.lower() not in _HOP_BY_HOP and name.lower() != b"date"
    ]
