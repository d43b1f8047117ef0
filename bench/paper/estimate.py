"""How long a comparison will take, from short runs of every kind that it has. **Effects**: starts processes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from bench.paper.plan import WORKLOADS
from bench.paper.runs import Run, expected_requests
from mlproxy.simulate import simulate
from mlproxy.simulate.arrivals import Poisson
from mlproxy.simulate.many import finished
from mlproxy.units import NS_PER_S

#: A sample has so many requests or more, so that their cost outweighs the start; lasts long enough for the autoscaler
#: to follow; and has this share of the peak rate, about the middle of what the traces' requests come at.
_SAMPLE_REQUESTS, _SAMPLE_LEAST_S, _SAMPLE_RATE = 10_000, 40, 0.6


class Kind(NamedTuple):
    """Runs of one kind cost about the same per request."""

    method: str
    scale: int
    workload: str
    policy: str


def kind_of(run: Run) -> Kind:
    """Traces, seeds and settings matter less."""
    return Kind(run.case.method, run.case.scale, run.case.workload, run.policy)


class Estimate:
    """What runs will cost, by what a request of their kind has cost."""

    def __init__(self, cpu_s_per_request: Mapping[Kind, float]) -> None:
        self._cpu_s_per_request = cpu_s_per_request

    def __repr__(self) -> str:
        return f"<Estimate from {len(self._cpu_s_per_request)} kinds of runs>"

    def cpu_s(self, run: Run) -> float:
        """CPU time."""
        return expected_requests(run) * self._cpu_s_per_request[kind_of(run)]


def estimate_for(runs: Iterable[Run], processes: int) -> Estimate:
    """By a short run of every kind among ``runs``, which takes some seconds."""
    samples = list({kind_of(run): _sample(run) for run in runs}.values())
    costs = finished(_cpu_s_per_request, samples, processes)
    return Estimate({kind_of(samples[index]): cost for index, cost in costs})


def _sample(run: Run) -> Run:
    rate = _SAMPLE_RATE * WORKLOADS[run.case.workload].peak_per_second * run.case.scale
    seconds = max(_SAMPLE_LEAST_S, round(_SAMPLE_REQUESTS / rate))
    fields = (("trace", Poisson(rate)), ("duration_ns", seconds * NS_PER_S), ("warmup_ns", 0))
    return replace(run, changes=(*run.changes, *fields))


def _cpu_s_per_request(run: Run) -> float:
    began = time.process_time()
    simulate(run.scenario())
    return (time.process_time() - began) / expected_requests(run)
