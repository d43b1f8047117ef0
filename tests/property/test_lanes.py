"""Lanes beside a plain sorted list: the same members, the most urgent first, whatever comes and goes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mlproxy.engine.lane import NEARLY_IN_ORDER_NS
from mlproxy.engine.lane_table import LaneTable
from mlproxy.engine.request import Request, State

SLO_NS = 100_000_000
STEP_NS = 400_000  # less than what counts as nearly in order, so that both kinds of disorder occur


def due_ns(request: Request) -> int:
    share = request.priority / (request.priority + 1) if request.priority else 1
    due_ns = request.arrived_ns + int(SLO_NS * share)
    return min(due_ns, request.deadline_ns) if request.deadline_ns else due_ns


def late_from_ns(request: Request) -> int:
    objective_ns = request.arrived_ns + SLO_NS
    return min(objective_ns, request.deadline_ns) if request.deadline_ns else objective_ns


class LanesMachine(RuleBasedStateMachine):
    """Requests arrive a little or far out of order, with and without deadlines, leave, and are taken."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes = LaneTable(SLO_NS, full_from=4)
        self.waiting: list[Request] = []
        self.made = 0
        self.now_ns = SLO_NS

    @rule(
        keys=st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=6), earlier=st.integers(0, 30),
        budget=st.sampled_from([0, 0, 1, 50, 10_000]), counts=st.integers(1, 3),
        priority=st.sampled_from([0, 0, 0, 1, 3]),
    )  # fmt: skip
    def arrive(self, keys: list[bytes], earlier: int, budget: int, counts: int, priority: int) -> None:
        self.now_ns += STEP_NS
        arrived_ns = self.now_ns - earlier * STEP_NS
        requests = []
        for key in keys:
            self.made += 1
            deadline_ns = arrived_ns + budget * STEP_NS if budget else 0
            requests.append(Request(self.made, key, counts, 1, arrived_ns, deadline_ns, priority=priority))
        self.lanes.append(requests)
        self.waiting += requests

    @precondition(lambda self: self.waiting)
    @rule(pick=st.integers(0, 99))
    def leave(self, pick: int) -> None:
        request = self.waiting.pop(pick % len(self.waiting))
        request.state = State.DONE
        self.lanes.leave(request, late=False)

    @precondition(lambda self: self.waiting)
    @rule(size=st.integers(1, 8))
    def take(self, size: int) -> None:
        lane = self.lanes.first()
        assert lane is not None
        of_lane = sorted((request for request in self.waiting if request.lane_key == lane.key), key=due_ns)
        taken = lane.take(size)
        assert taken
        assert sum(member.count for member in taken) <= max(size, taken[0].count)
        left = [request for request in of_lane if request not in taken]
        if left:
            assert sum(member.count for member in taken) + max(r.count for r in left) > size
            assert max(due_ns(r.owner) for r in taken) <= due_ns(left[0]) + NEARLY_IN_ORDER_NS
        for member in taken:
            member.state = State.IN_FLIGHT
            self.waiting.remove(member.owner)

    @precondition(lambda self: self.waiting)
    @rule(steps=st.integers(0, 300))
    def put_aside_what_is_late(self, steps: int) -> None:
        at_ns = self.now_ns + steps * STEP_NS
        lane = self.lanes.first()
        assert lane is not None
        lane.put_aside(lambda _, from_ns, __: from_ns <= at_ns)
        of_lane = [request for request in self.waiting if request.lane_key == lane.key]
        aside = [request for request in of_lane if request.state is State.LATE]
        assert all(late_from_ns(request) <= at_ns for request in aside)
        assert lane.late_instances == sum(request.count for request in aside)
        left = sorted((request for request in of_lane if request not in aside), key=due_ns)
        assert not left or late_from_ns(left[0]) > at_ns - NEARLY_IN_ORDER_NS, "the most urgent one is late"
        assert set(lane.take_late(lane.late_instances, at_least_one=False)) == set(aside)
        for request in aside:
            request.state = State.IN_FLIGHT
            self.waiting.remove(request)

    @rule(size_cap=st.integers(1, 6))
    def ask_for_a_full_lane(self, size_cap: int) -> None:
        full = self.lanes.full(size_cap)
        counts: dict[bytes, int] = {}
        for request in self.waiting:
            counts[request.lane_key] = counts.get(request.lane_key, 0) + request.count
        if full is None:
            assert all(count < size_cap for count in counts.values())
        else:
            assert counts[full.key] >= size_cap

    @invariant()
    def the_lanes_stand_in_order(self) -> None:
        in_order = list(self.lanes.in_order())
        assert {lane.key for lane in in_order} == {request.lane_key for request in self.waiting}
        assert len(self.lanes) == len(in_order)
        dues = [lane.due_ns or 0 for lane in in_order]
        assert all(later > earlier - NEARLY_IN_ORDER_NS for earlier, later in pairwise(dues))
        for lane in in_order:
            members = [request for request in self.waiting if request.lane_key == lane.key]
            assert lane.instances == sum(request.count for request in members)
            earliest_ns = min(map(due_ns, members))
            assert lane.due_ns is not None
            assert earliest_ns <= lane.due_ns <= earliest_ns + NEARLY_IN_ORDER_NS


TestLanes = LanesMachine.TestCase
TestLanes.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
