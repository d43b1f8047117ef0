"""The engine with policy slo: what holds for every policy, and that nobody waits longer than is good while a slot is
free."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant

from mlproxy.engine import Abort, Batch, Dispatch
from mlproxy.engine.autoscaler import AutoscalerSpec
from mlproxy.engine.commands import Command
from mlproxy.engine.lane import Lane
from mlproxy.engine.policies import SloBatching
from mlproxy.engine.slo.controller import OVERSHOOT_EXTRA, OVERSHOOT_FACTOR
from mlproxy.engine.slo.pods import FixedPods, Pods, ShadowPods
from mlproxy.units import NS_PER_MS
from tests.property.engine_machine import SLO_NS, EngineMachine


class SloMachine(EngineMachine):
    """Policy slo."""

    policy: SloBatching

    @initialize(
        max_size=st.integers(1, 8), linger_ms=st.sampled_from([None, None, 0, 50]), slots=st.integers(0, 3),
        attempts=st.integers(0, 2), paced=st.booleans(), miss_target=st.sampled_from([0.01, 0.3]),
        coalesce=st.booleans(),
    )  # fmt: skip
    def start(
        self,
        max_size: int,
        linger_ms: int | None,
        slots: int,
        attempts: int,
        paced: bool,
        miss_target: float,
        coalesce: bool,
    ) -> None:
        pods: Pods = FixedPods(slots) if slots else ShadowPods(AutoscalerSpec(), 1)
        self.max_linger_ns = None if linger_ms is None else linger_ms * NS_PER_MS
        policy = SloBatching(SLO_NS, miss_target, max_size, pods, paced=paced, max_linger_ns=self.max_linger_ns)
        self.begin(policy, attempts, max_size, coalesce=coalesce)

    def most_in_flight(self) -> int:
        controller = self.policy.controller
        if not controller.pods.elastic:
            return controller.slot_limit
        return OVERSHOOT_FACTOR * controller.slot_limit + OVERSHOOT_EXTRA

    def may_leave_unasked(self, batch: Batch) -> bool:
        return batch.reason == "paced"  # the tokens' rate went up meanwhile

    def _carry_out(self, commands: list[Command]) -> None:
        before = len(self.calls) - sum(isinstance(command, Abort) for command in commands)
        super()._carry_out(commands)
        left = [command.batch for command in commands if isinstance(command, Dispatch)]
        for batch in left[max(0, self.policy.controller.slot_limit - before) :]:
            assert batch.reason in ("deadline", "full", "late"), "more calls than slots, and it could have waited"

    @invariant()
    def nobody_waits_too_long_while_a_slot_is_free(self) -> None:
        if not hasattr(self, "engine") or self.engine.statistics()["waiting_again"]:
            return
        controller = self.policy.controller
        if controller.breaker.probing or len(self.calls) >= controller.slot_limit:
            return
        for lane in self.engine._queue.lanes._lanes.values():
            assert not lane.late_instances, "late already, and a slot is free"
            assert not lane.instances or self.now_ns < self._latest_ns(lane), "this is its latest instant"

    def _latest_ns(self, lane: Lane) -> int:
        due_ns = lane.due_ns
        assert due_ns is not None
        controller = self.policy.controller
        latest_ns = due_ns - controller.lead_ns(min(lane.instances, controller.size_cap))
        return latest_ns if self.max_linger_ns is None else min(latest_ns, due_ns - SLO_NS + self.max_linger_ns)

    @invariant()
    def what_the_controller_knows_of_calls_is_what_is_there(self) -> None:
        if hasattr(self, "engine"):
            assert len(self.policy.controller._sent) == self.policy.controller._in_flight == len(self.calls)


TestSlo = SloMachine.TestCase
TestSlo.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
