"""How batches form: the interface, and the policies that the configuration can name. **Pure.**"""

from __future__ import annotations

from mlproxy.config import Batching
from mlproxy.engine.policies.policy import Decision, Flush, Policy, Unlearning, WaitUntil
from mlproxy.engine.policies.slo import SloBatching
from mlproxy.engine.policies.static import NoBatching, StaticBatching

__all__ = [
    "Decision",
    "Flush",
    "NoBatching",
    "Policy",
    "SloBatching",
    "StaticBatching",
    "Unlearning",
    "WaitUntil",
    "policy_for",
]


def policy_for(batching: Batching, slots: int) -> Policy:
    """The policy that ``batching`` names; ``slots`` is what ``max_inflight: auto`` means for this backend."""
    max_inflight = slots if batching.max_inflight == "auto" else batching.max_inflight
    if batching.policy == "none":
        return NoBatching(max_inflight)
    return StaticBatching(batching.max_size, batching.max_linger_ns or 0, max_inflight)
