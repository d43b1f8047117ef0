"""What happened: the input of `Engine.handle`. **Pure.**"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from mlproxy.engine.request import Batch, Request

FailureKind: TypeAlias = Literal["connect", "reset", "timeout", "protocol", "too_large", "status", "contract"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a backend call gave no usable answer.

    ``status``, ``content_type`` and ``body`` are the backend's own when ``kind`` is ``status``. ``contract`` is a
    reply that is not one item per instance, or cannot be decoded.
    """

    kind: FailureKind
    detail: str
    status: int = 0
    content_type: bytes = b""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Arrived:
    """All requests that one loop turn drained, in order of arrival."""

    requests: Sequence[Request]


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The caller of ``request`` went away."""

    request: Request


@dataclass(frozen=True, slots=True)
class Answered:
    """The backend answered ``batch`` with ``items`` items; ``reply`` is handed through to the `Complete` commands."""

    batch: Batch
    items: int
    reply: Any = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The backend call of ``batch`` gave no usable answer."""

    batch: Batch
    failure: Failure


@dataclass(frozen=True, slots=True)
class Drain:
    """Nothing more will arrive: send what waits, without waiting for company."""


Event: TypeAlias = Arrived | Cancelled | Answered | Failed | Drain
