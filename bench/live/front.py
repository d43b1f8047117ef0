"""The HTTP side of the emulated cluster, which speaks KServe v1 on loopback. **Effects**: sockets.

    POST /v1/models/emulated:predict    {"instances": [a, b]}  →  {"predictions": [A, B]}, when a pod has finished
    GET /v1/models/emulated             {"name": "emulated", "ready": true}

A connection carries one call at a time, as the proxy's do; when it is lost, so is the call.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Callable
from typing import Any, cast

import httptools
import orjson

from bench.live.model import ECHO, Model
from mlproxy.simulate.call import Call

MODEL = "emulated"
PREDICT = f"/v1/models/{MODEL}:predict"
_STATUS = f"/v1/models/{MODEL}"


class HttpCall(Call):
    """A call that came over a connection."""

    __slots__ = ("_connection", "items")

    def __init__(self, items: list[Any], connection: _Connection) -> None:
        super().__init__(len(items))
        self.items = items
        self._connection = connection

    def answer(self) -> None:
        """Send the predictions, or 503 if the call failed; nothing if nobody waits for them."""
        if not self.abandoned:
            self._connection.answer_call(self)


class Front:
    """Tells of calls that come and of those whose caller leaves; what is answered, ``model`` says."""

    def __init__(
        self, on_call: Callable[[HttpCall], None], on_lost: Callable[[HttpCall], None], model: Model = ECHO
    ) -> None:
        self.model = model
        self.on_call = on_call
        self.on_lost = on_lost
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    def __repr__(self) -> str:
        return f"<Front with {len(self.connections)} connections>"

    async def listen(self) -> str:
        """Listen on a port that the kernel chooses; the URL."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=4096)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Let everybody go."""
        if self._server is not None:
            self._server.close()
            for connection in list(self.connections):
                connection.abort()
            await self._server.wait_closed()


class _Connection(asyncio.Protocol):
    """One of the proxy's connections."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._parser = httptools.HttpRequestParser(self)
        self._path = ""
        self._body = b""
        self._call: HttpCall | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only
        self._front.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.connections.discard(self)
        call, self._call = self._call, None
        if call is not None:
            self._front.on_lost(call)

    def abort(self) -> None:
        """At once."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    # --- called by the parser --------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._path, self._body = "", b""

    def on_url(self, url: bytes) -> None:
        self._path += url.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        match self._parser.get_method(), self._path:
            case b"POST", path if path == PREDICT:
                self._predict()
            case b"GET", path if path == _STATUS:
                self._send(200, {"name": MODEL, "ready": True})
            case _:
                self._send(404, {"error": f"only {PREDICT} is here"})

    def _predict(self) -> None:
        items = _instances(self._body)
        if items is None:
            self._send(400, {"error": 'the body must be {"instances": [...]} with one instance or more'})
        elif self._call is not None:  # pipelined: whose answer is whose would be anybody's guess
            self._transport.abort()
        else:
            self._call = HttpCall(items, self)
            self._front.on_call(self._call)

    # --- answers ---------------------------------------------------------------------------------------------

    def answer_call(self, call: HttpCall) -> None:
        """``call`` has been worked on."""
        self._call = None
        if call.failed:
            self._send(503, {"error": "pending request queue full"})  # what Knative says
        else:
            self._send(200, {"predictions": self._front.model.predict(call.items)})

    def _send(self, status: int, document: object) -> None:
        body = orjson.dumps(document)
        head = (
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._transport.write(head.encode() + body)


def _instances(body: bytes) -> list[Any] | None:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    instances = document.get("instances") if isinstance(document, dict) else None
    return instances if isinstance(instances, list) and instances else None
