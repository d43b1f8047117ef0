"""What an endpoint's policy goes by, for whoever watches: gauges, and a line when it changes. **Effects.**

Once a second and not once a turn: working out what calls of every size should take costs as much as ten requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from mlproxy.engine import Engine, Policy
from mlproxy.engine.policies import SloBatching
from mlproxy.observe import EXPECTED_SIZES, BatcherMetrics
from mlproxy.units import NS_PER_MS

logger = logging.getLogger("mlproxy.batcher")

SHOW_EVERY_S = 1.0
#: The statistics are written every so many times, if they have changed.
WRITE_EVERY = 10


class Explanation:
    """Of one endpoint."""

    def __init__(self, endpoint: str, engine: Engine, policy: Policy, metrics: BatcherMetrics) -> None:
        self._endpoint = endpoint
        self._engine = engine
        self._policy = policy
        self._metrics = metrics
        self._shown = 0
        self._written: dict[str, float] = {}
        self._infeasible = False

    def __repr__(self) -> str:
        return f"<Explanation of {self._endpoint}>"

    def show(self) -> None:
        """Bring the gauges up to date, and write what is new."""
        statistics = self._engine.statistics()
        self._metrics.controller(int(statistics["size_cap"]), int(statistics["slots"]))
        if isinstance(self._policy, SloBatching):
            self._show_controller(self._policy)
        if self._shown % WRITE_EVERY == 0 and statistics != self._written and logger.isEnabledFor(logging.DEBUG):
            self._written = statistics
            values = " ".join(f"{name}={value:.6g}" for name, value in statistics.items())
            logger.debug("statistics endpoint=%s %s", self._endpoint, values)
        self._shown += 1

    def _show_controller(self, policy: SloBatching) -> None:
        controller = policy.controller
        service = controller.service
        if service.mean.samples:
            for size in EXPECTED_SIZES[: service.size_cap.max_size.bit_length()]:
                self._metrics.expected(size, service.mean_ns(size), service.quantile_ns(size))
        if controller.infeasible != self._infeasible:
            self._infeasible = controller.infeasible
            logger.info(
                "%s endpoint=%s one_instance_ms=%.1f slo_ms=%.1f",
                "the objective cannot be met" if self._infeasible else "the objective can be met again",
                self._endpoint, service.quantile_ns(1) / NS_PER_MS, controller.slo_ns / NS_PER_MS,
            )  # fmt: skip


async def explain(explanations: Sequence[Explanation]) -> None:
    """Until cancelled."""
    while True:
        for explanation in explanations:
            explanation.show()
        await asyncio.sleep(SHOW_EVERY_S)
