"""The engine of one endpoint: events in, commands out. **Pure.**

Invariant: every request that arrives gets exactly one terminal command (`Complete`, `Reject`, `Relay`), unless it was
cancelled before; and no more calls are in flight than the policy's limit. How it hangs together is told
in docs/ARCHITECTURE.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain, count

from mlproxy.engine.admission import QueueBounds
from mlproxy.engine.again import Again
from mlproxy.engine.commands import Abort, Command, Complete, Dispatch, Reject, Relay
from mlproxy.engine.events import Answered, Arrived, Cancelled, Drain, Event, Failed, Failure, Pods
from mlproxy.engine.failure import (
    ExtraCallBudget,
    is_about_the_call,
    may_be_one_members,
    may_help,
    retry_pause_ns,
    to_error,
)  # fmt: skip
from mlproxy.engine.lane_table import LaneTable
from mlproxy.engine.policies import Flush, Policy, WaitUntil
from mlproxy.engine.queue import Queue
from mlproxy.engine.request import Batch, Member, Part, Request, State
from mlproxy.engine.twins import groups
from mlproxy.errors import DeadlineExceeded, Draining, ProxyError


class Engine:
    """Queue, calls, retries and isolation of one endpoint, under one policy."""

    def __init__(
        self, policy: Policy, bounds: QueueBounds, *, slo_ns: int, retry_attempts: int, coalesce: bool = False
    ) -> None:  # fmt: skip
        self._policy = policy
        self._coalesce = coalesce
        self._retry_attempts = retry_attempts
        self._queue = Queue(bounds, LaneTable(slo_ns, policy.size_cap), coalesce=coalesce)
        self._again = Again()
        self._spare: deque[Request] = deque()  # as few as their sender lets there be
        self._batch_ids = count(1)
        self._in_flight: set[Batch] = set()
        self._draining = False
        self._wakeup_ns: int | None = None
        self._budget = ExtraCallBudget()
        self._alone_left_last = False  # of all first calls
        self._extra_in_flight = 0  # calls in flight that are not their members' first
        self._commands: list[Command] = []

    def __repr__(self) -> str:
        return (
            f"<Engine {self._policy.name}: {self.queued_instances} instances in {len(self._queue.lanes)} lanes, "
            f"{len(self._in_flight)}/{self._policy.inflight_limit()} in flight>"
        )

    def handle(self, events: Iterable[Event], now_ns: int) -> list[Command]:
        """Take in what happened; return what to do, in order."""
        commands: list[Command] = []
        self._commands = commands
        for event in events:
            match event:
                case Arrived(requests, alone, spare):
                    if spare:
                        self._spare += requests
                    else:
                        self._arrive(requests, now_ns, alone=alone)
                case Pods(ready):
                    self._policy.observe_pods(ready)
                case Answered(batch):
                    self._answered(event, batch, now_ns)
                case Failed(batch, failure):
                    self._failed(batch, failure, now_ns)
                case Cancelled(request):
                    if request.state is not State.DONE:
                        self._withdraw(request, now_ns)
                case Drain():
                    self._draining = True
        if self._draining:
            self._drop_spare(now_ns)
        for request in self._queue.deadlines.expired(now_ns):
            self._fail(request, DeadlineExceeded("the deadline passed while the request was waiting"), now_ns)
        self._wakeup_ns = None
        self._dispatch(now_ns)
        return commands

    def next_wakeup_ns(self) -> int | None:
        """When `handle` must be called again even if nothing happens; None: only an event changes anything."""
        instants = [at_ns for at_ns in (self._wakeup_ns, self._queue.deadlines.next_ns) if at_ns is not None]
        return min(instants, default=None)

    @property
    def queued_instances(self) -> int:
        """Instances that wait for their first call."""
        return self._queue.instances

    @property
    def queued_bytes(self) -> int:
        """Their bytes."""
        return self._queue.size_bytes

    @property
    def in_flight(self) -> int:
        """Calls that the backend has now."""
        return len(self._in_flight)

    @property
    def idle(self) -> bool:
        """Nobody waits for anything."""
        return not (self._queue.instances or self._in_flight or self._again)

    def statistics(self) -> dict[str, float]:
        """What explains the next decision."""
        return {
            "queued_instances": self.queued_instances,
            "queued_bytes": self.queued_bytes,
            "lanes": len(self._queue.lanes),
            "alone": len(self._queue.alone.members),
            "in_flight": len(self._in_flight),
            "waiting_again": len(self._again),
            "extra_call_budget": self._budget.tokens,
            **self._policy.statistics(),
        }

    def _arrive(self, requests: Sequence[Request], now_ns: int, *, alone: bool) -> None:
        before = self._queue.instances
        for request, refusal in self._queue.admit(requests, self._policy.split_size, now_ns, alone=alone):
            self._commands.append(Reject(request, refusal))
        self._policy.observe_arrivals(self._queue.instances - before, now_ns)

    # --- outcomes --------------------------------------------------------------------------------------------

    def _answered(self, event: Answered, batch: Batch, now_ns: int) -> None:
        if (failure := event.failure) is not None:
            self._failed(batch, failure, now_ns)
            return
        if not self._settle(batch, None, now_ns):
            return
        self._queue.drain_rate.record(batch.instances, now_ns)
        first, answers, reply, in_flight, done = 0, [], event.reply, State.IN_FLIGHT, State.DONE
        for member in batch.members:
            count = member.count
            if member.state is in_flight:
                member.state = done
                if not isinstance(member, Part):
                    answers.append((member, [(reply, first, count)]))
                elif pieces := member.rejoin((reply, first, count)):
                    answers.append((member.owner, pieces))
            first += count
        if answers:
            self._commands.append(Complete(batch, answers))

    def _failed(self, batch: Batch, failure: Failure, now_ns: int) -> None:
        if not self._settle(batch, failure, now_ns):
            return
        if batch.reason == "verify":
            self._fail_all(batch.members, failure if failure.kind == "status" else to_error(failure), now_ns)
            return
        members = [member for member in batch.members if member.state is State.IN_FLIGHT]
        alone = len(self._distinct(batch.members)) == 1  # also of those who have left: one may have been the cause
        own = is_about_the_call(failure) or (failure.kind == "status" and alone)
        outcome = failure if own else to_error(failure)
        divisible = not alone and may_be_one_members(failure)
        if self._may_retry(batch, failure, divisible=divisible):
            attempt = batch.attempt + 1
            not_before_ns = now_ns + retry_pause_ns(attempt)
            self._send_again(members, batch, failure, not_before_ns, outcome, attempt=attempt)
        elif divisible:
            alike = self._distinct(members)
            middle = len(alike) // 2
            for half in (alike[:middle], alike[middle:]):
                if half:
                    self._send_again([*chain(*half)], batch, failure, 0, outcome, isolating=True)
        else:
            self._fail_all(members, outcome, now_ns)

    def _distinct(self, members: Sequence[Member]) -> list[list[Member]]:
        """``members``, those together that are one in a call."""
        return groups(members) if self._coalesce else [[member] for member in members]

    def _may_retry(self, batch: Batch, failure: Failure, *, divisible: bool) -> bool:
        if batch.attempt >= self._retry_attempts or not may_help(failure, batch):
            return False
        return not (divisible and self._budget.in_doubt) and self._budget.spend_retry()

    def _send_again(
        self, members: list[Member], batch: Batch, failure: Failure, not_before_ns: int,
        otherwise: Failure | ProxyError, *, attempt: int = 0, isolating: bool = False,
    ) -> None:  # fmt: skip
        again = Batch(
            next(self._batch_ids), batch.lane_key, members, sum(member.count for member in members),
            "split" if isolating else batch.reason, attempt=attempt, isolating=isolating or batch.isolating,
            cause=f"status_{failure.status}" if failure.status else failure.kind,
        )  # fmt: skip
        for member in members:
            member.state = State.AGAIN
            if member.deadline_ns:
                self._queue.deadlines.watch(member.owner)
        self._again.push(again, not_before_ns, otherwise)

    def _fail_all(self, members: Iterable[Member], outcome: ProxyError | Failure, now_ns: int) -> None:
        for member in members:
            # A whole request was in this batch only, which is gone; parts of a split one may be in others.
            self._fail(member.owner, outcome, now_ns, in_batches=isinstance(member, Part))

    def _settle(self, batch: Batch, failure: Failure | None, now_ns: int) -> bool:
        """The call of ``batch`` ended; False when nobody knows it any more (it was aborted)."""
        if batch not in self._in_flight:
            return False
        self._end_flight(batch)
        self._policy.observe_outcome(batch, failure, now_ns)
        if failure is None:
            self._budget.answered(batch)
        return True

    def _end_flight(self, batch: Batch) -> None:
        self._in_flight.discard(batch)
        if not batch.first_call:
            self._extra_in_flight -= 1

    def _fail(
        self, request: Request, outcome: ProxyError | Failure, now_ns: int, *, in_batches: bool = True
    ) -> None:  # fmt: skip
        if request.state is State.DONE:
            return
        self._withdraw(request, now_ns, in_batches=in_batches)
        if isinstance(outcome, Failure):
            self._commands.append(Relay(request, outcome))
        else:
            self._commands.append(Reject(request, outcome))

    # --- departures ------------------------------------------------------------------------------------------

    def _withdraw(self, request: Request, now_ns: int, *, in_batches: bool = True) -> None:
        """Take every trace of an unanswered request out of lanes and, if there are any, batches; mark it done."""
        members: Iterable[Member] = request.parts or (request,)
        states = [(member, member.state) for member in members]
        request.state = State.DONE
        left: set[Member] = set()
        for member, state in states:
            member.state = State.DONE
            if state < State.AGAIN:
                self._queue.withdraw(member, state)
            elif in_batches and state is not State.DONE:
                left.add(member)
        if left:
            self._leave_batches(left, now_ns)
        if all(state < State.IN_FLIGHT for _, state in states):
            request.release()

    def _leave_batches(self, left: set[Member], now_ns: int) -> None:
        # Rare (a caller left, or a split request failed) and the batches are few: a search beats a field that the
        # hot path would have to set on every request. Not for every call that fails: with policy none and an overloaded
        # backend, 25,000 calls are in flight when they begin to time out. Nor for every part, of which a request may
        # have 10,000.
        for batch in [*self._in_flight, *self._again]:
            if left.isdisjoint(batch.members):
                continue
            batch.live -= len(left.intersection(batch.members))
            if not batch.live and batch in self._in_flight:
                self._end_flight(batch)
                self._policy.observe_abort(batch, now_ns)
                self._commands.append(Abort(batch))

    def _drop_spare(self, now_ns: int) -> None:
        spare = [member.owner for batch in self._in_flight if batch.reason == "verify" for member in batch.members]
        for request in spare:
            self._withdraw(request, now_ns)
        for request in [*spare, *self._spare]:
            request.state = State.DONE
            self._commands.append(Reject(request, Draining("nobody waits for it")))
        self._spare.clear()

    # --- dispatch --------------------------------------------------------------------------------------------

    def _dispatch(self, now_ns: int) -> None:
        while (batch := self._next_again(now_ns) or self._next_first(now_ns)) is not None:
            batch.enter_flight(now_ns)
            if self._coalesce:
                batch.sent = sum([alike[0].count for alike in self._distinct(batch.members)])
            self._in_flight.add(batch)
            self._policy.observe_dispatch(batch, now_ns)
            self._commands.append(Dispatch(batch))

    def _next_again(self, now_ns: int) -> Batch | None:
        """A retry or a half of a failed batch whose time has come, and which is paid for. It has waited longest."""
        while (not_before_ns := self._again.next_ns) is not None:
            if len(self._in_flight) >= self._policy.inflight_limit():
                return None
            if not_before_ns > now_ns and not self._draining:
                self._wake_at(not_before_ns)
                return None
            batch, otherwise = self._again.first
            paid = batch.attempt > 0 or self._budget.spend(self._extra_in_flight)
            if not paid and self._extra_in_flight:
                return None  # an answer of those may pay for this half
            self._again.pop()
            if paid:
                self._extra_in_flight += 1
                return batch
            self._fail_all([member for member in batch.members if member.state is State.AGAIN], otherwise, now_ns)
        return None

    def _next_first(self, now_ns: int) -> Batch | None:
        """A batch, or somebody who goes alone: in turns, as long as there are both."""
        if not self._queue.alone.members:
            batch = self._next_batch(now_ns)
        elif self._alone_left_last:
            batch = self._next_batch(now_ns) or self._next_alone(now_ns)
        else:
            batch = self._next_alone(now_ns) or self._next_batch(now_ns)
        return self._next_spare(now_ns) if batch is None and self._spare else batch

    def _has_slot(self, now_ns: int) -> bool:
        """Whether a call may leave that the policy has not chosen; if not, somebody looks again when it may."""
        from_ns = self._policy.free_from_ns(len(self._in_flight), now_ns)
        if from_ns is None:
            return False
        if from_ns <= now_ns or (self._draining and len(self._in_flight) < self._policy.inflight_limit()):
            return True
        self._wake_at(from_ns)
        return False

    def _next_spare(self, now_ns: int) -> Batch | None:
        if not self._has_slot(now_ns):
            return None
        request = self._spare.popleft()
        request.arrived_ns = now_ns  # nobody waited: to the policy it is a call like others
        return Batch(next(self._batch_ids), request.lane_key, [request], request.count, "verify")

    def _next_alone(self, now_ns: int) -> Batch | None:
        if not self._has_slot(now_ns):
            return None
        self._alone_left_last = True
        self._budget.earn()
        member = self._queue.take_alone()
        return Batch(next(self._batch_ids), member.lane_key, [member], member.count, "alone")

    def _next_batch(self, now_ns: int) -> Batch | None:
        decision = self._policy.choose(self._queue.lanes, len(self._in_flight), now_ns)
        if isinstance(decision, WaitUntil):
            lane = self._queue.lanes.first()
            if lane is None or not self._draining or len(self._in_flight) >= self._policy.inflight_limit():
                self._wake_at(decision.due_ns)
                return None
            size_cap = self._policy.size_cap
            decision = Flush(lane, size_cap, "drain", max(0, size_cap - lane.instances))
        if decision is None:
            return None
        self._alone_left_last = False
        members, instances = self._queue.take(decision.lane, decision.size, decision.late_size)
        self._budget.earn()
        return Batch(next(self._batch_ids), decision.lane.key, members, instances, decision.reason)

    def _wake_at(self, due_ns: int) -> None:
        if self._wakeup_ns is None or due_ns < self._wakeup_ns:
            self._wakeup_ns = due_ns
