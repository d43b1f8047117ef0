"""The cluster as it is configured, and what it costs. **Pure.**"""

from __future__ import annotations

from dataclasses import dataclass

from mlproxy.engine.autoscaler import AutoscalerSpec, resolve_target
from mlproxy.units import NS_PER_MS, NS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """One Knative revision; the defaults are Knative's, and the paper's target of one request per pod."""

    target: float = 1.0
    utilization: float = 0.7
    container_concurrency: int = 1  #: 0: no limit, the pods queue
    cold_start_ns: tuple[int, int] = (2 * NS_PER_S, 5 * NS_PER_S)  #: uniform between the two
    max_pods: int = 100
    min_scale: int = 1  #: 0: scale to zero
    scale_to_zero_grace_ns: int = 30 * NS_PER_S
    scale_down_delay_ns: int = 0
    network_ns: int = 2 * NS_PER_MS  #: from the proxy to the activator and back, both ways together
    activator_queue: int = 10_000  #: calls that wait for a pod; beyond it 503 (Knative's revision breaker)
    #: A pod that goes stays until nothing came for so long (queue-proxy's drain); it is paid for, but not ready.
    drain_quiet_ns: int = 30 * NS_PER_S

    def autoscaler_spec(self) -> AutoscalerSpec:
        """What the autoscaler is told."""
        target = resolve_target(
            container_concurrency=self.container_concurrency, target=self.target, utilization=self.utilization
        )
        return AutoscalerSpec(target=target, scale_down_delay_ns=self.scale_down_delay_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Cloud Run, instance-based billing, tier 1 (cloud.google.com/run/pricing): CPU and memory for as long as a pod is
    there, no fee per request. The pod is the paper's: one CPU, one GiB.
    """

    usd_per_cpu_second: float = 0.000018
    usd_per_gib_second: float = 0.000002
    pod_cpus: float = 1.0
    pod_gib: float = 1.0

    def usd(self, pod_seconds: float) -> float:
        """What so many pod-seconds cost."""
        return pod_seconds * (self.pod_cpus * self.usd_per_cpu_second + self.pod_gib * self.usd_per_gib_second)
