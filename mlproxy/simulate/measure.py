"""What is measured, from the end of the warm-up to the end of the trace. **Pure.**"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mlproxy.engine import Engine
from mlproxy.simulate.cluster import Cluster
from mlproxy.simulate.scenario import Scenario
from mlproxy.units import NS_PER_MS, NS_PER_S

#: In place of the instant at which a request was answered.
FAILED = -1
#: The grain of the series.
BIN_NS = 10 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Report:
    """The numbers of one run. A request that failed or was shed counts as a miss."""

    requests: int
    answered: int
    failed: int
    slo_miss_share: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_batch: float
    backend_calls: int
    mean_ready_pods: float
    mean_provisioned_pods: float
    mean_busy_pods: float
    max_ready_pods: int
    panic_entries: int
    cost_usd: float
    cost_usd_with_proxy: float

    def to_json(self) -> dict[str, float]:
        """By the names above."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Series:
    """What happened over time, per bin of `BIN_NS`, over the whole run."""

    seconds: npt.NDArray[np.float64]
    requests_per_second: npt.NDArray[np.float64]
    ready_pods: npt.NDArray[np.float64]
    p95_ms: npt.NDArray[np.float64]
    batch_size: npt.NDArray[np.float64]
    sorted_latencies_ms: npt.NDArray[np.float64]  #: after the warm-up


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run went."""

    report: Report
    statistics: dict[str, float]  #: the engine's, at the end
    series: Series | None = None


class Measurements:
    """Takes notes while the world turns; everything that can be computed afterwards is."""

    def __init__(self, scenario: Scenario, arrivals_ns: npt.NDArray[np.int64], cluster: Cluster) -> None:
        self._scenario = scenario
        self._arrivals_ns = arrivals_ns
        self._cluster = cluster
        self._ended = np.zeros(len(arrivals_ns), np.int64)
        #: When each request was answered, or `FAILED`. A view: it takes 0.04 µs to store into, the array 0.1 µs.
        self.ended_ns = self._ended.data
        bins = scenario.duration_ns // BIN_NS + 1
        self._calls = [0] * bins
        self._instances = [0] * bins
        self._ready_pods: list[int] = []
        self._measuring = False
        self._keep_series = scenario.keep_series
        self._backend_calls = self._sent_instances = 0
        self._panics_before = 0
        self._pods: dict[str, float] = {}

    def sent(self, instances: int, now_ns: int) -> None:
        """A call of ``instances`` left."""
        if self._measuring:
            self._backend_calls += 1
            self._sent_instances += instances
        if self._keep_series and now_ns < self._scenario.duration_ns:
            at = now_ns // BIN_NS
            self._calls[at] += 1
            self._instances[at] += instances

    def begin(self, _: None) -> None:
        """The warm-up is over."""
        now_ns, fleet = self._scenario.warmup_ns, self._cluster.fleet
        for level in (fleet.ready_level, fleet.provisioned, fleet.busy):
            level.restart(now_ns)
        self._panics_before = self._cluster.autoscaler.panic_entries
        self._measuring = True

    def end(self, _: None) -> None:
        """The trace is over."""
        now_ns, fleet = self._scenario.duration_ns, self._cluster.fleet
        self._measuring = False
        self._pods = {
            "mean_ready_pods": fleet.ready_level.mean(now_ns), "mean_provisioned_pods": fleet.provisioned.mean(now_ns),
            "mean_busy_pods": fleet.busy.mean(now_ns), "max_ready_pods": fleet.ready_level.largest,
            "panic_entries": self._cluster.autoscaler.panic_entries - self._panics_before,
        }  # fmt: skip

    def sample(self, _: None) -> None:
        """Once per bin, when a series is wanted."""
        self._ready_pods.append(self._cluster.fleet.ready_level.now)

    def outcome(self, engine: Engine, *, unsent: int = 0) -> Outcome:
        """All that was measured. The last ``unsent`` requests found no free caller before the trace was over."""
        sent = len(self._ended) - unsent
        self._arrivals_ns, self._ended = self._arrivals_ns[:sent], self._ended[:sent]
        series = self._series() if self._keep_series else None
        return Outcome(self.report(), engine.statistics(), series)

    def report(self) -> Report:
        """The numbers of the run."""
        latencies_ns, late, failed = self._measured_latencies_ns()
        requests = len(latencies_ns) + failed
        p50, p95, p99 = np.percentile(latencies_ns, (50, 95, 99)) / NS_PER_MS if len(latencies_ns) else (0.0, 0.0, 0.0)
        seconds = (self._scenario.duration_ns - self._scenario.warmup_ns) / NS_PER_S
        prices, provisioned = self._scenario.prices, self._pods["mean_provisioned_pods"]
        return Report(
            requests=requests,
            answered=len(latencies_ns),
            failed=failed,
            slo_miss_share=(late + failed) / requests if requests else 0.0,
            p50_ms=float(p50),
            p95_ms=float(p95),
            p99_ms=float(p99),
            mean_batch=self._sent_instances / self._backend_calls if self._backend_calls else 0.0,
            backend_calls=self._backend_calls,
            mean_ready_pods=self._pods["mean_ready_pods"],
            mean_provisioned_pods=provisioned,
            mean_busy_pods=self._pods["mean_busy_pods"],
            max_ready_pods=int(self._pods["max_ready_pods"]),
            panic_entries=int(self._pods["panic_entries"]),
            cost_usd=prices.usd(provisioned * seconds),
            cost_usd_with_proxy=prices.usd((provisioned + 1) * seconds),
        )

    def _measured_latencies_ns(self) -> tuple[npt.NDArray[np.int64], int, int]:
        """Of what came after the warm-up: latencies of the answered, how many of them were late, how many failed."""
        first = int(np.searchsorted(self._arrivals_ns, self._scenario.warmup_ns))
        ended, arrived = self._ended[first:], self._arrivals_ns[first:]
        answered = ended != FAILED
        late = int(np.count_nonzero((ended - arrived > self._allowed_ns()[first:]) & answered))
        return (ended - arrived)[answered], late, int(len(ended) - np.count_nonzero(answered))

    def _allowed_ns(self) -> npt.NDArray[np.int64]:
        """What each request may take."""
        slo_ns = self._scenario.proxy.endpoint.slo.latency_ns
        by_turns = [budget_ns or slo_ns for budget_ns in self._scenario.budgets_ns or (0,)]
        return np.resize(np.array(by_turns, np.int64), len(self._ended))

    def _series(self) -> Series:
        bins = len(self._calls) - 1
        arrival_bins = self._arrivals_ns // BIN_NS
        latencies_ms = (self._ended - self._arrivals_ns) / NS_PER_MS
        latencies_ms[self._ended == FAILED] = np.nan
        edges = np.searchsorted(arrival_bins, np.arange(bins + 1))
        p95_ms = [_p95(latencies_ms[low:high]) for low, high in pairwise(edges)]
        calls, instances = np.array(self._calls[:bins], float), np.array(self._instances[:bins], float)
        return Series(
            seconds=np.arange(bins) * BIN_NS / NS_PER_S,
            requests_per_second=np.diff(edges) * NS_PER_S / BIN_NS,
            ready_pods=np.array(self._ready_pods[:bins], float),
            p95_ms=np.array(p95_ms),
            batch_size=np.divide(instances, calls, out=np.full(bins, np.nan), where=calls > 0),
            sorted_latencies_ms=np.sort(self._measured_latencies_ns()[0] / NS_PER_MS),
        )


def _p95(latencies_ms: npt.NDArray[np.float64]) -> float:
    known = latencies_ms[~np.isnan(latencies_ms)]
    return float(np.percentile(known, 95)) if len(known) else np.nan
