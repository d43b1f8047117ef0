"""What happened: the input of `Engine.handle`. **Pure.**"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from mlproxy.calls import CallFailureKind
from mlproxy.engine.request import Batch, Request

#: With a reply that is no answer: a status other than 2xx, or not one item per instance.
FailureKind: TypeAlias = CallFailureKind | Literal["status", "contract"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a backend call gave no usable answer.

    ``status``, ``headers`` (whole lines: those that a caller needs to understand the rest) and ``body`` are the
    backend's own when ``kind`` is ``status``.
    """

    kind: FailureKind
    detail: str
    status: int = 0
    headers: bytes = b""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Arrived:
    """All requests that one loop turn drained, in order of arrival."""

    requests: Sequence[Request]
    alone: bool = False  #: each is to be a call of its own, which nobody else is to share
    spare: bool = False  #: besides, only while a slot is free that nobody needs, without a retry, and not when draining


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

    @property
    def failure(self) -> Failure | None:
        """A list of the wrong length is no answer for anybody."""
        if self.items == self.batch.instances:
            return None
        return Failure("contract", f"the backend answered {self.items} items, not {self.batch.instances}")


@dataclass(frozen=True, slots=True)
class Failed:
    """The backend call of ``batch`` gave no usable answer."""

    batch: Batch
    failure: Failure


@dataclass(frozen=True, slots=True)
class Drain:
    """Nothing more will arrive: send what waits, without waiting for company."""


@dataclass(frozen=True, slots=True)
class Pods:
    """The backend has ``ready`` pods, says somebody who knows."""

    ready: int


Event: TypeAlias = Arrived | Cancelled | Answered | Failed | Drain | Pods
