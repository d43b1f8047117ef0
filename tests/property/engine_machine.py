"""Callers, backend and clock of an engine under test, whatever its policy: any order of events, and what must hold.

Each request gets exactly one answer, its own; the calls in flight, the queue and the wake-ups have their bounds; and
nobody is forgotten. A policy's tests begin it with theirs and add what that policy promises beyond.
"""

from __future__ import annotations

import random
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mlproxy.engine import (
    Abort,
    Answered,
    Arrived,
    Batch,
    Cancelled,
    Command,
    Complete,
    Dispatch,
    Drain,
    Engine,
    Event,
    Failed,
    Failure,
    Part,
    Pods,
    Policy,
    QueueBounds,
    Reject,
    Relay,
    Request,
)  # fmt: skip
from mlproxy.units import NS_PER_MS, NS_PER_S
from tests.unit.engine.world import Worded

MAX_QUEUED = 40
SLO_NS = 100 * NS_PER_MS
#: Wake-ups within a second without events at which nothing was to be done: two ticks, and a few timers of lanes.
MOST_IDLE_WAKEUPS = 8


class EngineMachine(RuleBasedStateMachine):
    """Plays callers, backend and clock. Instance i of request r is answered by the item (r, i)."""

    engine: Engine

    def begin(self, policy: Policy, attempts: int, max_size: int, *, coalesce: bool = False) -> None:
        """To be called first: ``policy`` makes batches of at most ``max_size`` instances."""
        self.policy, self.max_size = policy, max_size
        self.bounds = QueueBounds(MAX_QUEUED, 1_000_000)
        self.engine = Engine(policy, self.bounds, slo_ns=SLO_NS, retry_attempts=attempts, coalesce=coalesce)
        self.now_ns = NS_PER_S
        self.requests: dict[int, Request] = {}
        self.waiting: set[int] = set()
        self.ended: dict[int, Command] = {}
        self.cancelled: set[int] = set()
        self.alone: set[int] = set()
        self.calls: dict[int, Batch] = {}
        self.draining = False
        self.idle_wakeups: list[int] = []

    def most_in_flight(self) -> int:
        """Calls beyond which no further one may leave."""
        return self.policy.inflight_limit()

    def may_leave_unasked(self, batch: Batch) -> bool:
        """``batch`` left because somebody looked, and no wake-up would have come for it yet."""
        return False

    # --- what happens ------------------------------------------------------------------------------------

    @rule(
        counts=st.lists(st.sampled_from([1, 1, 1, 2, 3, 20]), min_size=1, max_size=8), lanes=st.integers(1, 3),
        budget_ms=st.sampled_from([0, 0, 0, 30, 300]), seed=st.integers(0, 99), urgent=st.booleans(),
        alone=st.sampled_from([False, False, True]),
    )  # fmt: skip
    def arrive(
        self, counts: list[int], lanes: int, budget_ms: int, seed: int, urgent: bool, alone: bool
    ) -> None:  # fmt: skip
        rng = random.Random(seed)
        arrived = []
        for count in counts:
            number = len(self.requests)
            request = Worded(
                number, b"%d" % rng.randrange(lanes), count, rng.randrange(100), self.now_ns,
                self.now_ns + budget_ms * NS_PER_MS if budget_ms else 0, priority=rng.choice([0, 1, 3]) * urgent,
                word=b"%d times %d" % (count, rng.randrange(3)),
            )  # fmt: skip
            self.requests[number] = request
            self.waiting.add(number)
            arrived.append(request)
            if alone:
                self.alone.add(number)
        self._handle(Arrived(arrived, alone))

    @precondition(lambda self: self.calls)
    @rule(
        pick=st.integers(0, 99),
        outcome=st.sampled_from(["ok", "ok", "ok", "short", "connect", "503", "500", "timeout"]),
    )
    def reply(self, pick: int, outcome: str) -> None:
        batch = self.calls.pop(sorted(self.calls)[pick % len(self.calls)])
        self._handle(self._outcome(batch, outcome))

    @precondition(lambda self: self.waiting)
    @rule(pick=st.integers(0, 999))
    def leave(self, pick: int) -> None:
        number = sorted(self.waiting)[pick % len(self.waiting)]
        self.waiting.discard(number)
        self.cancelled.add(number)
        self._handle(Cancelled(self.requests[number]))

    @rule(step_ns=st.sampled_from([1, NS_PER_MS, 7 * NS_PER_MS, 60 * NS_PER_MS, NS_PER_S, 7200 * NS_PER_S]))
    def pass_time(self, step_ns: int) -> None:
        self.now_ns += step_ns
        self._handle()

    @rule(ready=st.integers(0, 4))
    def pods_change(self, ready: int) -> None:
        self._handle(Pods(ready))

    @rule()
    def wake(self) -> None:
        wakeup_ns = self.engine.next_wakeup_ns()
        if wakeup_ns is None:
            return
        assert wakeup_ns > self.now_ns, "a wake-up now would be a busy loop"
        self.now_ns = wakeup_ns
        if not self._handle():
            self.idle_wakeups = [at_ns for at_ns in self.idle_wakeups if at_ns > wakeup_ns - NS_PER_S] + [wakeup_ns]
            assert len(self.idle_wakeups) <= MOST_IDLE_WAKEUPS, "it wakes up again and again for nothing"

    @rule()
    def nothing_happens_for_a_second(self) -> None:
        until_ns = self.now_ns + NS_PER_S
        while (wakeup_ns := self.engine.next_wakeup_ns()) is not None and wakeup_ns <= until_ns:
            self.wake()
        self.now_ns = until_ns
        for command in self._handle():
            assert isinstance(command, Dispatch), "an answer came without a wake-up"
            assert self.may_leave_unasked(command.batch), "a batch left without a wake-up"

    @rule()
    @precondition(lambda self: not self.draining)
    def drain(self) -> None:
        self.draining = True
        self._handle(Drain())

    # --- what must hold ----------------------------------------------------------------------------------

    @invariant()
    def limits_hold(self) -> None:
        if not hasattr(self, "engine"):
            return
        assert self.engine.in_flight == len(self.calls)
        assert 0 <= self.engine.queued_instances == self.bounds.instances <= MAX_QUEUED
        assert 0 <= self.engine.queued_bytes == self.bounds.size_bytes

    @invariant()
    def every_call_has_someone_waiting(self) -> None:
        for batch in getattr(self, "calls", {}).values():
            assert any(member.owner.id in self.waiting for member in batch.members), "a call for nobody"

    @invariant()
    def nobody_is_forgotten(self) -> None:
        if not hasattr(self, "engine"):
            return
        if self.waiting and not self.calls:
            assert self.engine.next_wakeup_ns() is not None, "somebody waits, nothing is in flight, no timer is set"

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        for _ in range(10_000):
            if self.calls:
                batch = self.calls.pop(next(iter(self.calls)))
                self._handle(self._outcome(batch, "ok"))
            elif (wakeup_ns := self.engine.next_wakeup_ns()) is not None and self.waiting:
                self.now_ns = wakeup_ns
                self._handle()
            else:
                break
        assert not self.waiting
        assert self.engine.idle
        assert self.engine.queued_instances == self.engine.queued_bytes == 0
        assert self.bounds.instances == self.bounds.size_bytes == 0
        self._handle()
        assert self.engine.statistics()["lanes"] == 0

    # --- the world ---------------------------------------------------------------------------------------

    def _outcome(self, batch: Batch, outcome: str) -> Event:
        items = [(member.owner.id, member.first + index) for member in batch.members for index in range(member.count)]
        match outcome:
            case "ok":
                return Answered(batch, len(items), items)
            case "short":
                return Answered(batch, len(items) - 1, items[:-1])
            case "503" | "500":
                return Failed(batch, Failure("status", "", int(outcome), b"text/plain", b"no"))
            case _:
                return Failed(batch, Failure(outcome, "it failed"))  # type: ignore[arg-type]

    def _handle(self, *events: Event) -> list[Command]:
        commands = self.engine.handle(events, self.now_ns)
        if events:  # which may make a wake-up superfluous
            self.idle_wakeups.clear()
        self._carry_out(commands)
        if any(isinstance(command, Dispatch) for command in commands):
            assert len(self.calls) <= self.most_in_flight()
        return commands

    def _carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Dispatch(batch):
                    self._check_batch(batch)
                    self.calls[batch.id] = batch
                case Abort(batch):
                    del self.calls[batch.id]
                case Complete(_, answers):
                    for request, pieces in answers:
                        self._end(request, command)
                        self._check_pieces(request, pieces)
                case Reject(request, _):
                    self._end(request, command)
                case Relay(request, failure):
                    self._end(request, command)
                    assert failure.kind == "status"

    def _end(self, request: Request, command: Command) -> None:
        assert request.id not in self.ended, "a second answer"
        assert request.id not in self.cancelled, "an answer for someone who left"
        self.ended[request.id] = command
        self.waiting.discard(request.id)

    def _check_pieces(self, request: Request, pieces: list[tuple[Any, int, int]]) -> None:
        items = [item for reply, first, count in pieces for item in reply[first : first + count]]
        assert items == [(request.id, index) for index in range(request.count)]

    def _check_batch(self, batch: Batch) -> None:
        assert batch.instances == sum(member.count for member in batch.members)
        assert len({member.owner.lane_key for member in batch.members}) == 1
        assert batch.dispatched_ns == self.now_ns
        if any(member.owner.id in self.alone for member in batch.members):
            assert len(batch.members) == 1, "company for one who goes alone"
        if self.policy.split_size is None:
            assert len(batch.members) == 1
        else:
            assert batch.sent <= self.max_size
        if batch.sent != batch.instances:
            distinct = {member.twin or member: member.count for member in batch.members}
            assert batch.sent == sum(distinct.values())
        for member in batch.members:
            assert isinstance(member, Part) or member.owner is member
