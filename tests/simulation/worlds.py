"""Small worlds for tests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mlproxy.simulate import ClusterSettings, Outcome, Scenario, proxy_for, simulate
from mlproxy.simulate.arrivals import Poisson
from mlproxy.simulate.profiles import Affine, ServiceTime
from mlproxy.units import NS_PER_MS, NS_PER_S


@dataclass(frozen=True)
class Exponential:
    """Exponential service times, whatever the batch size."""

    mean_ms: float
    outlier_share: float = 0.0
    outlier_factors: tuple[float, float] = (1.0, 1.0)

    def service_time(self, instances: int) -> ServiceTime:
        """By inversion of the distribution function."""
        mean_ns = self.mean_ms * NS_PER_MS
        return lambda z: -mean_ns * math.log(0.5 * math.erfc(z / math.sqrt(2)))


def fixed(pods: int, **changes: Any) -> ClusterSettings:
    """A cluster that does not scale, with nothing between it and the proxy."""
    return ClusterSettings(min_scale=pods, max_pods=pods, **{"network_ns": 0, "activator_queue": 10**9, **changes})


def scenario(**changes: Any) -> Scenario:
    """One pod of 10 ms, 50 requests/s, one by one, for five minutes."""
    policy, configured = changes.pop("policy", "none"), changes.pop("configured", {})
    default: dict[str, Any] = {
        "trace": Poisson(50), "profile": Affine(10, 0), "cluster": fixed(1), "duration_ns": 300 * NS_PER_S,
        "warmup_ns": 30 * NS_PER_S, "keep_series": True, "proxy": proxy_for(policy, changes=tuple(configured.items())),
    }  # fmt: skip
    return Scenario(**{**default, **changes})


def run(**changes: Any) -> Outcome:
    """The outcome of `scenario` with ``changes``."""
    return simulate(scenario(**changes))


def mean_latency_ms(outcome: Outcome) -> float:
    """Over all answered requests."""
    assert outcome.series is not None
    return float(outcome.series.sorted_latencies_ms.mean())
