"""How few pods would do if everything were known beforehand: the clairvoyant bound. **Pure.**

A reference, not a proof. Batches are formed with the arrivals known, each as late and as large as its first member
allows (offline greedy deferral); calls take their mean time, without margin; and there are at any instant as many pods
as the autoscaler's rule wants for the last minute: no start takes time, there is no panic, nothing misses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mlproxy.simulate import Scenario
from mlproxy.simulate.arrivals import arrivals_ns
from mlproxy.simulate.faults import Fault
from mlproxy.simulate.profiles import Profile
from mlproxy.units import NS_PER_S

Instants: TypeAlias = npt.NDArray[np.float64]

#: Quadrature over the standard normal that service times are drawn from.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def bound_pods(scenario: Scenario) -> float:
    """Mean ready pods after the warm-up."""
    endpoint, spec = scenario.proxy.endpoint, scenario.cluster.autoscaler_spec()
    means_ns = mean_times_ns(scenario.profile, endpoint.batching.max_size)
    leave_ns, end_ns = deferred_calls(
        arrivals_ns(scenario.trace, scenario.duration_ns, scenario.generators()[0]).astype(np.float64),
        endpoint.slo.latency_ns, means_ns, lambda now_ns: slowness(scenario.faults, now_ns),
    )  # fmt: skip
    looks_ns = np.arange(scenario.warmup_ns, scenario.duration_ns, NS_PER_S, dtype=np.float64)
    window_ns = np.minimum(spec.stable_window_ns, np.maximum(looks_ns, NS_PER_S))
    busy_ns = in_flight_until(leave_ns, end_ns, looks_ns) - in_flight_until(leave_ns, end_ns, looks_ns - window_ns)
    pods = np.ceil(np.round(busy_ns / window_ns / spec.target.value, 6))
    return float(np.clip(pods, 1, scenario.cluster.max_pods).mean())


def mean_times_ns(profile: Profile, max_size: int) -> Instants:
    """The mean time of a call with 1, 2, … ``max_size`` instances, its share of outliers included."""
    factor = 1 + profile.outlier_share * (sum(profile.outlier_factors) / 2 - 1)
    means = []
    for instances in range(1, max_size + 1):
        times_ns = [profile.service_time(instances)(node) for node in _NODES.tolist()]
        means.append(factor * float(np.dot(_WEIGHTS, times_ns)))
    return np.array(means)


def slowness(faults: tuple[Fault, ...], now_ns: float) -> float:
    """How many times longer than usual a call takes on average."""
    factor = 1.0
    for fault in faults:
        if fault.kind in ("drift", "outliers") and fault.start_ns <= now_ns < fault.end_ns:
            factor *= 1 + fault.share * (fault.factor - 1)
    return factor


def deferred_calls(
    arrivals_ns: Instants, slo_ns: int, means_ns: Instants, slower: Callable[[float], float] = lambda now_ns: 1.0
) -> tuple[Instants, Instants]:  # fmt: skip
    """When calls leave and end, each when it is full or at the last instant at which its first member is in time."""
    leave_ns, end_ns, first, max_size = [], [], 0, len(means_ns)
    while first < len(arrivals_ns):
        opened_ns = arrivals_ns[first]
        times_ns, joining_ns = means_ns * slower(opened_ns), arrivals_ns[first : first + max_size]
        latest_ns = opened_ns + slo_ns - times_ns[: len(joining_ns)]
        instances = max(1, int(np.count_nonzero(joining_ns <= latest_ns)))  # arrivals rise, and the latest falls
        last_ns = joining_ns[instances - 1]
        leave_ns.append(last_ns if instances == max_size else max(last_ns, latest_ns[instances - 1]))
        end_ns.append(leave_ns[-1] + times_ns[instances - 1])
        first += instances
    return np.array(leave_ns), np.array(end_ns)


def in_flight_until(leave_ns: Instants, end_ns: Instants, instants_ns: Instants) -> Instants:
    """Nanoseconds of calls in flight from the beginning up to each of ``instants_ns``."""
    return _time_since(leave_ns, instants_ns) - _time_since(end_ns, instants_ns)


def _time_since(events_ns: Instants, instants_ns: Instants) -> Instants:
    events_ns = np.sort(events_ns)
    passed = np.searchsorted(events_ns, instants_ns)
    sums = np.concatenate(([0.0], np.cumsum(events_ns)))
    return passed * instants_ns - sums[passed]
