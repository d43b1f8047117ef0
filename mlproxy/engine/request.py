"""What the engine moves: requests, the parts of oversized ones, and batches. **Pure.**

A `Request` is one caller's unit. A request of more instances than ``max_size`` is carried by several `Part`\\ s that
travel in different batches; its answer is complete when the last part's is. Everything in a queue or a batch is a
`Member`: a request, or a part of one.

These classes are msgspec Structs, and mutable: one is made per request, in 0.1 µs where a slotted dataclass takes
0.25 µs and a frozen one 1.1 µs (CPython 3.11).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, TypeAlias

import msgspec

from mlproxy.calls import FlushReason

#: A part of a reply: the reply (whatever `Answered` brought), the index of its first item, the number of items.
Piece: TypeAlias = tuple[Any, int, int]


class State(IntEnum):
    """Where a member is. Below `IN_FLIGHT` it waits."""

    QUEUED = 0
    LATE = 1  #: queued, but whatever is done it will not be answered in time: those that can be go first
    AGAIN = 2  #: its call failed, and another one is due
    IN_FLIGHT = 3
    DONE = 4  #: answered, rejected or cancelled: no further command names it


class Request(msgspec.Struct, eq=False):
    """One caller's request. Whoever feeds the engine extends it by what the engine never looks at."""

    id: int
    lane_key: bytes
    count: int  #: instances, at least 1
    size_bytes: int
    arrived_ns: int
    deadline_ns: int = 0  #: absolute; 0: the caller set none
    state: State = State.QUEUED
    parts: list[Part] | None = None  #: set when the request was split over batches
    priority: int = 0  #: 1 is the most urgent, larger numbers less so; 0: as usual
    remembered: bool = False  #: it goes alone because one like it lately failed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.count} instances, {self.state.name.lower()}>"

    @property
    def first(self) -> int:
        """Index of this member's first instance within its request."""
        return 0

    @property
    def owner(self) -> Request:
        """The request to which an answer goes."""
        return self

    @property
    def twin(self) -> bytes:
        """The same for requests of a lane that may be sent as one; nothing: for no other."""
        return b""

    @property
    def waits(self) -> bool:
        """It, or a part of it, is not with the backend and not done."""
        if self.parts is None or self.state is State.DONE:
            return self.state < State.IN_FLIGHT
        return any(part.state < State.IN_FLIGHT for part in self.parts)

    def release(self) -> None:
        """Nobody will read its instances again; its place in a lane may stay for a while."""


class Part(msgspec.Struct, eq=False):
    """``count`` instances of an oversized request, from index ``first`` on."""

    owner: Request
    first: int
    count: int
    state: State = State.QUEUED
    reply: Piece | None = None  #: this part's piece of the answer, once it is there

    def __repr__(self) -> str:
        return f"<Part of {self.owner!r} from {self.first}: {self.count} instances, {self.state.name.lower()}>"

    @property
    def size_bytes(self) -> int:
        """This part's share of the request's bytes; the shares of all parts add up to exactly the whole."""
        total_bytes, total = self.owner.size_bytes, self.owner.count
        return total_bytes * (self.first + self.count) // total - total_bytes * self.first // total

    @property
    def twin(self) -> bytes:
        """None has one."""
        return b""

    @property
    def lane_key(self) -> bytes:
        """The request's."""
        return self.owner.lane_key

    @property
    def arrived_ns(self) -> int:
        """When the caller's request arrived."""
        return self.owner.arrived_ns

    @property
    def deadline_ns(self) -> int:
        """The caller's, for the whole request; 0: none."""
        return self.owner.deadline_ns

    @property
    def priority(self) -> int:
        """The caller's, for the whole request."""
        return self.owner.priority

    def rejoin(self, piece: Piece) -> list[Piece]:
        """Keep this part's piece of the answer. Once it is the last, the request is done: all pieces, in order."""
        self.reply = piece
        parts = self.owner.parts or ()
        # From the end, where one is mostly missing: from the start it takes as many steps as there are pairs of parts.
        if any(part.reply is None for part in reversed(parts)):
            return []
        self.owner.state = State.DONE
        return [part.reply for part in parts if part.reply is not None]


Member: TypeAlias = Request | Part


def split(request: Request, max_size: int) -> list[Part]:
    """Cut an oversized request into parts of at most ``max_size`` instances, in order."""
    request.parts = [
        Part(request, first, min(max_size, request.count - first)) for first in range(0, request.count, max_size)
    ]
    return request.parts


class Batch(msgspec.Struct, eq=False):
    """Members that share one backend call."""

    id: int
    lane_key: bytes
    members: list[Member]
    instances: int
    reason: FlushReason
    dispatched_ns: int = 0
    attempt: int = 0  #: 0 for the first call, counted up by retries
    isolating: bool = False  #: one half of a batch that failed
    cause: str = ""  #: the failure that made this call necessary: a kind, or ``status_503``
    live: int = 0  #: members still waiting for an answer
    sent: int = 0  #: instances of its call: fewer, if whoever sends it sends identical ones once

    def __repr__(self) -> str:
        return f"<Batch {self.id}: {self.instances} instances of {len(self.members)} members, {self.reason}>"

    def __post_init__(self) -> None:
        self.live = len(self.members)
        self.sent = self.instances

    @property
    def first_call(self) -> bool:
        """Its members have never been with the backend."""
        return not self.attempt and not self.isolating

    @property
    def remembered(self) -> bool:
        """Its one member goes alone because one like it lately failed."""
        return self.reason == "alone" and self.members[0].owner.remembered

    @property
    def last_deadline_ns(self) -> int:
        """When the last of its members gives up; 0: one of them waits for as long as it takes."""
        last_ns = 0
        for member in self.members:
            if not member.deadline_ns:
                return 0
            last_ns = max(last_ns, member.deadline_ns)
        return last_ns

    def enter_flight(self, now_ns: int) -> None:
        """It leaves, with the members that still wait for an answer."""
        self.dispatched_ns = now_ns
        if not self.first_call:
            self.members = [member for member in self.members if member.state is State.AGAIN]
            self.instances = sum([member.count for member in self.members])
            self.live = len(self.members)
            self.sent = self.instances
        in_flight = State.IN_FLIGHT
        for member in self.members:
            member.state = in_flight
