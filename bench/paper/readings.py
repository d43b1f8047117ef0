"""What is read off a run, by the paper's method and by ours. **Pure.**"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.paper.plan import WARM_UP_S, Case, Method
from mlproxy.simulate import Outcome, Report, Series

#: How often the paper looked at the ready replicas.
_LOOK_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One run."""

    method: Method
    scale: int
    workload: str
    trace: str
    policy: str
    seed: int
    setting: str  #: of policy static: size and linger
    requests: int
    pods: float  #: ready
    billed_pods: float  #: starting and draining ones too, and the proxy's own pod where there is a proxy
    miss_share: float
    p50_ms: float
    p99_ms: float
    mean_batch: float
    bound_pods: float | None = None  #: of the clairvoyant bound, where it was reckoned

    @property
    def case(self) -> Case:
        """What it is a run of."""
        return Case(self.method, self.scale, self.workload, self.trace)


def reading(
    case: Case, policy: str, seed: int, outcome: Outcome, setting: str = "", bound_pods: float | None = None
) -> Reading:  # fmt: skip
    """By the method of ``case``. Ours counts what fails as a miss; the paper looked only at what was answered."""
    report = outcome.report
    by_paper = case.method == "paper" and outcome.series is not None
    return Reading(
        **case._asdict(), policy=policy, seed=seed, setting=setting, requests=report.requests,
        pods=round(looked_at(outcome.series) if by_paper and outcome.series else report.mean_ready_pods, 4),
        billed_pods=round(report.mean_provisioned_pods + (policy != "none"), 4),
        miss_share=round(late_share(report) if by_paper else report.slo_miss_share, 6),
        p50_ms=round(report.p50_ms, 2), p99_ms=round(report.p99_ms, 2), mean_batch=round(report.mean_batch, 2),
        bound_pods=None if bound_pods is None else round(bound_pods, 4),
    )  # fmt: skip


def looked_at(series: Series) -> float:
    """Mean of the ready pods as seen every 30 s, after the warm-up."""
    looks = [
        float(pods)
        for second, pods in zip(series.seconds, series.ready_pods, strict=True)
        if second >= WARM_UP_S and second % _LOOK_S == 0
    ]
    return fmean(looks)


def late_share(report: Report) -> float:
    """Of what was answered."""
    late = report.slo_miss_share * report.requests - report.failed
    return late / report.answered if report.answered else 0.0


def mean_of(readings: Sequence[Reading]) -> tuple[float, float, float, float]:
    """(pods, misses in percent, p50, p99): means over the seeds."""
    return (
        fmean(one.pods for one in readings), 100 * fmean(one.miss_share for one in readings),
        fmean(one.p50_ms for one in readings), fmean(one.p99_ms for one in readings),
    )  # fmt: skip
