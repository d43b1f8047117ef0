"""What the policy `slo` knows: of the backend, of the traffic, of how well it has done. **Pure.**

Brings the parts of this package together and keeps them up to date with what happens; `mlproxy.engine.policies.slo`
asks it and decides. Invariant: only calls that had a slot of their own and succeeded at the first attempt teach:
whoever learns from calls that queued predicts longer times, sends earlier and smaller batches, and so makes the next
ones queue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlproxy.calls import FlushReason
from mlproxy.engine.events import Failure
from mlproxy.engine.lane import NEVER_NS
from mlproxy.engine.request import Batch, State
from mlproxy.engine.slo.breaker import Breaker
from mlproxy.engine.slo.demand import Demand, VirtualBatcher
from mlproxy.engine.slo.feedback import Feedback
from mlproxy.engine.slo.pods import Pods
from mlproxy.engine.slo.service_time import ServiceTime
from mlproxy.engine.slo.tokens import Tokens
from mlproxy.units import NS_PER_MS, NS_PER_S

#: Time on the network that no backend can take away.
NETWORK_NS = 2 * NS_PER_MS
#: A batch waits for company for at least this share of the objective, even where the objective cannot be met.
LEAST_WAIT_SHARE = 0.1
#: Share of the autoscaler's target that pacing may fill, and for how long it may be saved up.
PACED_SHARE, SAVED_NS = 0.8, NS_PER_S // 2
#: Pods are missing when the load calls for so many times the slots there are; then so many times the load's slots may
#: be used, up to a bound that keeps a runaway in hand.
MISSING_FROM, OVERSHOOT, OVERSHOOT_FACTOR, OVERSHOOT_EXTRA = 1.1, 1.5, 3, 2
#: Work that waits beyond one batch is to be done within this time.
BACKLOG_WITHIN_NS = 2 * NS_PER_S
#: An objective that could not be met can be when a request alone takes so much of it: somebody is told of each change.
CERTAINLY_MET = 0.95
_TOO_LARGE = 413
#: Why calls leave that the policy has not chosen.
APART: frozenset[FlushReason] = frozenset({"alone", "verify"})


@dataclass(slots=True)
class _Sent:
    """What was known of a batch when it left."""

    expected_ns: float
    undelayed: bool  #: it had a slot of its own and was a first attempt: its time is the service's
    held_up: bool  #: by a lack of slots


class Controller:
    """The state behind every decision, and its upkeep."""

    def __init__(self, slo_ns: int, miss_target: float, max_size: int, pods: Pods) -> None:
        self.slo_ns = slo_ns
        self.pods = pods
        self.service = ServiceTime(slo_ns, max_size)
        self.demand = Demand(VirtualBatcher(self.service.mean_ns, self._wait_ns), pods.slot_target)
        self.feedback = Feedback(miss_target)
        self.tokens = Tokens()
        self.breaker = Breaker()
        self.slots = 1  #: that are ready; 0: the backend may have to be woken
        self.size_cap = 1
        self.longest_ns = 0.0  #: mean time of the largest batch that may leave, with the network
        self.infeasible = False  #: even a request alone takes longer than the objective allows
        self._longest_lead_ns = (1 - LEAST_WAIT_SHARE) * slo_ns
        self._bound = 1  # of the size, if every size had been tried
        self._leads_ns: dict[int, int] = {}  # those that were asked for since a call has taught anything
        self._look_ns = 0
        self._in_flight = 0
        self._sent: dict[Batch, _Sent] = {}

    def __repr__(self) -> str:
        return f"<Controller {self._in_flight}/{self.slots} in flight, {self.service!r}, {self.demand!r}>"

    # --- answers -------------------------------------------------------------------------------------------------

    @property
    def slot_limit(self) -> int:
        """Calls that may be in flight as long as no slots are missing."""
        return 1 if self.breaker.probing else max(1, self.slots)

    def overshoot_limit(self, waiting_instances: int) -> int:
        """Calls that may be in flight when a batch that must leave finds no slot: more, if slots are missing.

        They are what makes the autoscaler want more pods, and all of them queue. So once it wants as many as the
        traffic needs, no more are sent: until those pods are there, the slots serve whoever can still be in time.
        """
        limit, cap = self.slot_limit, self.size_cap
        if not self.pods.elastic or self.breaker.probing:
            return limit
        coming = self.pods.coming
        if limit < coming and self._slots_for(self.demand.middle) <= coming:
            return limit
        backlog = max(0, waiting_instances - cap) / cap * self.service.mean_ns(cap) / BACKLOG_WITHIN_NS
        if self._slots_for(self.demand.middle + backlog) <= limit:
            return limit
        wanted = math.ceil(OVERSHOOT * (self.demand.fast + backlog) / self.pods.slot_target)
        return max(limit, min(wanted, OVERSHOOT_FACTOR * limit + OVERSHOOT_EXTRA))

    def _slots_for(self, load: float) -> int:
        return math.ceil(MISSING_FROM * load / self.pods.slot_target)

    def lead_ns(self, instances: int) -> int:
        """How long before its most urgent member is due a batch must leave, if one more instance may still join it."""
        lead_ns = self._leads_ns.get(instances)
        if lead_ns is None:  # asked for several times per decision: 1 µs each
            lead_ns = int(min(self.service.quantile_ns(instances + 1), self._longest_lead_ns))
            self._leads_ns[instances] = lead_ns
        return lead_ns

    def is_hopeless(self, instances: int, due_ns: int, now_ns: int) -> bool:
        """Whether a batch of so many instances would be late if it left now, for a member due at ``due_ns``."""
        return now_ns + self.service.mean_ns(instances) + NETWORK_NS > due_ns

    def paid(self, instances: int) -> bool:
        """Whether the tokens pay for a call with so many instances."""
        return self.tokens.value_ns >= self.service.mean_ns(instances)

    def paid_at_ns(self, instances: int, now_ns: int) -> int:
        """When they will; never, if the bucket does not hold so much."""
        if self.service.mean_ns(instances) > self.tokens.capacity_ns:
            return NEVER_NS
        return now_ns + 1 + math.ceil((self.service.mean_ns(instances) - self.tokens.value_ns) / self.tokens.rate)

    def _wait_ns(self, instances: int) -> float:
        return self.slo_ns - self.lead_ns(instances)

    # --- upkeep --------------------------------------------------------------------------------------------------

    def advance(self, now_ns: int) -> None:
        """Bring everything that changes with time up to ``now_ns``; between ticks that is the tokens only."""
        if now_ns >= self._look_ns:
            self.demand.tick(now_ns, self.feedback.reserve)
            self.feedback.tick(now_ns)
            self.slots = self.pods.slots(now_ns)
            self.infeasible = self.service.quantile_ns(1) >= self.slo_ns * (CERTAINLY_MET if self.infeasible else 1)
            self._look_ns = self.demand.next_tick_ns
            self._refresh(now_ns)
        self.tokens.advance(now_ns)

    def told(self, ready: int) -> None:
        """The backend has ``ready`` pods, says somebody who knows."""
        self.slots = self.pods.told(ready)
        self._look_ns = 0  # what follows from it is derived when a decision is asked for

    def _refresh(self, now_ns: int) -> None:
        """Derive again what follows from the times, the sizes and the slots that are known."""
        self._leads_ns.clear()
        service = self.service
        self._bound = service.size_bound(self._longest_lead_ns, now_ns)
        self.size_cap = min(service.size_cap.reach, self._bound)
        self.longest_ns = service.mean_ns(self.size_cap) + NETWORK_NS
        needed = self.demand.slots if self.pods.elastic else self.slots
        rate = self.pods.slot_target * PACED_SHARE * max(1, needed)
        self.tokens.resize(rate, max(float(SAVED_NS * needed), 1.01 * service.mean_ns(1)))

    def arrived(self, instances: int, now_ns: int) -> None:
        """So many instances came at once."""
        self.advance(now_ns)
        self.demand.batcher.arrive(instances, self._bound, now_ns)

    def left(self, batch: Batch, now_ns: int, *, held_up: bool) -> None:
        """``batch`` is on its way; ``held_up``: it should have left before."""
        has_slot = self._in_flight < self.slots
        expected_ns = self.service.mean_ns(batch.instances)
        self._sent[batch] = _Sent(
            expected_ns,
            undelayed=batch.first_call and has_slot,
            held_up=held_up or not has_slot or not batch.first_call,
        )
        self.tokens.spend(expected_ns)
        self._in_flight += 1
        self.pods.observe(self._in_flight, now_ns)

    def came_back(self, batch: Batch, failure: Failure | None, now_ns: int) -> None:
        """The call of ``batch`` ended."""
        sent, time_ns = self._settle(batch, now_ns), now_ns - batch.dispatched_ns
        # Who goes alone, or in half a batch that failed, is suspected itself; and checks are nobody's.
        usual = batch.first_call and batch.reason not in APART
        self.breaker.observe(failure, now_ns, usual=usual)
        if failure is None:
            self.tokens.spend(time_ns - sent.expected_ns)
            self.service.size_cap.seen(batch.sent)
            if sent.undelayed:
                self.service.learn(batch.sent, time_ns, self.feedback.exceed_share, now_ns)
            if batch.reason != "verify":  # nobody waits
                self._count(batch, sent, now_ns)
            self._refresh(now_ns)
            return
        self.tokens.spend(-sent.expected_ns)
        if failure.kind == "timeout" and sent.undelayed:
            self.service.learn_timeout(batch.sent, time_ns, self.feedback.exceed_share)
        elif failure.status == _TOO_LARGE and batch.sent > 1:
            self.service.size_cap.failed(batch.sent, now_ns)
        self._refresh(now_ns)

    def given_up(self, batch: Batch, now_ns: int) -> None:
        """Nobody waits for ``batch`` any more."""
        self.tokens.spend(-self._settle(batch, now_ns).expected_ns)

    def _settle(self, batch: Batch, now_ns: int) -> _Sent:
        self._in_flight -= 1
        self.pods.observe(self._in_flight, now_ns)
        return self._sent.pop(batch)

    def _count(self, batch: Batch, sent: _Sent, now_ns: int) -> None:
        completed = model = capacity = 0
        for member in batch.members:
            if member.state is not State.IN_FLIGHT:
                continue  # its caller has left
            completed += 1
            due_ns = member.arrived_ns + self.slo_ns
            if 0 < member.deadline_ns < due_ns:
                due_ns = member.deadline_ns
            if now_ns <= due_ns:
                continue
            if sent.held_up or self.is_hopeless(member.count, due_ns, batch.dispatched_ns):
                capacity += 1
            else:
                model += 1
        self.feedback.count(completed, model, capacity)
