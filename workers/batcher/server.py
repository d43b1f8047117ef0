"""Builds the batcher from its launch, and runs it until it has drained. **Effects.**"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from mlproxy.backend import Balancer
from mlproxy.config import Configuration, Endpoint
from mlproxy.engine import Engine, Policy, QueueBounds, policy_for
from mlproxy.engine.policies import SloBatching
from mlproxy.observe import BatcherMetrics, MetricPage, PageLayout, PageState
from mlproxy.protocols import WithLaneHeaders, endpoint_codec
from workers.batcher.endpoint import EndpointRuntime
from workers.batcher.explanation import Explanation, explain
from workers.batcher.service import BatcherService
from workers.batcher.state_file import StateFile, keep_up_to_date
from workers.launch import let_signals_through
from workers.sockets import inherited_socket

if TYPE_CHECKING:
    from workers.launch import Launch

logger = logging.getLogger("mlproxy.batcher")

HEARTBEAT_S = 0.5
EXIT_DEFECT = 70  # EX_SOFTWARE of sysexits.h

#: How deep JSON may be nested is what the interpreter allows, less the calls that lead to its reader. A worker has
#: accepted what is read again here, from another depth of calls: with twice the limit, whatever that is.
RECURSION_LIMIT = 2 * sys.getrecursionlimit()


async def serve(launch: Launch) -> None:
    """Batch until SIGTERM; by then the workers have gone, so draining takes what is left in the queues."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_crash)
    sys.setrecursionlimit(RECURSION_LIMIT)
    configuration = launch.configuration
    page = MetricPage(launch.page_fd, PageLayout.of(configuration))
    page.begin(time.monotonic_ns())
    listener = inherited_socket(launch.listen_fd)
    service = BatcherService(loop, listener, max_backlog_bytes=configuration.limits.queue_bytes)
    endpoints = _built(configuration, page, loop, service)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    let_signals_through()
    explanations = [endpoint.explanation for endpoint in endpoints]
    tasks = [asyncio.create_task(_beat(page)), asyncio.create_task(explain(explanations))]
    drained = asyncio.Event()
    files = [endpoint.file for endpoint in endpoints if endpoint.file is not None]
    saving = asyncio.create_task(keep_up_to_date(files, drained))
    service.start([endpoint.runtime for endpoint in endpoints])
    page.set_state(PageState.READY)
    await stop.wait()
    page.set_state(PageState.DRAINING)
    await service.drain()
    drained.set()
    await saving
    page.set_state(PageState.DRAINED)
    for task in tasks:
        task.cancel()
    service.close()
    for endpoint in endpoints:
        await endpoint.balancer.close()


class _Built(NamedTuple):
    """All there is of one endpoint."""

    balancer: Balancer
    runtime: EndpointRuntime
    explanation: Explanation
    file: StateFile | None  #: of what its policy has learned; already read


def _built(
    configuration: Configuration, page: MetricPage, loop: asyncio.AbstractEventLoop, service: BatcherService
) -> list[_Built]:  # fmt: skip
    limits, built = configuration.limits, []
    bounds = QueueBounds(limits.queue_instances, limits.queue_bytes)
    for index, endpoint in enumerate(configuration.endpoints):
        metrics, policy = BatcherMetrics(page, index), policy_for(endpoint)
        engine = Engine(
            policy, bounds, slo_ns=endpoint.slo.latency_ns, retry_attempts=endpoint.backend.retry.attempts,
            coalesce=endpoint.batching.coalesce,
        )  # fmt: skip
        balancer = Balancer.of(endpoint, limits, loop, metrics.healthy)
        codec = endpoint_codec(endpoint)
        if endpoint.batching.lane_headers:
            codec = WithLaneHeaders(codec)
        runtime = EndpointRuntime(endpoint, engine, codec, balancer, metrics, service.wake)
        explanation = Explanation(endpoint.name, engine, policy, metrics)
        built.append(_Built(balancer, runtime, explanation, _state_file(configuration, endpoint, policy)))
    return built


def _state_file(configuration: Configuration, endpoint: Endpoint, policy: Policy) -> StateFile | None:
    folder = configuration.server.state_dir
    if folder is None or not isinstance(policy, SloBatching):
        return None
    file = StateFile(folder, endpoint.name, policy.controller)
    file.read()
    return file


def _crash(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A defect: end at once. The workers hold every request and send it to the successor; going on might lose some."""
    logger.critical("defect, ending: %s", context.get("message"), exc_info=context.get("exception"))
    os._exit(EXIT_DEFECT)


async def _beat(page: MetricPage) -> None:
    while True:
        page.beat(time.monotonic_ns())
        await asyncio.sleep(HEARTBEAT_S)
