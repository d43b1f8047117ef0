"""One prediction on a connection, in the shape that Uvicorn expects of a request-response cycle. **Effects.**"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlproxy.errors import ProxyError
    from mlproxy.protocols import ParsedRequest
    from workers.ingress.protocol import IngressProtocol
    from workers.ingress.routes import Route


class _NoEvent:
    """Uvicorn wakes a cycle's ASGI task through this; a prediction has no task."""

    def set(self) -> None:
        """Nobody waits."""


class PredictCycle:
    """A prediction from its head to its answer.

    It stands where Uvicorn keeps its ``RequestResponseCycle`` (``response_complete``, ``keep_alive``, ``disconnected``
    and ``message_event`` are Uvicorn's words), so that Uvicorn's own pipelining, shutdown and connection loss treat a
    connection with a pending prediction as busy.
    """

    __slots__ = (
        "arrived_ns", "body_complete", "chunks", "deadline_ns", "deaths", "disconnected", "error",
        "expects_continue", "keep_alive", "parsed", "problem_json", "protocol", "received_bytes", "request_id",
        "response_complete", "ring_id", "route", "sent",
    )  # fmt: skip

    message_event = _NoEvent()

    def __init__(self, protocol: IngressProtocol, route: Route, keep_alive: bool) -> None:
        self.protocol = protocol
        self.route = route
        self.keep_alive = keep_alive
        self.request_id = b""
        self.chunks: list[bytes] = []
        self.received_bytes = 0
        self.body_complete = False
        self.response_complete = False
        self.disconnected = False
        self.expects_continue = False
        self.problem_json = False
        self.arrived_ns = 0
        self.deadline_ns = 0
        self.error: ProxyError | None = None
        self.parsed: ParsedRequest | None = None
        self.ring_id = 0
        self.sent = False  # to the batcher that is alive now
        self.deaths = 0  # batchers that died while this was with them

    def __repr__(self) -> str:
        state = "answered" if self.response_complete else "complete" if self.body_complete else "receiving"
        return f"<PredictCycle {self.request_id.decode('latin-1')!r} {self.route.endpoint.name} {state}>"
