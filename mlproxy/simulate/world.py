"""The simulated world: arrivals, the production engine, and a cluster, in virtual time. **Pure.**

The engine is the one of the live batcher, and is fed as that feeds it: everything that happens at one instant is one
turn. It is asked for its next wake-up after each turn. Replies take the same way back, half the network time later.
"""

from __future__ import annotations

from collections import deque

from mlproxy.engine import (
    Abort,
    Answered,
    Arrived,
    Batch,
    Command,
    Complete,
    Dispatch,
    Engine,
    Event,
    Failed,
    Failure,
    Policy,
    QueueBounds,
    Request,
    policy_for,
)  # fmt: skip
from mlproxy.simulate.arrivals import arrivals_ns
from mlproxy.simulate.call import Call
from mlproxy.simulate.callers import Callers
from mlproxy.simulate.cluster import Cluster
from mlproxy.simulate.measure import BIN_NS, FAILED, Measurements, Outcome
from mlproxy.simulate.rivals import RIVALS
from mlproxy.simulate.scenario import Scenario
from mlproxy.simulate.timeline import Timeline

_NEVER = 1 << 62
#: Arrivals are handed out of numpy in lists of so many: a Python integer each for hours of traffic would not fit.
_CHUNK = 1 << 16
#: What a request's body weighs against `limits.queue_bytes`.
_BODY_BYTES = 64


def simulate(scenario: Scenario) -> Outcome:
    """Run ``scenario`` to its end."""
    return World(scenario).run()


class SentCall(Call):
    """A call that the proxy sent."""

    __slots__ = ("answered", "batch", "deadline_ns")

    def __init__(self, batch: Batch, deadline_ns: int) -> None:
        super().__init__(batch.instances)
        self.batch = batch
        self.deadline_ns = deadline_ns  #: when the proxy gives it up
        self.answered = False  #: the proxy has its answer


