"""Which endpoint a path belongs to. **Pure.**"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from mlproxy.config import Endpoint
from mlproxy.protocols import Codec, KServeV2, LaneHeaders, endpoint_codec
from workers.ingress.head import origin_form

#: What all model servers of the Open Inference Protocol answer about themselves, beside their models.
_SERVER_PATH = re.compile(r"/v2|/v2/health/.*")
_VERSION = re.compile(r"(.*)/versions/([A-Za-z0-9_-][A-Za-z0-9._-]{0,127})/infer")


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """An endpoint's place in the URL space."""

    index: int  #: of the endpoint, in records and metric pages
    endpoint: Endpoint
    codec: Codec[Any]
    predict_path: str
    prefix: str
    lane_headers: LaneHeaders | None = None

    @classmethod
    def of(cls, index: int, endpoint: Endpoint) -> Route:
        """The route of an endpoint."""
        names = endpoint.batching.lane_headers
        return cls(
            index, endpoint, endpoint_codec(endpoint), endpoint.predict_path, endpoint.prefix,
            LaneHeaders(names) if names else None,
        )  # fmt: skip


class RouteTable:
    """Exact lookup for predictions, longest prefix for everything that passes through."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.routes = [Route.of(index, endpoint) for index, endpoint in enumerate(endpoints)]
        #: The hot lookup: the request target as callers usually spell it.
        self.by_target = {route.predict_path.encode(): route for route in self.routes}
        self._by_path = {route.predict_path: route for route in self.routes}
        self._versioned = {route.prefix: route for route in self.routes if route.endpoint.names_versions}
        self._v2_server = next((route for route in self.routes if route.endpoint.protocol == "kserve-v2"), None)

    def predict(self, target: bytes) -> Route | None:
        """The endpoint whose predict route ``target`` is, in any spelling (query, percent-encoding)."""
        path = origin_form(target).partition(b"?")[0].decode("latin-1")
        path = unquote(path) if "%" in path else path
        return self._by_path.get(path) or (self._version(path) if self._versioned else None)

    def _version(self, path: str) -> Route | None:
        """The route of one version of a model, if ``path`` names one: no batch of it is any other's."""
        match = _VERSION.fullmatch(path)
        route = self._versioned.get(match[1]) if match else None
        if match is None or route is None:
            return None
        return replace(route, codec=KServeV2(match[2]), predict_path=path)

    def passing(self, path: str) -> Route | None:
        """The endpoint under whose prefix ``path`` lies; the longest prefix wins.

        The server's own paths of KServe v2 go to the first endpoint that speaks it: clients ask for these first.
        """
        matching = [
            route
            for route in self.routes
            # Its other verbs too: /v1/models/iris:explain
            if path.startswith(route.prefix) and path[len(route.prefix) :][:1] in ("", "/", ":")
        ]
        server = self._v2_server if _SERVER_PATH.fullmatch(path) else None
        return max(matching, key=lambda route: len(route.prefix), default=server)
