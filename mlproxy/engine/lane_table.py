"""The lanes of an endpoint: which is the most urgent, which are full, which hold what is late. **Pure.**"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter

from mlproxy.engine.lane import NEVER_NS, IsHopeless, Lane
from mlproxy.engine.request import Member

_lane_key = attrgetter("lane_key")


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
        self._late: dict[Lane, None] = {}  # lanes that had members put aside, in the order of their turns
        self._full: dict[Lane, None] = {}  # lanes at the size cap, in the order they got there
        self._full_from = full_from
        self.urgent_until_ns = 0  #: before this, members with a priority may be waiting that can still be in time

    def __len__(self) -> int:
        return len(self._lanes)

    def append(self, members: Iterable[Member]) -> None:
        """Queue ``members``, each in the lane of its key."""
        for key, of_lane in groupby(members, _lane_key):
            lane = self._lanes.get(key) or self._make(key)
            due_ns = lane.append(of_lane)
            if due_ns < lane.listed_ns:
                self._place(lane, due_ns)
            if lane.urgent_until_ns > self.urgent_until_ns:
                self.urgent_until_ns = lane.urgent_until_ns
            if lane.instances >= self._full_from:
                self._full[lane] = None

    def leave(self, member: Member, *, late: bool) -> None:
        """A waiting member goes without having been taken."""
        self._lanes[member.lane_key].leave(member, late=late)

    def put_aside(self, is_hopeless: IsHopeless) -> None:
        """Put members aside, the most urgent first, until one is not hopeless; others mostly have more time."""
        for lane in self.in_order():
            before = lane.late_instances
            lane.put_aside(is_hopeless)
            if lane.late_instances == before:
                return
            self._late[lane] = None

    def late(self) -> Lane | None:
        """Of the lanes with members that were put aside the one whose turn it is."""
        while self._late:
            lane = next(iter(self._late))
            if lane.late_instances:
                return lane
            del self._late[lane]
            self._drop_if_empty(lane)
        return None

    def took_late(self, lane: Lane) -> None:
        """Some that were put aside were taken from ``lane``: next time others come first, or it might never empty."""
        if lane in self._late:
            del self._late[lane]
            self._late[lane] = None

    def in_order(self) -> Iterator[Lane]:
        """The lanes, most urgent first. To be given up as soon as one of them changes."""
        order, position = self._order, 0
        while position < len(order):
            listed_ns, _, lane = order[position]
            due_ns = lane.due_ns
            if due_ns is None:
                del order[position]
                lane.listed_ns = NEVER_NS
                self._drop_if_empty(lane)
            elif due_ns > listed_ns:
                self._place(lane, due_ns)
            else:
                yield lane
                position += 1

    @property
    def waiting_instances(self) -> int:
        """Of all lanes, with those that were put aside."""
        return sum(lane.instances + lane.late_instances for lane in self._lanes.values())

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

    def _drop_if_empty(self, lane: Lane) -> None:
        if lane.listed_ns == NEVER_NS and not lane.late_instances:
            self._lanes.pop(lane.key, None)
            self._full.pop(lane, None)
            self._late.pop(lane, None)

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
