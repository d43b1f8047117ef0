"""Members that share a batch with nobody. **Pure.**"""

from __future__ import annotations

from collections.abc import Iterable

from mlproxy.engine.lane import Lane
from mlproxy.engine.request import Member


class AloneQueue:
    """Members each of which is a call of its own, earliest due first.

    A lane that is always taken from one by one; and who is in it, for a member cannot tell that it does not stand in
    the lane of its key.
    """

    def __init__(self, slo_ns: int) -> None:
        self._slo_ns = slo_ns
        self.members: set[Member] = set()
        self._lane = Lane(b"", slo_ns, 0)

    def __repr__(self) -> str:
        return f"<AloneQueue of {len(self.members)} members>"

    @property
    def instances(self) -> int:
        """Of all members."""
        return self._lane.instances

    def append(self, members: Iterable[Member]) -> None:
        """Queue ``members``."""
        members = list(members)
        self.members.update(members)
        self._lane.append(members)

    def leave(self, member: Member) -> bool:
        """``member`` goes without having been taken, as its state says already; False: it is none of these."""
        if member not in self.members:
            return False
        self.members.discard(member)
        self._lane.leave(member, late=False)
        if not self.members:
            self._lane = Lane(b"", self._slo_ns, 0)  # with the places of those who left
        return True

    def take(self) -> Member:
        """Pop the most urgent one; there must be one."""
        (member,) = self._lane.take(1)
        self.members.discard(member)
        return member
