"""What to do: the output of `Engine.handle`. **Pure.**

Every admitted request gets exactly one terminal command (`Complete`, `Reject` or `Relay`), unless its caller
cancelled it; then it gets none.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from mlproxy.engine.events import Failure
from mlproxy.engine.request import Batch, Request
from mlproxy.errors import ProxyError


class Dispatch(NamedTuple):
    """Send ``batch`` to the backend; report back with `Answered` or `Failed`."""

    batch: Batch


class Abort(NamedTuple):
    """Everyone in ``batch`` has gone: give up the call. No event about it is expected any more."""

    batch: Batch


class Complete(NamedTuple):
    """Terminal: ``request``'s answer is ``pieces``, each (reply, index of its first item, items), in order."""

    request: Request
    batch: Batch
    pieces: list[tuple[Any, int, int]]


class Reject(NamedTuple):
    """Terminal: ``request`` fails with ``error``."""

    request: Request
    error: ProxyError


class Relay(NamedTuple):
    """Terminal: ``request`` was alone in its call, so the backend's own status and body are its answer."""

    request: Request
    failure: Failure


Command: TypeAlias = Dispatch | Abort | Complete | Reject | Relay
