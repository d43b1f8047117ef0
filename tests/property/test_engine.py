"""The engine with the policies that have no model, and with aimd: exactly one answer each, and the limits hold."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize

from mlproxy.config import Aimd
from mlproxy.engine import Batch, NoBatching, StaticBatching
from mlproxy.engine.policies import AimdBatching
from mlproxy.units import NS_PER_MS
from tests.property.engine_machine import SLO_NS, EngineMachine


class StaticMachine(EngineMachine):
    """Policies static and none."""

    @initialize(
        max_size=st.integers(1, 8), linger_ms=st.sampled_from([0, 5, 50]), slots=st.integers(1, 3),
        attempts=st.integers(0, 2), batching=st.booleans(), coalesce=st.booleans(),
    )  # fmt: skip
    def start(
        self, max_size: int, linger_ms: int, slots: int, attempts: int, batching: bool, coalesce: bool
    ) -> None:  # fmt: skip
        if batching:
            policy = StaticBatching(max_size, linger_ms * NS_PER_MS, slots)
            self.begin(policy, attempts, max_size, coalesce=coalesce)
        else:
            self.begin(NoBatching(slots), attempts, max_size)


class AimdMachine(EngineMachine):
    """Policy aimd. What it remembers of calls ends with time, which may shorten a timer that runs."""

    def may_leave_unasked(self, batch: Batch) -> bool:
        return batch.reason in ("deadline", "full")

    @initialize(
        max_size=st.integers(1, 8), start_size=st.integers(1, 10), slots=st.sampled_from([1, 3, 1000]),
        attempts=st.integers(0, 2),
    )  # fmt: skip
    def start(self, max_size: int, start_size: int, slots: int, attempts: int) -> None:
        settings_ = Aimd(start_size=start_size, step=2)
        self.begin(AimdBatching(SLO_NS, max_size, slots, settings_), attempts, max_size)


TestStatic = StaticMachine.TestCase
TestStatic.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestAimd = AimdMachine.TestCase
TestAimd.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
