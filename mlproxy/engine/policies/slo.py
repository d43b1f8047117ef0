"""Deadline-driven, paced batching: meets the objective with as few pods as the traffic allows. **Pure.**

A batch leaves at the last moment that its most urgent request allows, judged by what calls have taken so far; earlier
only when the pods that are needed anyway can do it. No more calls are in flight than pods are ready, so that requests
wait here, where waiting costs nothing and lets batches grow; a bounded few more when the load shows that pods are
missing, so that an autoscaler sees it. docs/controller.md explains the rules and where they come from.
"""

from __future__ import annotations

from mlproxy.calls import FlushReason
from mlproxy.engine.events import Failure
from mlproxy.engine.lane import Lane
from mlproxy.engine.lane_table import LaneTable
from mlproxy.engine.policies.policy import Decision, Flush, WaitUntil
from mlproxy.engine.request import Batch, Member
from mlproxy.engine.slo.controller import APART, Controller
from mlproxy.engine.slo.pods import Pods
from mlproxy.units import NS_PER_MS

#: A batch that left later than this after its latest instant was held up.
HELD_UP_NS = 2 * NS_PER_MS
#: Who has waited for so many times the objective gets a batch in so many, however many others could still be in time:
#: in an overload that lasts, those who are late already would otherwise wait for ever.
STARVING_AFTER, STARVING_EVERY = 4, 4


