"""Uvicorn, told about the hot path, the metric page and the drain. **Effects.**"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import time
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, cast

import uvicorn

from mlproxy.observe import IngressMetrics, MetricPage, PageLayout, PageState
from mlproxy.units import NS_PER_S
from workers.ingress.app import make_app
from workers.ingress.door import Door
from workers.ingress.protocol import IngressProtocol
from workers.ingress.watchdog import Watchdog
from workers.launch import let_signals_through
from workers.sockets import inherited_socket

if TYPE_CHECKING:
    from uvicorn.server import ServerState

    from workers.launch import Launch

logger = logging.getLogger("mlproxy.ingress")

#: How long callers may take to accept what they are told at the very end.
LAST_WORDS_S = 0.5
#: For all but callers: the worker's own (rings, page, log), and calls that pass through.
OTHER_DESCRIPTORS = 200


class IngressServer(uvicorn.Server):
    """Uvicorn's server, which also advances the heartbeat and closes the door when it is told to stop."""

    door: Door
    page: MetricPage

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop accepting, finish what was admitted. A second signal does not make it less graceful."""
        self.door.draining = True
        self.page.set_state(PageState.DRAINING)
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second, in the loop that does the work."""
        self.page.beat(time.monotonic_ns())
        stops = await super().on_tick(counter)
        if counter % 10 == 0:  # when Uvicorn has just made them anew
            self.door.default_headers = b"".join(b"%b: %b\r\n" % header for header in self.server_state.default_headers)
        if counter == 0:
            self.page.set_state(PageState.READY)
        return stops


def _config(launch: Launch) -> uvicorn.Config:
    return uvicorn.Config(
        app="",  # set below: it needs the door, which needs the server
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=cast(int, _drain_s(launch.configuration.server.drain_timeout_ns)),
    )


def _max_connections(launch: Launch) -> int:
    """This worker's share of ``limits.connections``, or as many as it has descriptors for."""
    share = max(1, launch.configuration.limits.connections // launch.workers)
    granted, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    for_callers = max(1, granted - OTHER_DESCRIPTORS)
    if granted == resource.RLIM_INFINITY or share <= for_callers:
        return share
    logger.warning("of limits.connections this worker takes %d, not %d: it may have %d descriptors",
                   for_callers, share, granted)  # fmt: skip
    return for_callers


def _drain_s(drain_timeout_ns: int) -> float:
    """How long callers may wait for their answers: what is left then still has to be told so, in time."""
    return max(drain_timeout_ns * 0.8, drain_timeout_ns - NS_PER_S) / NS_PER_S


async def _dismiss(door: Door, state: ServerState) -> int:
    """Answer whoever still waits, and what is pipelined behind, and let the answers leave. How many these were."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + LAST_WORDS_S
    unanswered = door.give_up()
    while state.connections and loop.time() < give_up_at:
        await asyncio.sleep(0.01)
        unanswered += door.give_up()
    if unanswered:
        logger.warning("drain_timeout is over; told so: unanswered=%d", unanswered)
    return unanswered


async def serve(launch: Launch) -> int:
    """Serve until SIGTERM, then until everything admitted has been answered. 1 if somebody got no prediction."""
    configuration = launch.configuration
    layout = PageLayout.of(configuration)
    config = _config(launch)
    server = IngressServer(config)
    server.page = MetricPage(launch.page_fd, layout)
    server.page.begin(time.monotonic_ns())
    metrics = [
        IngressMetrics(server.page, index, endpoint.slo.latency_ns)
        for index, endpoint in enumerate(configuration.endpoints)
    ]
    loop = asyncio.get_running_loop()
    server.door = door = Door(
        configuration, loop, worker=launch.index, workers=launch.workers, max_connections=_max_connections(launch),
        rendezvous=launch.rendezvous, batcher_page=MetricPage(launch.page_fds["batcher"], layout), metrics=metrics,
    )  # fmt: skip
    config.app = make_app(door)
    config.http = cast("type[asyncio.Protocol]", partial(IngressProtocol, door=door))
    # The handler that Uvicorn will install, only earlier: so no signal is lost before that.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    let_signals_through()
    watchdog = Watchdog(loop, door, server.server_state)
    watchdog.start()
    door.client.connect()
    try:
        await server.serve(sockets=[inherited_socket(launch.listen_fd)])
    finally:
        watchdog.stop()
        unanswered = await _dismiss(door, server.server_state)
        door.client.close()
    if unanswered:
        return 1
    server.page.set_state(PageState.DRAINED)
    return 0
