"""Which endpoint a path belongs to. **Pure.**"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from mlproxy.config import Endpoint
from mlproxy.protocols import Codec, codec_for
from workers.ingress.head import origin_form


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """An endpoint's place in the URL space."""

    index: int  #: of the endpoint, in records and metric pages
    endpoint: Endpoint
    codec: Codec[Any]
    predict_path: str
    prefix: str

    @classmethod
    def of(cls, index: int, endpoint: Endpoint) -> Route:
        """The route of an endpoint."""
        return cls(index, endpoint, codec_for(endpoint.protocol), endpoint.predict_path, endpoint.prefix)


class RouteTable:
    """Exact lookup for predictions, longest prefix for everything that passes through."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.routes = [Route.of(index, endpoint) for index, endpoint in enumerate(endpoints)]
        #: The hot lookup: the request target as callers usually spell it.
        self.by_target = {route.predict_path.encode(): route for route in self.routes}
        self._by_path = {route.predict_path: route for route in self.routes}

    def predict(self, target: bytes) -> Route | None:
        """The endpoint whose predict route ``target`` is, in any spelling (query, percent-encoding)."""
        path = origin_form(target).partition(b"?")[0].decode("latin-1")
        return self._by_path.get(unquote(path) if "%" in path else path)

    def passing(self, path: str) -> Route | None:
        """The endpoint under whose prefix ``path`` lies; the longest prefix wins."""
        matching = [
            route
            for route in self.routes
            # Its other verbs too: /v1/models/iris:explain
            if path.startswith(route.prefix) and path[len(route.prefix) :][:1] in ("", "/", ":")
        ]
        return max(matching, key=lambda route: len(route.prefix), default=None)
