"""What `/api/v1/status` says, read from the metric pages. **Effects**: asks the system about processes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import psutil
from pydantic import BaseModel, Field

from mlproxy import __version__
from mlproxy.config import Configuration
from mlproxy.observe import MetricPage
from mlproxy.observe.reading import PageSum
from mlproxy.units import NS_PER_MS, NS_PER_S


class ProcessStatus(BaseModel):
    """One process."""

    name: str
    pid: int
    state: str = Field(description="starting, ready, draining, drained, or gone")
    uptime_s: float
    heartbeat_age_s: float = Field(description="since its loop last turned")
    resident_bytes: int | None = Field(description="null: the process is gone")


class SloStatus(BaseModel):
    """How the latency objective is being met, since the start."""

    latency_ms: float = Field(description="slo.latency")
    share_target: float = Field(description="slo.share")
    share_met: float | None = Field(description="of the predictions; null: none yet")
    ok: bool | None = Field(description="is share_met at least share_target?")


class EndpointStatus(BaseModel):
    """One endpoint, since the start."""

    name: str
    protocol: str
    route: str
    policy: str
    backends: dict[str, bool] = Field(description="by URL: do connections to it succeed?")
    requests: int = Field(description="predictions answered, whatever their status")
    by_code: dict[str, int] = Field(description="the same, by HTTP status")
    slo: SloStatus
    queue_depth: int = Field(description="instances that wait now")
    queue_bytes: int = Field(description="bytes that wait now")
    backend_inflight: int = Field(description="calls to the backend now")
    backend_calls: int
    verified: dict[str, int] = Field(description="requests sent alone besides: the same answer, another one, none")
    unbatched_lanes: int = Field(description="lanes that stopped batching because an answer was another one")
    mean_batch_size: float | None = Field(description="instances per call; null: no call yet")
    latency_ms: dict[str, float | None] = Field(
        description="p50, p95, p99 of all requests, refused ones too; estimated from the histogram's buckets"
    )


class EndpointDetail(BaseModel):
    """One endpoint, and its block of the configuration."""

    configuration: dict[str, Any] = Field(description="as the file spells it")
    status: EndpointStatus


class Status(BaseModel):
    """Everything at a glance."""

    version: str
    state: str = Field(description="starting, ready or draining")
    uptime_s: float
    restarts: dict[str, int] = Field(description="by role: dead processes that were replaced")
    processes: list[ProcessStatus]
    endpoints: list[EndpointStatus]


def status(configuration: Configuration, pages: Mapping[str, MetricPage]) -> Status:
    """The whole proxy."""
    now_ns = time.monotonic_ns()
    supervisor = pages["supervisor"]
    everything = list(pages.values())
    return Status(
        version=__version__,
        state=supervisor.state.name.lower(),
        uptime_s=(now_ns - supervisor.started_ns) / NS_PER_S,
        restarts={role: int(count) for role, count in PageSum([supervisor]).counts("worker_restarts_total").items()},
        processes=[_process(name, page, now_ns) for name, page in pages.items()],
        endpoints=[endpoint_status(configuration, index, everything) for index in range(len(configuration.endpoints))],
    )


def endpoint_status(configuration: Configuration, index: int, pages: Sequence[MetricPage]) -> EndpointStatus:
    """One endpoint."""
    endpoint = configuration.endpoints[index]
    total = PageSum(pages, index)
    by_code = {code: count for code, count in total.counts("requests_total").items() if count}
    met, missed = total.count("slo_met_total"), total.count("slo_missed_total")
    share = met / (met + missed) if met + missed else None
    calls = sum(total.counts("batches_total").values())
    return EndpointStatus(
        name=endpoint.name,
        protocol=endpoint.protocol,
        route=endpoint.predict_path,
        policy=endpoint.batching.policy,
        backends={url: bool(healthy) for url, healthy in total.counts("backend_healthy").items()},
        requests=sum(by_code.values()),
        by_code=by_code,
        slo=SloStatus(
            latency_ms=endpoint.slo.latency_ns / NS_PER_MS,
            share_target=endpoint.slo.share,
            share_met=share,
            ok=None if share is None else share >= endpoint.slo.share,
        ),
        queue_depth=total.count("queue_depth"),
        queue_bytes=total.count("queue_bytes"),
        backend_inflight=total.count("backend_inflight"),
        backend_calls=calls,
        verified=total.counts("verified_total"),
        unbatched_lanes=total.count("unbatched_lanes"),
        mean_batch_size=total.count("instances_total") / calls if calls else None,
        latency_ms={
            f"p{percent}": _milliseconds(total.quantile_ns("request_duration_seconds", percent / 100))
            for percent in (50, 95, 99)
        },
    )


def _milliseconds(duration_ns: float | None) -> float | None:
    return None if duration_ns is None else round(duration_ns / NS_PER_MS, 3)


def _process(name: str, page: MetricPage, now_ns: int) -> ProcessStatus:
    try:
        resident_bytes = psutil.Process(page.pid).memory_info().rss if page.pid else None
    except psutil.NoSuchProcess:
        resident_bytes = None
    return ProcessStatus(
        name=name,
        pid=page.pid,
        state=page.state.name.lower() if resident_bytes is not None else "gone",
        uptime_s=(now_ns - page.started_ns) / NS_PER_S,
        heartbeat_age_s=(now_ns - page.heartbeat_ns) / NS_PER_S,
        resident_bytes=resident_bytes,
    )