class SloBatching:
    """The policy ``slo``. ``paced`` off: every batch leaves as late as it may, for bills by busy time."""

    name = "slo"

    def __init__(
        self, slo_ns: int, miss_target: float, max_size: int, pods: Pods, *,
        paced: bool = True, max_linger_ns: int | None = None,
    ) -> None:  # fmt: skip
        self.split_size: int | None = max_size
        self._least_lead_ns = 0 if max_linger_ns is None else slo_ns - max_linger_ns
        self.controller = Controller(slo_ns, miss_target, max_size, pods)
        self._paced = paced
        self._held_up = False  # the batch that was chosen last
        self._in_time = 0  # batches in a row that were for those who can be in time

    def __repr__(self) -> str:
        return f"<SloBatching {self.controller!r}>"

    @property
    def size_cap(self) -> int:
        return self.controller.size_cap

    def inflight_limit(self) -> int:
        return self.controller.slot_limit

    def free_from_ns(self, in_flight: int, now_ns: int) -> int | None:
        controller = self.controller
        controller.advance(now_ns)
        if in_flight >= controller.slot_limit:  # a pod may come
            return controller.demand.next_tick_ns if controller.pods.elastic else None
        return controller.breaker.next_probe_ns if controller.breaker.probing else 0

    # --- the decision --------------------------------------------------------------------------------------------

    def choose(self, lanes: LaneTable, in_flight: int, now_ns: int) -> Decision:
        controller = self.controller
        controller.advance(now_ns)
        first = self._first_in_time(lanes, now_ns)
        late = lanes.late()
        if first is None and late is None:
            return None
        if controller.breaker.probing and (in_flight or now_ns < controller.breaker.next_probe_ns):
            return None if in_flight else WaitUntil(controller.breaker.next_probe_ns)
        must_leave_ns = self._latest_ns(first) if first is not None else now_ns
        has_slot = in_flight < controller.slot_limit
        if not has_slot and now_ns < must_leave_ns:
            return WaitUntil(must_leave_ns)
        if not has_slot and in_flight >= controller.overshoot_limit(lanes.waiting_instances):
            return WaitUntil(controller.demand.next_tick_ns)
        if late is not None and (first is None or (has_slot and self._is_starving(late, now_ns))):
            return self._flush_late(late)
        assert first is not None
        if now_ns >= must_leave_ns:
            return self._flush_due(first, must_leave_ns, now_ns)
        return self._choose_early(lanes, first, must_leave_ns, has_slot, now_ns)

    def _first_in_time(self, lanes: LaneTable, now_ns: int) -> Lane | None:
        """The most urgent lane, after those members have been put aside that can no longer be answered in time."""
        first, controller, cap = lanes.first(), self.controller, self.size_cap
        if first is None or first.listed_ns - now_ns > controller.longest_ns:
            return first

        def is_hopeless(member: Member, late_from_ns: int, behind: int) -> bool:
            # Where those behind it fill a batch it would leave with them, which takes longer than it does alone. With
            # the most urgent in each batch, an overload would have all batches just late, and nobody in time.
            instances = max(member.count, cap) if behind >= cap else member.count
            return controller.is_hopeless(instances, late_from_ns, now_ns)

        lanes.put_aside(is_hopeless)
        return lanes.first()

    def _choose_early(
        self, lanes: LaneTable, first: Lane, must_leave_ns: int, has_slot: bool, now_ns: int
    ) -> Decision:  # fmt: skip
        """The most urgent lane may wait until ``must_leave_ns``: another must not, or one pays to leave sooner."""
        controller, cap, wake_ns = self.controller, self.size_cap, must_leave_ns
        if len(lanes) > 1:
            longest_lead_ns = max(controller.lead_ns(cap), self._least_lead_ns)
            for lane in lanes.in_order():
                if lane.listed_ns - longest_lead_ns >= wake_ns:
                    break  # neither this lane nor those behind it must leave before one that was seen
                latest_ns = self._latest_ns(lane)
                if now_ns >= latest_ns:
                    return self._flush_due(lane, latest_ns, now_ns)
                wake_ns = min(wake_ns, latest_ns)
        self._held_up = False
        full = lanes.full(cap)
        if full is not None:
            return self._flush(full, "full", now_ns)
        if self._paced:
            size = min(first.instances, cap)
            if controller.paid(size):
                return self._flush(first, "paced", now_ns)
            wake_ns = min(wake_ns, controller.paid_at_ns(size, now_ns))
        late = lanes.late()
        if late is not None and has_slot:
            return self._flush_late(late)
        return WaitUntil(wake_ns)

    def _latest_ns(self, lane: Lane) -> int:
        lead_ns = self.controller.lead_ns(min(lane.instances, self.size_cap))
        return lane.listed_ns - max(lead_ns, self._least_lead_ns)

    def _flush_due(self, lane: Lane, latest_ns: int, now_ns: int) -> Flush:
        self._held_up = now_ns > latest_ns + HELD_UP_NS
        return self._flush(lane, "full" if lane.instances >= self.size_cap else "deadline", now_ns)

    def _flush(self, lane: Lane, reason: FlushReason, now_ns: int) -> Flush:
        self._in_time += 1
        late_size, cap = 0, self.size_cap
        if lane.late_instances and lane.instances < cap:
            in_time = self.controller.service.most_within(lane.listed_ns - now_ns, cap)
            late_size = max(0, in_time - lane.instances)
        return Flush(lane, cap, reason, late_size)

    def _is_starving(self, lane: Lane, now_ns: int) -> bool:
        waited_ns = now_ns - lane.late_since_ns
        return self._in_time >= STARVING_EVERY - 1 and waited_ns > STARVING_AFTER * self.controller.slo_ns

    def _flush_late(self, lane: Lane) -> Flush:
        self._in_time = 0
        self._held_up = True
        return Flush(lane, 0, "late", self.size_cap)

    # --- what happens --------------------------------------------------------------------------------------------

    def observe_arrivals(self, instances: int, now_ns: int) -> None:
        self.controller.arrived(instances, now_ns)

    def observe_dispatch(self, batch: Batch, now_ns: int) -> None:
        self.controller.left(batch, now_ns, held_up=self._held_up and batch.reason not in APART)

    def observe_outcome(self, batch: Batch, failure: Failure | None, now_ns: int) -> None:
        self.controller.came_back(batch, failure, now_ns)

    def observe_abort(self, batch: Batch, now_ns: int) -> None:
        self.controller.given_up(batch, now_ns)

    def observe_pods(self, ready: int) -> None:
        self.controller.told(ready)

    def statistics(self) -> dict[str, float]:
        controller = self.controller
        service, demand, feedback = controller.service, controller.demand, controller.feedback
        return {
            "size_cap": controller.size_cap,
            "slots": controller.slots,
            "slots_needed": demand.slots,
            "tokens_ns": controller.tokens.value_ns,
            "token_rate": controller.tokens.rate,
            "base_ns": service.mean.base_ns,
            "slope_ns": service.mean.slope_ns,
            "level": service.mean.level,
            "calls_learned": service.mean.samples,
            "load_slow": demand.slow,
            "load_middle": demand.middle,
            "load_fast": demand.fast,
            "load_peak": demand.peak,
            "reserve": feedback.reserve,
            "tolerance": feedback.tolerance,
            "model_misses": feedback.model_misses,
            "capacity_misses": feedback.capacity_misses,
            "slo_infeasible": float(controller.infeasible),
            "probing": float(controller.breaker.probing),
        }