class World:
    """One run."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        traffic, cluster = scenario.generators()
        self._timeline = Timeline()
        self._arrivals_ns = arrivals_ns(scenario.trace, scenario.duration_ns, traffic)
        self._cluster = Cluster(
            scenario.cluster, scenario.profile, scenario.faults, self._timeline, cluster, self._done_in_cluster
        )
        self._measurements = Measurements(scenario, self._arrivals_ns, self._cluster)
        self._ended_ns = self._measurements.ended_ns
        self._outward_ns = scenario.cluster.network_ns // 2
        self._homeward_ns = scenario.cluster.network_ns - self._outward_ns
        self._timeout_ns = scenario.proxy.endpoint.backend.timeout_ns
        self._calls: dict[Batch, SentCall] = {}
        self._by_deadline: deque[SentCall] = deque()
        self._callers = None if scenario.callers is None else Callers(scenario.callers)
        self._budgets_ns = scenario.budgets_ns
        self._arrived: list[Request] = []
        self._events: list[Event] = []
        self._wakeup_ns = _NEVER
        self._engine = self._new_engine()
        self._timeline.at(scenario.warmup_ns, self._measurements.begin)
        self._timeline.at(scenario.duration_ns, self._measurements.end)
        if scenario.keep_series:
            for at_ns in range(0, scenario.duration_ns, BIN_NS):
                self._timeline.at(at_ns, self._measurements.sample)

    def __repr__(self) -> str:
        return f"<World at {self._timeline!r}: {self._engine!r}, {self._cluster!r}>"

    def _new_engine(self) -> Engine:
        proxy = self._scenario.proxy
        batching, backend = proxy.endpoint.batching, proxy.endpoint.backend
        if proxy.policy in RIVALS:
            ready = self._cluster.fleet.ready_level
            policy: Policy = RIVALS[proxy.policy](batching.max_size, proxy.endpoint.slo.latency_ns, lambda: ready.now)
        else:
            policy = policy_for(proxy.endpoint)
        bounds = QueueBounds(proxy.limits.queue_instances, proxy.limits.queue_bytes)
        return Engine(policy, bounds, slo_ns=proxy.endpoint.slo.latency_ns, retry_attempts=backend.retry.attempts)

    def run(self) -> Outcome:
        """Until the last request of the trace has its answer."""
        timeline, engine, duration_ns = self._timeline, self._engine, self._scenario.duration_ns
        for first in range(0, len(self._arrivals_ns), _CHUNK):
            self._let_arrive(first, self._arrivals_ns[first : first + _CHUNK].tolist())
        while timeline.now_ns <= duration_ns or not engine.idle:
            self._advance(min(timeline.heap[0][0], self._wakeup_ns))
        return self._measurements.outcome(engine, unsent=self._callers.held if self._callers else 0)

    def _let_arrive(self, first: int, chunk: list[int]) -> None:
        """Requests from number ``first`` on arrive at the instants in ``chunk``; all else happens until the last."""
        heap, callers, request_id = self._timeline.heap, self._callers, first
        for arrival_ns, following_ns in zip(chunk, [*chunk[1:], _NEVER], strict=True):
            while heap[0][0] < arrival_ns or self._wakeup_ns < arrival_ns:
                self._advance(min(heap[0][0], self._wakeup_ns))
            if callers is None or callers.take(request_id):
                self._arrived.append(self._request(request_id, arrival_ns))
            request_id += 1
            if arrival_ns != following_ns:
                self._advance(arrival_ns)

    def _request(self, request_id: int, now_ns: int) -> Request:
        budgets_ns = self._budgets_ns
        budget_ns = budgets_ns[request_id % len(budgets_ns)] if budgets_ns else 0
        return Request(request_id, b"", 1, _BODY_BYTES, now_ns, now_ns + budget_ns if budget_ns else 0)

    def _send_held(self, request_ids: list[int]) -> None:
        now_ns = self._timeline.now_ns
        for request_id in request_ids:
            self._arrivals_ns[request_id] = now_ns
            self._arrived.append(self._request(request_id, now_ns))

    def _caller_free(self, number: int, now_ns: int) -> None:
        """So many callers have their answers and send, unless the trace is over, what was held back."""
        if self._callers is not None and now_ns < self._scenario.duration_ns:
            held = self._callers.answered(number)
            if held:
                self._timeline.at(now_ns, self._send_held, held)

    def _advance(self, now_ns: int) -> None:
        """Everything that is planned for ``now_ns`` happens, and the engine takes one turn about it."""
        self._timeline.happen(now_ns)
        if self._arrived:
            self._events.append(Arrived(self._arrived))
            self._arrived = []
        elif not self._events and now_ns < self._wakeup_ns:
            return
        events, self._events = self._events, []
        for command in self._engine.handle(events, now_ns):
            self._carry_out(command, now_ns)
        due_ns = self._engine.next_wakeup_ns()
        self._wakeup_ns = _NEVER if due_ns is None else max(due_ns, now_ns + 1)

    def _carry_out(self, command: Command, now_ns: int) -> None:
        match command:
            case Dispatch():
                self._send(command.batch, now_ns)
            case Complete():
                ended_ns = self._ended_ns
                for request, _ in command.answers:
                    ended_ns[request.id] = now_ns
                self._caller_free(len(command.answers), now_ns)
            case Abort():
                call = self._calls.pop(command.batch, None)
                if call is not None:  # else its answer came at this very instant, for nobody
                    self._give_up(call)
            case _:  # a Reject or a Relay
                self._ended_ns[command.request.id] = FAILED
                self._caller_free(1, now_ns)

    # --- calls -----------------------------------------------------------------------------------------------

    def _send(self, batch: Batch, now_ns: int) -> None:
        call = self._calls[batch] = SentCall(batch, now_ns + self._timeout_ns)
        self._measurements.sent(batch.instances, now_ns)
        self._timeline.at(now_ns + self._outward_ns, self._cluster.receive, call)
        if not self._by_deadline:
            self._timeline.at(call.deadline_ns, self._give_up_late_calls)
        self._by_deadline.append(call)

    def _done_in_cluster(self, call: Call) -> None:
        if not call.abandoned:
            self._timeline.at(self._timeline.now_ns + self._homeward_ns, self._answer, call)

    def _answer(self, call: SentCall) -> None:
        if call.answered:
            return
        call.answered = True
        del self._calls[call.batch]
        if call.failed:
            self._events.append(Failed(call.batch, Failure("status", "", 503)))
        else:
            self._events.append(Answered(call.batch, call.batch.instances))

    def _give_up_late_calls(self, _: None) -> None:
        """One alarm serves all calls: they leave in the order of their deadlines."""
        now_ns, calls = self._timeline.now_ns, self._by_deadline
        while calls and (calls[0].answered or calls[0].deadline_ns <= now_ns):
            call = calls.popleft()
            if not call.answered:
                del self._calls[call.batch]
                self._give_up(call)
                self._events.append(Failed(call.batch, Failure("timeout", "no answer in time")))
        if calls:
            self._timeline.at(calls[0].deadline_ns, self._give_up_late_calls)

    def _give_up(self, call: SentCall) -> None:
        call.answered = True
        self._cluster.give_up(call)
