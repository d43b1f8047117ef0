"""Requests that lately made their batch fail. **Pure**: time is an argument.

Kept is what tells one body from another, not the bodies: they may be large, and they are the callers'. Two bodies of
one length whose hashes are the same would cost a caller its company and nothing else; the hashes are salted anew in
each process.
"""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

from mlproxy.units import NS_PER_S

#: Beyond so many the oldest is forgotten: to find it again costs a few calls more.
MOST = 1024
#: A model that was mended is not held against them for long.
KEEP_NS = 60 * NS_PER_S

_Mark: TypeAlias = tuple[int, int, int]  # length of the items, their hash, the lane key's


class PoisonTable:
    """Remembers up to `MOST` of them, each for `KEEP_NS` since it last failed alone."""

    def __init__(self) -> None:
        self._until_ns: dict[_Mark, int] = {}  # in the order of time
        self._lengths: Counter[int] = Counter()

    def __repr__(self) -> str:
        return f"<PoisonTable of {len(self)} requests>"

    def __len__(self) -> int:
        return len(self._until_ns)

    def add(self, lane_key: bytes, items: bytes, now_ns: int) -> None:
        """It failed, alone."""
        self.discard(lane_key, items)
        while len(self._until_ns) >= MOST:
            self._forget(next(iter(self._until_ns)))
        mark = _mark(lane_key, items)
        self._until_ns[mark] = now_ns + KEEP_NS
        self._lengths[mark[0]] += 1

    def discard(self, lane_key: bytes, items: bytes) -> None:
        """It was answered, alone."""
        if self.holds(lane_key, items):
            self._forget(_mark(lane_key, items))

    def holds(self, lane_key: bytes, items: bytes) -> bool:
        """Whether it is remembered. Hashing reads all of it, so nearly everybody is told apart by the length."""
        return len(items) in self._lengths and _mark(lane_key, items) in self._until_ns

    def expire(self, now_ns: int) -> None:
        """Forget those whose time is over."""
        while self._until_ns and next(iter(self._until_ns.values())) <= now_ns:
            self._forget(next(iter(self._until_ns)))

    def _forget(self, mark: _Mark) -> None:
        del self._until_ns[mark]
        self._lengths[mark[0]] -= 1
        if not self._lengths[mark[0]]:
            del self._lengths[mark[0]]


def _mark(lane_key: bytes, items: bytes) -> _Mark:
    return len(items), hash(items), hash(lane_key)
