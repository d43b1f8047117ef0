"""In an overload that lasts, who is late already is served too, in its turn."""

from __future__ import annotations

from mlproxy.engine import Answered, Arrived, Batch, Command, Dispatch, Engine, Event, QueueBounds, Request
from mlproxy.engine.policies.slo import STARVING_AFTER, SloBatching
from mlproxy.engine.slo.pods import FixedPods
from mlproxy.units import NS_PER_MS

SLO_NS = 100 * NS_PER_MS
CALL_NS = 20 * NS_PER_MS


def test_a_late_request_is_not_overtaken_for_ever() -> None:
    policy = SloBatching(SLO_NS, 0.01, 4, FixedPods(1))
    engine = Engine(policy, QueueBounds(10**6, 10**9), slo_ns=SLO_NS, retry_attempts=0)
    now_ns, answered_ns = 10**12, 0
    late = Request(0, b"", 1, 1, now_ns)  # it comes when it is late already, as after a crash of the batcher
    pending, reasons = dispatched(engine.handle([Arrived(fresh(now_ns))], now_ns)), []
    for turn in range(200):
        now_ns += CALL_NS
        events: list[Event] = [Answered(batch, batch.instances, range(batch.instances)) for batch in pending]
        events.append(Arrived([*fresh(now_ns), late] if turn == 20 else fresh(now_ns)))
        pending = dispatched(engine.handle(events, now_ns))
        reasons += [batch.reason for batch in pending]
        if any(member is late for batch in pending for member in batch.members):
            answered_ns = now_ns
    assert answered_ns - late.arrived_ns > STARVING_AFTER * SLO_NS
    assert reasons.count("late") < len(reasons) / 3, "most batches are for those who can be in time"


def fresh(now_ns: int) -> list[Request]:
    """Twice as many as can be served until the next time."""
    return [Request(now_ns + index, b"", 1, 1, now_ns) for index in range(8)]


def dispatched(commands: list[Command]) -> list[Batch]:
    return [command.batch for command in commands if isinstance(command, Dispatch)]
