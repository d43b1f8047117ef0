"""One prediction on a connection, in the shape that Uvicorn expects of a request-response cycle. **Effects.**"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

if TYPE_CHECKING:
    from mlproxy.errors import ProxyError
    from mlproxy.protocols import ParsedRequest
    from workers.ingress.protocol import IngressProtocol
    from workers.ingress.routes import Route


class _NoEvent:
    """Uvicorn wakes a cycle's ASGI task through this; a prediction has no task."""

    def set(self) -> None:
        """Nobody waits."""


class PredictCycle(msgspec.Struct, eq=False):
    """A prediction from its head to its answer.

    It stands where Uvicorn keeps its ``RequestResponseCycle`` (``response_complete``, ``keep_alive``, ``disconnected``
    and ``message_event`` are Uvicorn's words), so that Uvicorn's own pipelining, shutdown and connection loss treat a
    connection with a pending prediction as busy.
    """

    message_event: ClassVar[_NoEvent] = _NoEvent()

    protocol: IngressProtocol
    route: Route
    keep_alive: bool
    arrived_ns: int
    json_bytes: int = 0  #: of the body, where the caller says that tensors follow in binary; 0: it is JSON as a whole
    priority: int = 0  #: 1 is the most urgent; 0: as usual
    priority_stated: bool = False  #: in a header, if only that there is none
    lane_headers: bytes = b""  #: what goes in front of its lane key; nothing for an endpoint without such headers
    deadline_ns: int = 0  #: absolute; 0: the caller set none
    budget_stated: bool = False  #: in a header, if only that there is none
    request_id: bytes = b""
    plain_head: bool = False  #: nothing in the head is this request's own: a content length, but no id, no deadline
    chunks: list[bytes | bytearray] = []
    received_bytes: int = 0
    body_complete: bool = False
    response_complete: bool = False
    disconnected: bool = False
    expects_continue: bool = False
    problem_json: bool = False
    coding: bytes = b""  #: of its body, which is to be inflated before it is read
    error: ProxyError | None = None  #: refused already; answered when its turn on the connection comes
    parsed: ParsedRequest | None = None  #: kept until it is answered, to be sent again if the batcher dies
    retained_bytes: int = 0  #: what its body counts against the worker's bound
    ring_id: int = 0
    sent: bool = False  #: to the batcher that is alive now
    deaths: int = 0  #: batchers that died while this was with them

    def take_body(self) -> bytes:
        """The whole body; whoever takes it keeps it."""
        chunks, self.chunks = self.chunks, []
        first = chunks[0] if chunks else b""
        return first if len(chunks) == 1 and isinstance(first, bytes) else b"".join(chunks)

    def gather(self) -> None:
        """Put the pieces so far together: as many objects of two bytes each they would take 28 times their size."""
        chunks = self.chunks
        if len(chunks) > 1:
            body = chunks[0] if isinstance(chunks[0], bytearray) else bytearray(chunks[0])
            body += b"".join(chunks[1:])
            self.chunks = [body]

    def __repr__(self) -> str:
        state = "answered" if self.response_complete else "complete" if self.body_complete else "receiving"
        return f"<PredictCycle {self.request_id.decode('latin-1')!r} {self.route.endpoint.name} {state}>"
