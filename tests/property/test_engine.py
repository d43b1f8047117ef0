"""The engine under any order of events: each request gets exactly one answer, its own, and the limits hold."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

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
    NoBatching,
    Part,
    Policy,
    QueueBounds,
    Reject,
    Relay,
    Request,
    StaticBatching,
)  # fmt: skip

MAX_QUEUED = 40


class EngineMachine(RuleBasedStateMachine):
    """Plays callers, backend and clock. Instance i of request r is answered by the item (r, i)."""

    engine: Engine

    @initialize(
        max_size=st.integers(1, 8), linger_ns=st.sampled_from([0, 5, 50]), slots=st.integers(1, 3),
        attempts=st.integers(0, 2), batching=st.booleans(),
    )  # fmt: skip
    def start(self, max_size: int, linger_ns: int, slots: int, attempts: int, batching: bool) -> None:
        policy: Policy = StaticBatching(max_size, linger_ns, slots) if batching else NoBatching(slots)
        self.policy, self.max_size, self.slots, self.linger_ns = policy, max_size, slots, linger_ns
        self.bounds = QueueBounds(MAX_QUEUED, 1_000_000)
        self.engine = Engine(policy, self.bounds, slo_ns=100, retry_attempts=attempts)
        self.now_ns = 1_000
        self.requests: dict[int, Request] = {}
        self.waiting: set[int] = set()
        self.ended: dict[int, Command] = {}
        self.cancelled: set[int] = set()
        self.calls: dict[int, Batch] = {}
        self.draining = False

    # --- what happens ------------------------------------------------------------------------------------

    @rule(
        counts=st.lists(st.sampled_from([1, 1, 1, 2, 3, 20]), min_size=1, max_size=8), lanes=st.integers(1, 3),
        budget_ns=st.sampled_from([0, 0, 0, 30, 300]), seed=st.integers(0, 99),
    )  # fmt: skip
    def arrive(self, counts: list[int], lanes: int, budget_ns: int, seed: int) -> None:
        rng = random.Random(seed)
        arrived = []
        for count in counts:
            number = len(self.requests)
            request = Request(
                number, b"%d" % rng.randrange(lanes), count, rng.randrange(100), self.now_ns,
                self.now_ns + budget_ns if budget_ns else 0,
            )  # fmt: skip
            self.requests[number] = request
            self.waiting.add(number)
            arrived.append(request)
        self._handle(Arrived(arrived))

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

    @rule(step_ns=st.sampled_from([1, 7, 60, 30_000_000]))
    def pass_time(self, step_ns: int) -> None:
        self.now_ns += step_ns
        self._handle()

    @rule()
    def wake(self) -> None:
        wakeup_ns = self.engine.next_wakeup_ns()
        if wakeup_ns is not None:
            assert wakeup_ns > self.now_ns, "a wake-up now would be a busy loop"
            self.now_ns = wakeup_ns
            self._handle()

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
        assert self.engine.in_flight == len(self.calls) <= self.slots
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

    def _handle(self, *events: Event) -> None:
        for command in self.engine.handle(events, self.now_ns):
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
        if self.policy.split_size is None:
            assert len(batch.members) == 1
        else:
            assert batch.instances <= self.max_size
        for member in batch.members:
            assert isinstance(member, Part) or member.owner is member


TestEngine = EngineMachine.TestCase
TestEngine.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
