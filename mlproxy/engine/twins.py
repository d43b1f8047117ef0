"""Requests with the same instances, of which a call needs one only (`batching.coalesce`). **Pure.**

What the same is, whoever feeds the engine says by `Request.twin`; the engine sees no instances.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mlproxy.engine.request import Member


class Twins:
    """The members that wait in lanes, by what their twins have in common."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[bytes, bytes], dict[Member, None]] = {}

    def __repr__(self) -> str:
        return f"<Twins of {len(self._waiting)} kinds>"

    def append(self, members: Iterable[Member]) -> None:
        """``members`` wait; those without a twin of their own are nothing to this."""
        for member in members:
            if member.twin:
                self._waiting.setdefault((member.lane_key, member.twin), {})[member] = None

    def leave(self, member: Member) -> None:
        """``member`` waits no longer."""
        key = member.lane_key, member.twin
        alike = self._waiting.get(key)
        if alike is not None:
            alike.pop(member, None)
            if not alike:
                del self._waiting[key]

    def take(self, members: Sequence[Member]) -> list[Member]:
        """``members`` leave; returns those that wait and are the same as one of them, who leave too."""
        taken = set(members)
        return [
            alike
            for member in members
            for alike in self._waiting.pop((member.lane_key, member.twin), ())
            if alike not in taken
        ]


def groups(members: Iterable[Member]) -> list[list[Member]]:
    """``members``, those that are the same together, in the order of their firsts."""
    found: dict[bytes | Member, list[Member]] = {}
    for member in members:
        found.setdefault(member.twin or member, []).append(member)
    return list(found.values())
