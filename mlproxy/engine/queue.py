"""Everything of one endpoint that waits for its first call: who is let in, who goes, who is taken. **Pure.**

Invariant: ``instances`` and ``size_bytes`` are those of the queued members, here and in the bounds that all endpoints
share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mlproxy.engine.admission import DrainRate, QueueBounds
from mlproxy.engine.alone import AloneQueue
from mlproxy.engine.deadlines import Deadlines
from mlproxy.engine.lane import Lane
from mlproxy.engine.lane_table import LaneTable
from mlproxy.engine.request import Member, Request, State, split
from mlproxy.engine.twins import Twins
from mlproxy.errors import Overloaded, ProxyError


class Queue:
    """Lanes, deadlines and bounds, kept in step."""

    def __init__(self, bounds: QueueBounds, lanes: LaneTable, *, coalesce: bool = False) -> None:
        self.lanes = lanes
        self.alone = AloneQueue(lanes.slo_ns)
        self.deadlines = Deadlines()
        self.drain_rate = DrainRate()
        self.instances = 0
        self.size_bytes = 0
        self._bounds = bounds
        self._twins = Twins() if coalesce else None

    def __repr__(self) -> str:
        return f"<Queue {self.instances} instances, {self.size_bytes} bytes, {len(self.lanes)} lanes>"

    def admit(
        self, requests: Sequence[Request], split_size: int | None, now_ns: int, *, alone: bool = False
    ) -> list[tuple[Request, ProxyError]]:
        """Let ``requests`` wait, each ``alone`` or with its like; returns those that may not, each with the reason."""
        if alone:
            return self._admit_alone(requests, split_size, now_ns)
        refused: list[tuple[Request, ProxyError]] = []
        counts, size_bytes = _measure(requests)
        if not self._bounds.take(sum(counts), size_bytes):  # not all of them: each is asked for itself
            refused = self._refuse(requests, now_ns)
            requests = [request for request in requests if request.state is State.QUEUED]
            counts, size_bytes = _measure(requests)
        members = self._members(requests, counts, size_bytes, split_size)
        if self._twins is not None:
            members = list(members)
            self._twins.append(members)
        self.lanes.append(members)
        return refused

    def _admit_alone(
        self, requests: Sequence[Request], split_size: int | None, now_ns: int
    ) -> list[tuple[Request, ProxyError]]:  # fmt: skip
        refused: list[tuple[Request, ProxyError]] = []
        for request in requests:
            count, size_bytes, bounds = request.count, request.size_bytes, self._bounds
            if not bounds.alone_may_wait(count, size_bytes):
                waiting = bounds.alone_instances
                detail = f"{waiting} instances of requests that cannot be batched are waiting"
                retry_after_s = self.drain_rate.retry_after_s(waiting, now_ns)
                request.state = State.DONE
                refused.append((request, Overloaded(detail, retry_after_s=retry_after_s)))
            elif not bounds.take(count, size_bytes):
                request.state = State.DONE
                refused.append((request, bounds.refusal(count, size_bytes, self.drain_rate, now_ns)))
            else:
                bounds.count_alone(count, size_bytes)
                self.alone.append(self._members([request], [count], size_bytes, split_size))
        return refused

    def _members(
        self, requests: Sequence[Request], counts: list[int], size_bytes: int, split_size: int | None
    ) -> Iterable[Member]:  # fmt: skip
        """What of ``requests``, which are let in, is to be queued."""
        self.instances += sum(counts)
        self.size_bytes += size_bytes
        for request in requests:
            if request.deadline_ns:
                self.deadlines.watch(request)
        if split_size is not None and max(counts, default=0) > split_size:
            return _split_large(requests, split_size)
        return requests

    def _refuse(self, requests: Sequence[Request], now_ns: int) -> list[tuple[Request, ProxyError]]:
        refused = []
        for request in requests:
            if not self._bounds.take(request.count, request.size_bytes):
                request.state = State.DONE
                refusal = self._bounds.refusal(request.count, request.size_bytes, self.drain_rate, now_ns)
                refused.append((request, refusal))
        return refused

    def take(self, lane: Lane, size: int, late_size: int) -> tuple[list[Member], int]:
        """Members for a batch of at most ``size`` instances (more, if a single one has more), and their instances.

        At most ``late_size`` instances of those that were put aside come behind them, and behind these whoever waits
        with the same instances as one of them: so many instances more, none of which is sent.
        """
        members = lane.take(size) if size else []
        if late_size:
            members += lane.take_late(late_size, at_least_one=not members)
            self.lanes.took_late(lane)
        if self._twins is not None:
            members += self._take_twins(self._twins, members)
        instances = sum([member.count for member in members])
        self._release(instances, sum([member.size_bytes for member in members]))
        return members, instances

    def _take_twins(self, twins: Twins, members: Sequence[Member]) -> list[Member]:
        found = twins.take(members)
        for member in found:
            late, member.state = member.state is State.LATE, State.IN_FLIGHT
            self.lanes.leave(member, late=late)
        return found

    def take_alone(self) -> Member:
        """The most urgent of those who go alone; there must be one."""
        member = self.alone.take()
        self._bounds.count_alone(-member.count, -member.size_bytes)
        self._release(member.count, member.size_bytes)
        return member

    def withdraw(self, member: Member, state: State) -> None:
        """``member``, in ``state`` until now, goes without having been taken; its own state must say so already."""
        if self.alone.leave(member):
            self._bounds.count_alone(-member.count, -member.size_bytes)
        else:
            self.lanes.leave(member, late=state is State.LATE)
            if self._twins is not None:
                self._twins.leave(member)
        self._release(member.count, member.size_bytes)

    def _release(self, instances: int, size_bytes: int) -> None:
        self.instances -= instances
        self.size_bytes -= size_bytes
        self._bounds.release(instances, size_bytes)


def _measure(requests: Sequence[Request]) -> tuple[list[int], int]:
    return [request.count for request in requests], sum([request.size_bytes for request in requests])


def _split_large(requests: Sequence[Request], split_size: int) -> Iterator[Member]:
    for request in requests:
        if request.count > split_size:
            yield from split(request, split_size)
        else:
            yield request
