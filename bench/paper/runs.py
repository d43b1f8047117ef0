"""One run of the comparison, and what is kept of it. **Pure** but for the clock in `read_run`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeAlias

from bench.paper.bound import bound_pods
from bench.paper.plan import WORKLOADS, Case, Changes, Static, scenario
from bench.paper.readings import Reading, reading
from bench.paper.shapes import Shape
from mlproxy.simulate import Scenario, simulate
from mlproxy.units import NS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A scenario and what it is called."""

    case: Case
    shape: Shape
    policy: str
    seed: int
    static: Static | None = None
    changes: Changes = ()  #: further fields of the scenario

    @property
    def setting(self) -> str:
        """Of policy static."""
        if self.static is None:
            return ""
        return f"{self.static.max_size}, {self.static.linger_share * WORKLOADS[self.case.workload].slo_ms:.0f} ms"

    def scenario(self) -> Scenario:
        """What the simulator is given."""
        return scenario(self.case, self.shape, self.policy, self.seed, self.static, **dict(self.changes))


@cache
def expected_requests(run: Run) -> float:
    """The mean of its Poisson arrivals; where the rates change by chance, for a draw of their own."""
    scenario = run.scenario()
    segments = scenario.trace.segments(scenario.duration_ns, scenario.generators()[0])
    return sum(one.per_second * (one.end_ns - one.start_ns) for one in segments) / NS_PER_S


#: Simulates runs and reads them, in their order.
ReadAll: TypeAlias = Callable[[Iterable[Run]], list[Reading]]


class Read(NamedTuple):
    """What a run has shown, and what it took to simulate it."""

    reading: Reading
    cpu_s: float


def read_run(run: Run) -> Read:
    """Simulate and read it, in this process."""
    began = time.process_time()
    scenario = run.scenario()
    bound = bound_pods(scenario) if run.policy == "slo" and run.case.method == "ours" else None
    found = reading(run.case, run.policy, run.seed, simulate(scenario), run.setting, bound)
    return Read(found, time.process_time() - began)
