"""Builds the batcher from its launch, and runs it until it has drained. **Effects.**"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from mlproxy.backend import Balancer
from mlproxy.config import Endpoint
from mlproxy.engine import Engine, Policy, QueueBounds, policy_for
from mlproxy.engine.policies import SloBatching
from mlproxy.observe import BatcherMetrics, MetricPage, PageLayout, PageState
from mlproxy.protocols import codec_for
from workers.batcher.endpoint import EndpointRuntime
from workers.batcher.service import BatcherService
from workers.batcher.state_file import StateFile, keep_up_to_date
from workers.launch import let_signals_through
from workers.sockets import inherited_socket

if TYPE_CHECKING:
    from workers.launch import Launch

logger = logging.getLogger("mlproxy.batcher")

HEARTBEAT_S = 0.5
EXIT_DEFECT = 70  # EX_SOFTWARE of sysexits.h


async def serve(launch: Launch) -> None:
    """Batch until SIGTERM; by then the workers have gone, so draining takes what is left in the queues."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_crash)
    configuration = launch.configuration
    page = MetricPage(launch.page_fd, PageLayout.of(configuration))
    page.begin(time.monotonic_ns())
    listener = inherited_socket(launch.listen_fd)
    service = BatcherService(loop, listener, max_backlog_bytes=configuration.limits.queue_bytes)
    bounds = QueueBounds(configuration.limits.queue_instances, configuration.limits.queue_bytes)
    balancers, runtimes, files = [], [], []
    for index, endpoint in enumerate(configuration.endpoints):
        metrics = BatcherMetrics(page, index)
        balancer = Balancer.of(endpoint, configuration.limits, loop, metrics.healthy)
        balancers.append(balancer)
        policy = policy_for(endpoint)
        if isinstance(policy, SloBatching) and configuration.server.state_dir is not None:
            files.append(StateFile(configuration.server.state_dir, endpoint.name, policy.controller))
            files[-1].read()
        runtimes.append(_runtime(endpoint, policy, balancer, bounds, metrics, service))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    let_signals_through()
    heart = asyncio.create_task(_beat(page))
    drained = asyncio.Event()
    saving = asyncio.create_task(keep_up_to_date(files, drained))
    service.start(runtimes)
    page.set_state(PageState.READY)
    await stop.wait()
    page.set_state(PageState.DRAINING)
    await service.drain()
    drained.set()
    await saving
    page.set_state(PageState.DRAINED)
    heart.cancel()
    service.close()
    for balancer in balancers:
        await balancer.close()


def _runtime(
    endpoint: Endpoint, policy: Policy, balancer: Balancer, bounds: QueueBounds, metrics: BatcherMetrics,
    service: BatcherService,
) -> EndpointRuntime:  # fmt: skip
    engine = Engine(policy, bounds, slo_ns=endpoint.slo.latency_ns, retry_attempts=endpoint.backend.retry.attempts)
    return EndpointRuntime(endpoint, engine, codec_for(endpoint.protocol), balancer, metrics, service.wake)


def _crash(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A defect: end at once. The workers hold every request and send it to the successor; going on might lose some."""
    logger.critical("defect, ending: %s", context.get("message"), exc_info=context.get("exception"))
    os._exit(EXIT_DEFECT)


async def _beat(page: MetricPage) -> None:
    while True:
        page.beat(time.monotonic_ns())
        await asyncio.sleep(HEARTBEAT_S)
