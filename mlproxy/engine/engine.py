"""The engine of one endpoint: events in, commands out. **Pure.**

Invariant: every request that arrives gets exactly one terminal command (`Complete`, `Reject`, `Relay`), unless it was
cancelled before; and no more calls are in flight than the policy's limit. The eight rules are those of the design
document, section 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

from mlproxy.engine.admission import DrainRate, QueueBounds
from mlproxy.engine.again import Again
from mlproxy.engine.commands import Abort, Command, Complete, Dispatch, Reject, Relay
from mlproxy.engine.deadlines import Deadlines
from mlproxy.engine.events import Answered, Arrived, Cancelled, Drain, Event, Failed, Failure
from mlproxy.engine.failure import ExtraCallBudget, may_be_one_members, may_help, retry_pause_ns, to_error
from mlproxy.engine.lane import Lane, LaneTable
from mlproxy.engine.policies import Flush, Policy, WaitUntil
from mlproxy.engine.request import Batch, Member, Part, Request, State, split
from mlproxy.errors import DeadlineExceeded, ProxyError


class Engine:
    """Queues, slots, retries and isolation of one endpoint, under one policy."""

    def __init__(self, policy: Policy, bounds: QueueBounds, *, retry_attempts: int) -> None:
        self._policy = policy
        self._bounds = bounds
        self._retry_attempts = retry_attempts
        self._lanes = LaneTable()
        self._full: dict[Lane, None] = {}  # lanes at the size cap, in the order they got there
        self._again = Again()
        self._deadlines = Deadlines()
        self._batch_ids = count(1)
        self._in_flight: set[Batch] = set()
        self._draining = False
        self._wakeup_ns: int | None = None
        self._drain_rate = DrainRate()
        self._budget = ExtraCallBudget()
        self._commands: list[Command] = []
        self.queued_instances = 0
        self.queued_bytes = 0

    def __repr__(self) -> str:
        return (
            f"<Engine {self._policy.name}: {self.queued_instances} instances in {len(self._lanes)} lanes, "
            f"{len(self._in_flight)}/{self._policy.inflight_limit()} in flight>"
        )

    def handle(self, events: Iterable[Event], now_ns: int) -> list[Command]:
        """Take in what happened; return what to do, in order."""
        commands: list[Command] = []
        self._commands = commands
        for event in events:
            match event:
                case Arrived(requests):
                    self._arrive(requests, now_ns)
                case Answered(batch):
                    self._answered(event, batch, now_ns)
                case Failed(batch, failure):
                    self._failed(batch, failure, now_ns)
                case Cancelled(request):
                    self._cancel(request)
                case Drain():
                    self._draining = True
        for request in self._deadlines.expired(now_ns):
            self._fail(request, DeadlineExceeded("the deadline passed while the request was waiting"))
        self._wakeup_ns = None
        self._dispatch(now_ns)
        return commands

    def next_wakeup_ns(self) -> int | None:
        """When `handle` must be called again even if nothing happens; None: only an event changes anything."""
        instants = [at_ns for at_ns in (self._wakeup_ns, self._deadlines.next_ns) if at_ns is not None]
        return min(instants, default=None)

    @property
    def in_flight(self) -> int:
        """Calls that the backend has now."""
        return len(self._in_flight)

    @property
    def idle(self) -> bool:
        """Nobody waits for anything."""
        return not (self.queued_instances or self._in_flight or self._again)

    def statistics(self) -> dict[str, float]:
        """What explains the next decision."""
        return {
            "queued_instances": self.queued_instances,
            "queued_bytes": self.queued_bytes,
            "lanes": len(self._lanes),
            "in_flight": len(self._in_flight),
            "waiting_again": len(self._again),
            "extra_call_budget": self._budget.tokens,
            **self._policy.statistics(),
        }

    # --- arrivals and departures -----------------------------------------------------------------------------

    def _arrive(self, requests: Iterable[Request], now_ns: int) -> None:
        split_size, size_cap = self._policy.split_size, self._policy.size_cap
        for request in requests:
            refusal = self._bounds.refusal(request.count, request.size_bytes, self._drain_rate, now_ns)
            if refusal is not None:
                self._reject(request, refusal)
                continue
            self.queued_instances += request.count
            self.queued_bytes += request.size_bytes
            if request.deadline_ns:
                self._deadlines.watch(request)
            if split_size is not None and request.count > split_size:
                for part in split(request, split_size):
                    lane = self._lanes.append(request.lane_key, part)
            else:
                lane = self._lanes.append(request.lane_key, request)
            if lane.instances >= size_cap:
                self._full[lane] = None

    def _cancel(self, request: Request) -> None:
        if request.state is not State.DONE:
            self._withdraw(request)

    def _withdraw(self, request: Request) -> None:
        """Take every trace of an unanswered request out of lanes and batches, and mark it done."""
        members: Iterable[Member] = request.parts or (request,)
        states = [(member, member.state) for member in members]
        request.state = State.DONE
        if all(state is State.QUEUED for _, state in states):
            request.payload = None  # its place in the lane stays until it is at the head; its bytes need not
        for member, state in states:
            member.state = State.DONE
            if state is State.QUEUED:
                self._lanes.leave(request.lane_key, member)
                self._unqueue(member.count, member.size_bytes)
            elif state is State.IN_FLIGHT:
                self._leave_batch(member)

    def _leave_batch(self, member: Member) -> None:
        # Rare (a caller left, or a split request failed) and the batches are few: a search beats a field that the
        # hot path would have to set on every request.
        for batch in [*self._in_flight, *self._again]:
            if member in batch.members:
                batch.live -= 1
                if not batch.live and batch in self._in_flight:
                    self._in_flight.discard(batch)
                    self._commands.append(Abort(batch))

    def _unqueue(self, instances: int, size_bytes: int) -> None:
        self.queued_instances -= instances
        self.queued_bytes -= size_bytes
        self._bounds.release(instances, size_bytes)

    # --- outcomes --------------------------------------------------------------------------------------------

    def _answered(self, event: Answered, batch: Batch, now_ns: int) -> None:
        if event.items != batch.instances:
            detail = f"the backend answered {event.items} items for {batch.instances} instances"
            self._failed(batch, Failure("contract", detail), now_ns)
            return
        if not self._settle(batch, succeeded=True, now_ns=now_ns):
            return
        self._drain_rate.record(batch.instances, now_ns)
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
        if not self._settle(batch, succeeded=False, now_ns=now_ns):
            return
        members = [member for member in batch.members if member.state is State.IN_FLIGHT]
        if may_help(failure, batch) and batch.attempt < self._retry_attempts and self._budget.spend(1):
            attempt = batch.attempt + 1
            self._send_again(members, batch, failure, now_ns + retry_pause_ns(attempt), attempt=attempt)
            return
        if len(members) > 1 and may_be_one_members(failure) and self._budget.spend(2):
            middle = len(members) // 2
            for half in (members[:middle], members[middle:]):
                self._send_again(half, batch, failure, now_ns, isolating=True)
            return
        for member in members:
            self._fail(member.owner, failure if failure.kind == "status" and len(members) == 1 else to_error(failure))

    def _send_again(
        self, members: list[Member], batch: Batch, failure: Failure, not_before_ns: int, *,
        attempt: int = 0, isolating: bool = False,
    ) -> None:  # fmt: skip
        again = Batch(
            next(self._batch_ids), batch.lane_key, members, sum(member.count for member in members),
            "split" if isolating else batch.reason, attempt=attempt, isolating=isolating or batch.isolating,
            cause=f"status_{failure.status}" if failure.status else failure.kind,
        )  # fmt: skip
        self._again.push(again, not_before_ns)

    def _settle(self, batch: Batch, *, succeeded: bool, now_ns: int) -> bool:
        """The call of ``batch`` ended; False when nobody knows it any more (it was aborted)."""
        if batch not in self._in_flight:
            return False
        self._in_flight.discard(batch)
        self._policy.observe_outcome(batch, succeeded, now_ns)
        if succeeded and (batch.attempt or batch.isolating):
            self._budget.refund()
        return True

    def _fail(self, request: Request, outcome: ProxyError | Failure) -> None:
        if request.state is State.DONE:
            return
        self._withdraw(request)
        if isinstance(outcome, Failure):
            self._commands.append(Relay(request, outcome))
        else:
            self._commands.append(Reject(request, outcome))

    def _reject(self, request: Request, error: ProxyError) -> None:
        request.state = State.DONE
        self._commands.append(Reject(request, error))

    # --- dispatch --------------------------------------------------------------------------------------------

    def _dispatch(self, now_ns: int) -> None:
        limit = self._policy.inflight_limit()
        while len(self._in_flight) < limit:
            batch = self._next_again(now_ns) or self._next_batch(now_ns)
            if batch is None:
                return
            batch.dispatched_ns = now_ns
            self._in_flight.add(batch)
            self._policy.observe_dispatch(batch, now_ns)
            self._commands.append(Dispatch(batch))

    def _next_again(self, now_ns: int) -> Batch | None:
        """A retry or a half of a failed batch whose time has come. Its members have waited longest."""
        not_before_ns = self._again.next_ns
        if not_before_ns is None:
            return None
        if not_before_ns > now_ns and not self._draining:
            self._wake_at(not_before_ns)
            return None
        return self._again.pop()

    def _next_batch(self, now_ns: int) -> Batch | None:
        """The oldest lane goes first when it is due, else a lane that is full; so neither kind starves the other."""
        lane = self._lanes.oldest()
        if lane is None:
            return None
        decision = self._policy.decide(lane, len(self._in_flight), now_ns)
        if isinstance(decision, WaitUntil) and self._draining:
            decision = Flush(self._policy.size_cap, "drain")
        elif isinstance(decision, WaitUntil):
            full = self._full_lane()
            if full is None:
                self._wake_at(decision.due_ns)
                return None
            lane, decision = full, Flush(self._policy.size_cap, "full")
        return self._take(lane, decision)

    def _take(self, lane: Lane, flush: Flush) -> Batch:
        members = lane.take(flush.size)
        if lane.instances < self._policy.size_cap:
            self._full.pop(lane, None)
        instances = sum([member.count for member in members])
        self._unqueue(instances, sum([member.size_bytes for member in members]))
        self._budget.earn()
        return Batch(next(self._batch_ids), lane.key, members, instances, flush.reason)

    def _full_lane(self) -> Lane | None:
        while self._full:
            lane = next(iter(self._full))
            if lane.instances >= self._policy.size_cap:
                return lane
            del self._full[lane]
        return None

    def _wake_at(self, due_ns: int) -> None:
        if self._wakeup_ns is None or due_ns < self._wakeup_ns:
            self._wakeup_ns = due_ns
