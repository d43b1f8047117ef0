"""How batches form: the interface, and the policies that the configuration can name. **Pure.**"""

from __future__ import annotations

from mlproxy.config import Endpoint
from mlproxy.engine.autoscaler import AutoscalerSpec, resolve_target
from mlproxy.engine.policies.aimd import AimdBatching
from mlproxy.engine.policies.policy import Decision, Flush, Policy, Unlearning, WaitUntil
from mlproxy.engine.policies.slo import SloBatching
from mlproxy.engine.policies.static import NoBatching, StaticBatching
from mlproxy.engine.slo.pods import FixedPods, Pods, ShadowPods

__all__ = [
    "AimdBatching",
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


def policy_for(endpoint: Endpoint) -> Policy:
    """The policy that ``endpoint`` is configured with."""
    batching, slo_ns = endpoint.batching, endpoint.slo.latency_ns
    match batching.policy:
        case "slo":
            return SloBatching(
                slo_ns, 1 - endpoint.slo.share, batching.max_size, _pods_of(endpoint),
                paced=batching.bill == "pods", max_linger_ns=batching.max_linger_ns,
            )  # fmt: skip
        case "aimd":
            return AimdBatching(slo_ns, batching.max_size, endpoint.max_inflight, batching.aimd)
        case "static":
            return StaticBatching(batching.max_size, batching.max_linger_ns or 0, endpoint.max_inflight)
        case "none":
            return NoBatching(endpoint.max_inflight)


def _pods_of(endpoint: Endpoint) -> Pods:
    scaling = endpoint.backend.scaling
    if scaling.kind == "fixed" or endpoint.batching.max_inflight != "auto":
        return FixedPods(endpoint.max_inflight)
    target = resolve_target(
        container_concurrency=scaling.container_concurrency, target=scaling.target, utilization=scaling.utilization
    )
    return ShadowPods(AutoscalerSpec(target=target), max(1, scaling.container_concurrency), scaling.max_scale)
