"""Lanes: queues of members that may share a batch, earliest due first. **Pure.**

A member is *due* at its caller's deadline or when the objective's latency is over, whichever comes first: a caller that
would wait for longer (Envoy announces 15 s for every request) does not loosen the objective.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import groupby
from operator import attrgetter

from mlproxy.engine.request import Member, State
from mlproxy.units import NS_PER_MS

#: Arrivals of several ingress workers come slightly out of order. By less than this, the order of coming is kept.
NEARLY_IN_ORDER_NS = NS_PER_MS
NEVER_NS = 2**63

_lane_key = attrgetter("lane_key")


class Lane:
    """Compatible members, taken in the order in which they are due.

    Those without a deadline of their own are due in the order of arrival and stand in a deque; only the others need a
    heap. A member that left before its turn stays, no longer queued, until it is at the head: leaving is O(1).
    """

    __slots__ = (
        "_in_order", "_last_arrived_ns", "_others", "_pushed", "_slo_ns", "instances", "key", "listed_ns", "sequence",
    )  # fmt: skip

    def __init__(self, key: bytes, slo_ns: int, sequence: int) -> None:
        self.key = key
        self.instances = 0
        self.sequence = sequence
        self.listed_ns = NEVER_NS  #: where `LaneTable` has it in its order
        self._slo_ns = slo_ns
        self._in_order: deque[Member] = deque()
        self._others: list[tuple[int, int, Member]] = []
        self._pushed = 0  # makes entries comparable without comparing members
        self._last_arrived_ns = 0

    def __repr__(self) -> str:
        return f"<Lane {self.key!r}: {self.instances} instances>"

    def append(self, members: Iterable[Member]) -> int:
        """Queue ``members``; returns when the most urgent of them is due."""
        stand, slo_ns, last_arrived_ns = self._in_order.append, self._slo_ns, self._last_arrived_ns
        earliest_due_ns, instances = NEVER_NS, 0
        for member in members:
            instances += member.count
            arrived_ns, deadline_ns = member.arrived_ns, member.deadline_ns
            due_ns = arrived_ns + slo_ns
            if 0 < deadline_ns < due_ns or arrived_ns < last_arrived_ns - NEARLY_IN_ORDER_NS:
                due_ns = self._push(member, min(due_ns, deadline_ns or due_ns))
            else:
                stand(member)
                if arrived_ns > last_arrived_ns:
                    last_arrived_ns = arrived_ns
            if due_ns < earliest_due_ns:
                earliest_due_ns = due_ns
        self.instances += instances
        self._last_arrived_ns = last_arrived_ns
        return earliest_due_ns

    def _push(self, member: Member, due_ns: int) -> int:
        self._pushed += 1
        heappush(self._others, (due_ns, self._pushed, member))
        return due_ns

    @property
    def due_ns(self) -> int | None:
        """When the most urgent member is due; None: the lane is empty."""
        in_order, others = self._in_order, self._others
        while in_order and in_order[0].state is not State.QUEUED:
            in_order.popleft()
        while others and others[0][2].state is not State.QUEUED:
            heappop(others)
        if not others:
            return in_order[0].arrived_ns + self._slo_ns if in_order else None
        return min(others[0][0], in_order[0].arrived_ns + self._slo_ns) if in_order else others[0][0]

    def leave(self, member: Member) -> None:
        """``member`` goes without having been taken; it must not be queued any more."""
        self.instances -= member.count

    def take(self, max_instances: int) -> list[Member]:
        """Pop whole members, the most urgent first, while they fit into ``max_instances``; always at least one."""
        taken = self._take_in_order(max_instances) if not self._others else self._take_merged(max_instances)
        self.instances -= sum([member.count for member in taken])
        return taken

    def _take_in_order(self, room: int) -> list[Member]:
        members, queued = self._in_order, State.QUEUED
        taken: list[Member] = []
        if self.instances <= room:
            taken = [member for member in members if member.state is queued]
            members.clear()
        while members:
            member = members[0]
            if member.state is queued:
                count = member.count
                if count > room and taken:
                    break
                taken.append(member)
                room -= count
            members.popleft()
        return taken

    def _take_merged(self, room: int) -> list[Member]:
        taken: list[Member] = []
        while (due_ns := self.due_ns) is not None:
            others = self._others
            from_others = bool(others) and others[0][0] == due_ns
            member = others[0][2] if from_others else self._in_order[0]
            if member.count > room and taken:
                break
            taken.append(member)
            room -= member.count
            if from_others:
                heappop(others)
            else:
                self._in_order.popleft()
        return taken


class LaneTable:
    """The lanes of an endpoint, in the order in which their most urgent members are due.

    Each lane stands once in a sorted list. What leaves a lane can only make its place too early: `in_order` then
    corrects it, and drops lanes that have become empty. What comes is placed at once.
    """

    def __init__(self, slo_ns: int, full_from: int) -> None:
        self.slo_ns = slo_ns
        self._lanes: dict[bytes, Lane] = {}
        self._order: list[tuple[int, int, Lane]] = []
        self._sequence = 0  # makes entries comparable without comparing lanes
        self._full: dict[Lane, None] = {}  # lanes at the size cap, in the order they got there
        self._full_from = full_from

    def __len__(self) -> int:
        return len(self._lanes)

    def append(self, members: Iterable[Member]) -> None:
        """Queue ``members``, each in the lane of its key."""
        for key, of_lane in groupby(members, _lane_key):
            lane = self._lanes.get(key) or self._make(key)
            due_ns = lane.append(of_lane)
            if due_ns < lane.listed_ns:
                self._place(lane, due_ns)
            if lane.instances >= self._full_from:
                self._full[lane] = None

    def leave(self, member: Member) -> None:
        """A queued member goes without having been taken."""
        self._lanes[member.lane_key].leave(member)

    def in_order(self) -> Iterator[Lane]:
        """The lanes, most urgent first. To be given up as soon as one of them changes."""
        order, position = self._order, 0
        while position < len(order):
            listed_ns, _, lane = order[position]
            due_ns = lane.due_ns
            if due_ns is None:
                del order[position]
                del self._lanes[lane.key]
                self._full.pop(lane, None)
            elif due_ns > listed_ns:
                self._place(lane, due_ns)
            else:
                yield lane
                position += 1

    def first(self) -> Lane | None:
        """The lane with the most urgent member."""
        return next(self.in_order(), None)

    def full(self, size_cap: int) -> Lane | None:
        """A lane with at least ``size_cap`` instances: the one that has been so for longest."""
        if size_cap < self._full_from:
            self._full = {lane: None for _, _, lane in self._order if lane.instances >= size_cap}
        self._full_from = size_cap
        while self._full:
            lane = next(iter(self._full))
            if lane.instances >= size_cap:
                return lane
            del self._full[lane]
        return None

    def _make(self, key: bytes) -> Lane:
        self._sequence += 1
        lane = self._lanes[key] = Lane(key, self.slo_ns, self._sequence)
        return lane

    def _place(self, lane: Lane, due_ns: int) -> None:
        order = self._order
        if lane.listed_ns != NEVER_NS:
            del order[bisect_left(order, (lane.listed_ns, lane.sequence, lane))]
        lane.listed_ns = due_ns
        insort(order, (due_ns, lane.sequence, lane))
