"""What is simulated: traffic, model, cluster, policy, faults and a seed. **Pure.**"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import ValidationError

from mlproxy.config import Configuration, Endpoint, Limits
from mlproxy.config.keys import format_path
from mlproxy.config.problems import conflicts_of, findings_of
from mlproxy.errors import ConfigurationError
from mlproxy.simulate.arrivals import Trace
from mlproxy.simulate.faults import Fault
from mlproxy.simulate.profiles import Profile
from mlproxy.simulate.rivals import RIVALS
from mlproxy.simulate.settings import ClusterSettings, Prices
from mlproxy.units import NS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """The proxy's configuration: one endpoint, and the limits that hold over all."""

    policy: str  #: the configuration's, or one of `RIVALS`
    endpoint: Endpoint
    limits: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One run. Two runs of equal scenarios are equal; the seed gives all policies the same arrivals."""

    trace: Trace
    profile: Profile
    proxy: Proxy
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    faults: tuple[Fault, ...] = ()
    prices: Prices = field(default_factory=Prices)
    duration_ns: int = 7200 * NS_PER_S
    warmup_ns: int = 300 * NS_PER_S
    seed: int = 1
    callers: int | None = None  #: of a closed loop: at most so many requests are outstanding; None: an open loop
    #: Time budgets that the callers set, by turns; 0: none. A request is late when its own budget is exceeded.
    budgets_ns: tuple[int, ...] = ()
    keep_series: bool = False  #: for plots

    def generators(self) -> tuple[np.random.Generator, np.random.Generator]:
        """The random numbers of the traffic, and those of the cluster."""
        traffic, cluster = np.random.SeedSequence(self.seed).spawn(2)
        return np.random.default_rng(traffic), np.random.default_rng(cluster)


def proxy_for(
    policy: str, *, slo: str = "500ms", share: float = 0.99, cluster: ClusterSettings | None = None,
    changes: Sequence[tuple[str, Any]] = (),
) -> Proxy:  # fmt: skip
    """The configuration that the proxy would run with. `ConfigurationError` names every problem.

    ``changes`` are dotted keys of the endpoint, such as ``batching.max_size``, or of ``limits``.
    """
    document = _document(policy, slo, share, changes)
    document["endpoints"][0]["backend"].setdefault("scaling", _scaling(cluster or ClusterSettings()))
    configuration = _validated(document)
    return Proxy(policy=policy, endpoint=configuration.endpoints[0], limits=configuration.limits)


def _scaling(cluster: ClusterSettings) -> dict[str, Any]:
    return {
        "kind": "knative", "target": cluster.target, "utilization": cluster.utilization,
        "container_concurrency": cluster.container_concurrency, "max_scale": cluster.max_pods,
    }  # fmt: skip


def _document(policy: str, slo: str, share: float, changes: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    batching: dict[str, Any] = {"policy": "static" if policy in RIVALS else policy}
    endpoint: dict[str, Any] = {
        "name": "simulated", "backend": {"urls": ["http://simulated"]}, "slo": {"latency": slo, "share": share},
        "batching": batching,
    }  # fmt: skip
    document: dict[str, Any] = {"endpoints": [endpoint]}
    for key, value in changes:
        at = document if key.startswith("limits.") else endpoint
        *parents, last = key.split(".")
        for parent in parents:
            child = at.setdefault(parent, {})
            if not isinstance(child, dict):  # a key below a value: the schema will say that there is no such section
                child = at[parent] = {}
            at = child
        at[last] = value
    return document


def _validated(document: dict[str, Any]) -> Configuration:
    try:
        return Configuration.model_validate(document)
    except ValidationError as error:
        found = [f"{format_path(finding.path)}: {finding.text}" for finding in findings_of(error, document)]
        found += [str(conflict) for conflict in conflicts_of(error)]
        problems = [problem.removeprefix("endpoints[0].") for problem in found]
        raise ConfigurationError(problems) from error
