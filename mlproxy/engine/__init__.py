"""The batching engine: decisions without I/O. **Pure.**

`Engine.handle(events, now_ns)` returns commands; `Engine.next_wakeup_ns()` says when to call it again. No socket, no
clock, no event loop, no logging: the live batcher feeds it real events, a test or a simulator feeds it virtual ones.
"""

from mlproxy.calls import CallFailureKind, FlushReason
from mlproxy.engine.admission import QueueBounds
from mlproxy.engine.commands import Abort, Command, Complete, Dispatch, Reject, Relay
from mlproxy.engine.engine import Engine
from mlproxy.engine.events import (
    Answered,
    Arrived,
    Cancelled,
    Drain,
    Event,
    Failed,
    Failure,
    FailureKind,
    Pods,
)  # fmt: skip
from mlproxy.engine.failure import may_be_one_members
from mlproxy.engine.policies import NoBatching, Policy, StaticBatching, policy_for
from mlproxy.engine.request import Batch, Member, Part, Piece, Request, State

__all__ = [
    "Abort",
    "Answered",
    "Arrived",
    "Batch",
    "CallFailureKind",
    "Cancelled",
    "Command",
    "Complete",
    "Dispatch",
    "Drain",
    "Engine",
    "Event",
    "Failed",
    "Failure",
    "FailureKind",
    "FlushReason",
    "Member",
    "NoBatching",
    "Part",
    "Piece",
    "Pods",
    "Policy",
    "QueueBounds",
    "Reject",
    "Relay",
    "Request",
    "State",
    "StaticBatching",
    "may_be_one_members",
    "policy_for",
]
