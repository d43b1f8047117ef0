"""What is compared with what: workloads, rates, policies, the two methods. **Pure.**"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from bench.paper.shapes import Shape
from mlproxy.simulate import ClusterSettings, Scenario, proxy_for
from mlproxy.simulate.profiles import BUILT_IN
from mlproxy.units import NS_PER_MS, NS_PER_S

Method: TypeAlias = Literal["ours", "paper"]
Changes: TypeAlias = tuple[tuple[str, Any], ...]

POLICIES = ("none", "aimd", "clipper", "bentoml", "static", "slo")
WARM_UP_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A model of the paper with its rate and objective there, and the prototype's settings for it (capped batches)."""

    peak_per_second: float
    slo_ms: int
    aimd: Changes


WORKLOADS: Mapping[str, Workload] = {
    "iris": Workload(
        peak_per_second=200, slo_ms=200, aimd=(("batching.max_size", 20), ("batching.aimd.timeout_ratio", 0.9))
    ),
    "toxic": Workload(peak_per_second=50, slo_ms=500, aimd=(("batching.max_size", 10),)),
    "fashion": Workload(peak_per_second=100, slo_ms=1000, aimd=(("batching.max_size", 20),)),
}

#: The paper: no limit per pod, so that pods queue; a cluster of bounded size. Its client waited for answers as long as
#: it took; its timeout is not known.
PAPER_CLUSTER = ClusterSettings(container_concurrency=0, max_pods=50)
PAPER_CALLERS = 300
PAPER_CHANGES: Changes = (("backend.timeout", "60s"),)


class Case(NamedTuple):
    """Traffic for a model."""

    method: Method
    scale: int  #: times the paper's rate
    workload: str
    trace: str


class Static(NamedTuple):
    """A setting of policy static."""

    max_size: int
    linger_share: float  #: of the objective

    def changes(self, slo_ms: int) -> Changes:
        """As the configuration has them."""
        linger_ms = round(self.linger_share * slo_ms)
        return ("batching.max_size", self.max_size), ("batching.max_linger", f"{linger_ms}ms")


#: What "best static in hindsight" is chosen from, by the scale of the rates.
STATICS: Mapping[int, Sequence[Static]] = {
    1: [Static(size, share) for size in (5, 50) for share in (0.1, 0.25, 0.55)],
    10: [Static(100, share) for share in (0.1, 0.25, 0.55)],
}


def scenario(
    case: Case, shape: Shape, policy: str, seed: int, static: Static | None = None, **changes: Any
) -> Scenario:  # fmt: skip
    """One run. ``static`` says how policy static is set; ``changes`` are further fields."""
    workload = WORKLOADS[case.workload]
    set_to: Changes = workload.aimd if policy == "aimd" else ()
    if static is not None:
        set_to = static.changes(workload.slo_ms)
    paper = case.method == "paper"
    cluster = PAPER_CLUSTER if paper else ClusterSettings()
    # The paper drops the last five minutes as well as the first: they are not simulated.
    seconds = shape.duration_s - (WARM_UP_S if paper else 0)
    fields: dict[str, Any] = {
        "trace": shape.scaled(workload.peak_per_second * case.scale), "profile": BUILT_IN[case.workload],
        "proxy": proxy_for(
            policy, slo=f"{workload.slo_ms}ms", cluster=cluster, changes=(*set_to, *(PAPER_CHANGES if paper else ()))
        ),
        "cluster": cluster, "duration_ns": seconds * NS_PER_S, "warmup_ns": WARM_UP_S * NS_PER_S, "seed": seed,
        "callers": PAPER_CALLERS if paper else None, "keep_series": paper,
    }  # fmt: skip
    return Scenario(**{**fields, **changes})


def budgets_ns(workload: str, shares: Sequence[float]) -> tuple[int, ...]:
    """Time budgets as shares of the objective."""
    return tuple(round(share * WORKLOADS[workload].slo_ms) * NS_PER_MS for share in shares)
