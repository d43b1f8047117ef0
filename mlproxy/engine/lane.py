"""A lane: a queue of members that may share a batch, earliest due first. **Pure.**

A member is *late* after its caller's deadline or when the objective's latency is over, whichever comes first: a caller
that would wait for longer (Envoy announces 15 s for every request) does not loosen the objective. It is *due* then, or,
if it has a priority p, when p/(p+1) of the objective's latency is over: so it goes before others, and nobody starves,
for the instant at which a member is due comes (ADR 5, ADR 8).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import TypeAlias

from mlproxy.engine.request import Member, State
from mlproxy.units import NS_PER_MS

#: Arrivals of several ingress workers come slightly out of order. By less than this, the order of coming is kept.
NEARLY_IN_ORDER_NS = NS_PER_MS
NEVER_NS = 2**63

#: Whether a member cannot be answered in time any more, by when it is late and how many instances stand behind it.
IsHopeless: TypeAlias = Callable[[Member, int, int], bool]


class Lane:
    """Compatible members, taken in the order in which they are due.

    Those without a deadline or a priority of their own are due in the order of arrival and stand in a deque; only the
    others need a heap. A member that left before its turn stays, no longer queued, until it is at the head: leaving is
    O(1). Members that can no longer be answered in time may be put aside; those are counted and taken apart.
    """

    __slots__ = (
        "_in_order", "_late", "_others", "_pushed", "_slo_ns", "instances", "key", "last_arrived_ns", "late_instances",
        "listed_ns", "sequence", "urgent_until_ns",
    )  # fmt: skip

    def __init__(self, key: bytes, slo_ns: int, sequence: int) -> None:
        self.key = key
        self.instances = 0
        self.late_instances = 0
        self.sequence = sequence
        self.listed_ns = NEVER_NS  #: where `LaneTable` has it in its order
        self._slo_ns = slo_ns
        self._in_order: deque[Member] = deque()
        self._others: list[tuple[int, int, Member]] = []
        self._late: deque[Member] = deque()
        self._pushed = 0  # makes entries comparable without comparing members
        self.last_arrived_ns = 0
        self.urgent_until_ns = 0  #: when the last member with a priority that came is late

    def __repr__(self) -> str:
        return f"<Lane {self.key!r}: {self.instances} instances>"

    def append(self, members: Iterable[Member]) -> int:
        """Queue ``members``; returns when the most urgent of them is due."""
        stand, slo_ns, last_arrived_ns = self._in_order.append, self._slo_ns, self.last_arrived_ns
        earliest_due_ns, instances = NEVER_NS, 0
        for member in members:
            instances += member.count
            arrived_ns, deadline_ns = member.arrived_ns, member.deadline_ns
            due_ns = arrived_ns + slo_ns
            if member.priority:
                due_ns = self._push_urgent(member)
            elif 0 < deadline_ns < due_ns or arrived_ns < last_arrived_ns - NEARLY_IN_ORDER_NS:
                due_ns = self._push(member, min(due_ns, deadline_ns or due_ns))
            else:
                stand(member)
                if arrived_ns > last_arrived_ns:
                    last_arrived_ns = arrived_ns
            if due_ns < earliest_due_ns:
                earliest_due_ns = due_ns
        self.instances += instances
        self.last_arrived_ns = last_arrived_ns
        return earliest_due_ns

    def _push_urgent(self, member: Member) -> int:
        late_from_ns, priority = self._late_from_ns(member), member.priority
        self.urgent_until_ns = max(self.urgent_until_ns, late_from_ns)
        return self._push(member, min(member.arrived_ns + self._slo_ns * priority // (priority + 1), late_from_ns))

    def _late_from_ns(self, member: Member) -> int:
        late_from_ns = member.arrived_ns + self._slo_ns
        return min(late_from_ns, member.deadline_ns or late_from_ns)

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

    def leave(self, member: Member, *, late: bool) -> None:
        """``member`` goes without having been taken; its state must say so already."""
        if late:
            self.late_instances -= member.count
            while self._late and self._late[0].state is not State.LATE:
                self._late.popleft()  # in overload nothing of it may be taken for hours, and callers give up in order
        else:
            self.instances -= member.count

    def put_aside(self, is_hopeless: IsHopeless) -> None:
        """Put the most urgent members aside for as long as ``is_hopeless`` says so of them."""
        late_from_ns = self._late_from_ns
        while (due_ns := self.due_ns) is not None:
            member = self._head(due_ns)
            if not is_hopeless(member, late_from_ns(member), self.instances - member.count):
                break
            self._pop(due_ns)
            self._set_aside(member)
        # Before some of those in order of arrival stand urgent ones that have more time.
        in_order = self._in_order
        while self._others and self.due_ns is not None and in_order:
            member = in_order[0]
            if not is_hopeless(member, late_from_ns(member), self.instances - member.count):
                break
            in_order.popleft()
            self._set_aside(member)

    def _set_aside(self, member: Member) -> None:
        member.state = State.LATE
        self.instances -= member.count
        self.late_instances += member.count
        self._late.append(member)

    @property
    def late_since_ns(self) -> int:
        """When the first of those that were put aside arrived; never, if there is none."""
        return self._late[0].arrived_ns if self._late else NEVER_NS  # `leave` keeps the first one late

    def take_late(self, max_instances: int, *, at_least_one: bool) -> list[Member]:
        """Pop what was put aside, the first first, while it fits into ``max_instances``."""
        taken: list[Member] = []
        late, room = self._late, max_instances
        while late:
            member = late[0]
            if member.state is State.LATE:
                if member.count > room and (taken or not at_least_one):
                    break
                taken.append(member)
                room -= member.count
            late.popleft()
        self.late_instances -= max_instances - room
        return taken

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
        members, others, slo_ns, queued = self._in_order, self._others, self._slo_ns, State.QUEUED
        taken: list[Member] = []
        while members or others:
            is_other = not members or (bool(others) and others[0][0] <= members[0].arrived_ns + slo_ns)
            member = others[0][2] if is_other else members[0]
            if member.state is queued:
                count = member.count
                if count > room and taken:
                    break
                taken.append(member)
                room -= count
            if is_other:
                heappop(others)
            else:
                members.popleft()
        return taken

    def _head(self, due_ns: int) -> Member:
        others = self._others
        return others[0][2] if others and others[0][0] == due_ns else self._in_order[0]

    def _pop(self, due_ns: int) -> None:
        if self._others and self._others[0][0] == due_ns:
            heappop(self._others)
        else:
            self._in_order.popleft()
