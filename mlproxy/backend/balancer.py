"""Chooses one of an endpoint's URLs for each call. **Effects.**

Least outstanding calls first, ties in turn. A URL that cannot be connected to is avoided for a while that doubles with
every failure; when all are being avoided, the one whose while ends first is tried.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mlproxy.backend.call import BackendCall, BackendFailure, BackendReply
from mlproxy.backend.incidents import Incidents
from mlproxy.backend.pool import ConnectionPool
from mlproxy.backend.url import BackendUrl, tls_context
from mlproxy.units import NS_PER_S

if TYPE_CHECKING:
    from mlproxy.config import Endpoint, Limits

logger = logging.getLogger("mlproxy.backend")

FIRST_AVOIDANCE_S = 0.1
LONGEST_AVOIDANCE_S = 5.0


class Upstream:
    """One URL: its pool, and what the last calls say about its health."""

    def __init__(self, pool: ConnectionPool, endpoint: str) -> None:
        self.pool = pool
        self.incidents = Incidents(endpoint, str(pool.url))
        self.outstanding = 0
        self.connect_failures = 0  # in a row
        self.avoided_until = 0.0  # loop time
        self.last_used = 0

    def __repr__(self) -> str:
        return f"<Upstream {self.pool!r}, {self.outstanding} outstanding, {self.connect_failures} failures in a row>"


class Balancer:
    """The way to an endpoint's backend."""

    def __init__(
        self,
        pools: Sequence[ConnectionPool],
        loop: asyncio.AbstractEventLoop,
        *,
        endpoint: str,
        on_health: Callable[[int, bool], None] = lambda index, healthy: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._upstreams = [Upstream(pool, endpoint) for pool in pools]
        self._loop = loop
        self._on_health = on_health
        self._jitter = jitter
        self._sent = 0
        for index in range(len(pools)):
            on_health(index, True)

    @classmethod
    def of(
        cls, endpoint: Endpoint, limits: Limits, loop: asyncio.AbstractEventLoop,
        on_health: Callable[[int, bool], None],
    ) -> Balancer:  # fmt: skip
        """As configured. A reply may be as large as all that may wait."""
        backend = endpoint.backend
        urls = [BackendUrl.parse(url) for url in backend.urls]
        tls = tls_context(backend.tls) if any(url.scheme == "https" for url in urls) else None
        pools = [
            ConnectionPool(
                url, loop, max_connections=backend.max_connections, connect_timeout_ns=backend.connect_timeout_ns,
                max_reply_bytes=limits.queue_bytes, tls=tls if url.scheme == "https" else None,
            )
            for url in urls
        ]  # fmt: skip
        return cls(pools, loop, endpoint=endpoint.name, on_health=on_health)

    def __repr__(self) -> str:
        return f"<Balancer {self._upstreams!r}>"

    def send(
        self, path: bytes, headers: bytes, body: Sequence[bytes | memoryview], timeout_ns: int,
        on_done: Callable[[BackendReply | BackendFailure], str | None],
    ) -> BackendCall:  # fmt: skip
        """As `ConnectionPool.send`, to the URL that suits best now.

        ``on_done`` returns what it finds wrong with a reply, so that the log names the URL that gave it.
        """
        index = self._choose()
        upstream = self._upstreams[index]
        upstream.outstanding += 1
        self._sent += 1
        upstream.last_used = self._sent
        call = upstream.pool.send(path, headers, body, timeout_ns, partial(self._ended, index, on_done))
        call.on_abort = partial(self._aborted, upstream)
        return call

    async def close(self) -> None:
        """Close every pool."""
        for upstream in self._upstreams:
            await upstream.pool.close()

    def _choose(self) -> int:
        if len(self._upstreams) == 1:
            return 0
        now = self._loop.time()
        return min(
            range(len(self._upstreams)),
            key=lambda index: self._rank(self._upstreams[index], now),
        )

    def _rank(self, upstream: Upstream, now: float) -> tuple[float, int, int]:
        avoided = upstream.avoided_until if upstream.avoided_until > now else 0.0
        return avoided, upstream.outstanding, upstream.last_used

    def _aborted(self, upstream: Upstream) -> None:
        upstream.outstanding -= 1

    def _ended(
        self, index: int, on_done: Callable[[BackendReply | BackendFailure], str | None],
        result: BackendReply | BackendFailure,
    ) -> None:  # fmt: skip
        upstream = self._upstreams[index]
        upstream.outstanding -= 1
        if isinstance(result, BackendFailure) and result.kind == "connect":
            self._could_not_connect(index, result.detail)
        else:
            if upstream.connect_failures:
                self._connected(index)
            if isinstance(result, BackendFailure):
                _warn(upstream.incidents.call_failed(result.detail, self._now_ns()))
            elif result.status >= 500:
                _warn(upstream.incidents.call_failed(f"it answered {result.status}", self._now_ns()))
        if (complaint := on_done(result)) is not None:
            _warn(upstream.incidents.call_failed(complaint, self._now_ns()))

    def _could_not_connect(self, index: int, detail: str) -> None:
        upstream = self._upstreams[index]
        longest = min(LONGEST_AVOIDANCE_S, FIRST_AVOIDANCE_S * 2 ** min(upstream.connect_failures, 16))
        upstream.avoided_until = self._loop.time() + longest * (0.5 + 0.5 * self._jitter())
        upstream.connect_failures += 1
        self._on_health(index, False)
        _warn(upstream.incidents.could_not_connect(detail, self._now_ns()))

    def _connected(self, index: int) -> None:
        upstream = self._upstreams[index]
        upstream.connect_failures = 0
        upstream.avoided_until = 0.0
        self._on_health(index, True)
        line = upstream.incidents.connected(self._now_ns())
        if line is not None:
            logger.info("%s", line)

    def _now_ns(self) -> int:
        return int(self._loop.time() * NS_PER_S)


def _warn(line: str | None) -> None:
    if line is not None:
        logger.warning("%s", line)
