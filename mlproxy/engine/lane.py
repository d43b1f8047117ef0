"""Lanes: queues of members that may share a batch, served oldest head first. **Pure.**"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush, heapreplace

from mlproxy.engine.request import Member, State


class Lane:
    """One FIFO of compatible members.

    A member that left before its turn stays in the deque, unqueued, until it reaches the head: leaving is O(1).
    """

    __slots__ = ("_members", "instances", "key")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.instances = 0
        self._members: deque[Member] = deque()

    def __repr__(self) -> str:
        return f"<Lane {self.key!r}: {self.instances} instances>"

    @property
    def head(self) -> Member | None:
        """The member that has waited longest, or None."""
        members = self._members
        while members and members[0].state is not State.QUEUED:
            members.popleft()
        return members[0] if members else None

    @property
    def newest_arrived_ns(self) -> int:
        """When the youngest member arrived. The lane must not be empty."""
        return self._members[-1].arrived_ns

    def append(self, member: Member) -> None:
        """Queue ``member``."""
        self._members.append(member)
        self.instances += member.count

    def leave(self, member: Member) -> None:
        """``member`` goes without having been taken; it must not be queued any more."""
        self.instances -= member.count

    def take(self, max_instances: int) -> list[Member]:
        """Pop whole members from the head while they fit into ``max_instances``; always at least one."""
        taken: list[Member] = []
        members, room = self._members, max_instances
        queued, in_flight = State.QUEUED, State.IN_FLIGHT
        while members:
            member = members[0]
            if member.state is queued:
                count = member.count
                if count > room and taken:
                    break
                member.state = in_flight
                taken.append(member)
                room -= count
            members.popleft()
        self.instances -= max_instances - room
        return taken


class LaneTable:
    """The lanes of an endpoint, in order of their heads' arrival.

    Each lane has exactly one entry in a heap, keyed by the arrival of its head when it was entered. Heads only get
    younger, so a key can only be too early: `oldest` then corrects it, and drops lanes that have become empty.
    """

    def __init__(self) -> None:
        self._lanes: dict[bytes, Lane] = {}
        self._heap: list[tuple[int, int, Lane]] = []
        self._sequence = 0  # makes heap entries comparable without comparing lanes

    def __len__(self) -> int:
        return len(self._lanes)

    def append(self, key: bytes, member: Member) -> Lane:
        """Queue ``member`` in the lane of ``key``."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key)
            self._sequence += 1
            heappush(self._heap, (member.arrived_ns, self._sequence, lane))
        lane.append(member)
        return lane

    def leave(self, key: bytes, member: Member) -> None:
        """A queued member of the lane of ``key`` goes without having been taken."""
        self._lanes[key].leave(member)

    def oldest(self) -> Lane | None:
        """The lane whose head arrived first."""
        heap = self._heap
        while heap:
            arrived_ns, sequence, lane = heap[0]
            head = lane.head
            if head is None:
                heappop(heap)
                del self._lanes[lane.key]
            elif head.arrived_ns > arrived_ns:
                heapreplace(heap, (head.arrived_ns, sequence, lane))
            else:
                return lane
        return None
