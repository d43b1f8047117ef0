"""Every metric, once: name, kind, meaning, labels and buckets. **Pure.**

`docs/metrics.md` is generated from this table, and so are the layout of the shared-memory pages and the exposition.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple, TypeAlias, get_args

from mlproxy.calls import GATEWAY_STATUSES, CallFailureKind, FlushReason
from mlproxy.units import NS_PER_MS, NS_PER_S

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]

#: 0.5 ms to 60 s, about 1-2-5: resolves a 10 ms model and a 30 s timeout alike.
_DURATION_BUCKETS_NS = tuple(
    ms * NS_PER_MS // 10
    for ms in (5, 10, 20, 50, 100, 200, 350, 500, 750, 1000, 1500, 2000, 3500, 5000, 7500, 10_000, 20_000, 50_000,
               100_000, 200_000, 600_000)
)  # fmt: skip
_SIZE_BUCKETS = tuple(2**power for power in range(13))
#: Statuses of calls that are told apart; the rest is ``other``.
_STATUSES = ("200", "400", "404", "413", "422", "429", "500", "502", "503", "504")
_FAILURES = (*get_args(CallFailureKind), "contract")


#: Batch sizes of which the policy's expectations are shown; up to the largest that can be configured.
EXPECTED_SIZES = tuple(2**power for power in range(17))


class Label(NamedTuple):
    """A label with all ``values`` that it can have, so that each has a fixed place in a page."""

    name: str
    values: tuple[str, ...]


#: The one label whose values come from the configuration.
URL = Label("url", ())


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family, with a cell for each combination of its labels' values."""

    name: str
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[int, ...] = ()
    scale: int = 1  #: how many of the counted units make one of the shown
    sparse: bool = False  #: a cell in which nothing was ever counted is not shown

    @property
    def cells(self) -> tuple[tuple[str, ...], ...]:
        """The label values of each, in the order of a page; one without values, if there is no label."""
        return tuple(product(*(label.values for label in self.labels)))

    @property
    def words(self) -> int:
        """Eight-byte words per cell: one; for a histogram one per bucket, one for beyond, one for the sum."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


def _durations(name: str, help_text: str, *labels: Label) -> Metric:
    return Metric(name, "histogram", help_text, labels, _DURATION_BUCKETS_NS, NS_PER_S, sparse=bool(labels))


#: Per endpoint.
METRICS = (
    Metric("requests_total", "counter", "Predictions answered, by HTTP status.",
           (Label("code", tuple(str(code) for code in range(100, 600))),), sparse=True),
    _durations("request_duration_seconds", "From a request's head to its answer."),
    Metric("slo_met_total", "counter", "Predictions answered within slo.latency, with a status below 500."),
    Metric("slo_missed_total", "counter", "Predictions answered later than slo.latency, or with a status from 500 on."),
    Metric("cancelled_total", "counter", "Callers that left before they were answered."),
    Metric("shed_total", "counter", "Requests refused early.",
           (Label("reason", ("queue_full", "worker_full", "deadline")),)),
    _durations("queue_wait_seconds", "From a request's head to the dispatch of its batch."),
    Metric("queue_depth", "gauge", "Instances waiting for dispatch."),
    Metric("queue_bytes", "gauge", "Bytes waiting for dispatch."),
    Metric("batch_size", "histogram", "Instances per backend call.", (), _SIZE_BUCKETS),
    Metric("batches_total", "counter", "Backend calls, by why the batch left.",
           (Label("reason", get_args(FlushReason)),)),
    Metric("instances_total", "counter", "Instances sent to the backend; again when sent again."),
    _durations("backend_duration_seconds", "Backend calls, by status or kind of failure.",
               Label("code", (*_STATUSES, "other", *_FAILURES))),
    Metric("backend_inflight", "gauge", "Backend calls in flight."),
    Metric("backend_healthy", "gauge", "1 while connections to the URL succeed.", (URL,)),
    Metric("retries_total", "counter", "Batches sent again, by what went wrong before.",
           (Label("reason", ("connect", "reset", *(f"status_{status}" for status in sorted(GATEWAY_STATUSES)))),)),
    Metric("isolated_total", "counter",
           "Requests sent alone after their batch, or that of one like it, had failed: was it this one?",
           (Label("verdict", ("poison", "cleared")),)),
    Metric("verified_total", "counter", "Requests sent alone besides (`batching.verify`): was it the same answer?",
           (Label("verdict", ("same", "different", "failed")),)),
    Metric("unbatched_lanes", "gauge", "Lanes that stopped batching because an answer was not the same."),
    Metric("coalesced_total", "counter", "Instances not sent because others of their batch are the same."),
    Metric("controller_max_size", "gauge", "Instances that the policy lets a batch have now."),
    Metric("controller_slots", "gauge", "Calls that the backend can serve at once, as far as the policy knows."),
    Metric("service_time_seconds", "gauge",
           "What policy slo expects a call with so many instances to take: on average, and what few calls exceed.",
           (Label("size", tuple(map(str, EXPECTED_SIZES))), Label("quantile", ("mean", "high"))),
           scale=NS_PER_S, sparse=True),
)  # fmt: skip

#: Per process, not per endpoint.
PROCESS_METRICS = (
    Metric("worker_restarts_total", "counter", "Dead processes replaced by the supervisor.",
           (Label("role", ("ingress", "batcher", "admin")),)),
)  # fmt: skip

BY_NAME = {metric.name: metric for metric in (*METRICS, *PROCESS_METRICS)}
