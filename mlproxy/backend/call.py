"""One call to a backend, and the two ways it can end. **Effects**: holds a timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mlproxy.calls import CallFailureKind

if TYPE_CHECKING:
    from mlproxy.backend.connection import BackendConnection


class BackendReply(NamedTuple):
    """The backend replied, whatever it said. ``headers`` are whole lines, of `KEPT_HEADERS` only."""

    status: int
    headers: bytes
    body: bytes


class BackendFailure(NamedTuple):
    """No usable reply. ``detail`` is a sentence."""

    kind: CallFailureKind
    detail: str


class BackendCall:
    """A call on its way. ``on_done`` is called exactly once, from the event loop, unless `abort` comes first."""

    __slots__ = ("_on_done", "connection", "done", "on_abort", "request", "restarted", "timer")

    def __init__(
        self, request: Sequence[bytes | memoryview], on_done: Callable[[BackendReply | BackendFailure], None]
    ) -> None:
        self.request = request
        self._on_done = on_done
        self.timer: asyncio.TimerHandle | None = None  #: the call's time-out; its pool arms it
        self.on_abort: Callable[[], None] | None = None
        self.connection: BackendConnection | None = None
        self.done = False
        self.restarted = False  #: it was on a kept connection that turned out to be dead

    def __repr__(self) -> str:
        return f"<BackendCall {'done' if self.done else f'on {self.connection!r}'}>"

    def abort(self) -> None:
        """Nobody wants the reply any more: close the connection, never call ``on_done``."""
        if not self.done:
            self._end()
            if self.on_abort is not None:
                self.on_abort()

    def finish(self, result: BackendReply | BackendFailure) -> None:
        """The call ended with ``result``."""
        if not self.done:
            self._end()
            self._on_done(result)

    def _end(self) -> None:
        self.done = True
        if self.timer is not None:
            self.timer.cancel()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abandon(self)
