"""Runs the admin application on the inherited socket. **Effects.**"""

from __future__ import annotations

import signal
import time
from functools import partial
from typing import TYPE_CHECKING

import uvicorn

from mlproxy.ipc.control import command
from mlproxy.observe import MetricPage, PageLayout, PageState
from workers.admin.app import make_app
from workers.launch import let_signals_through
from workers.sockets import inherited_socket

if TYPE_CHECKING:
    from workers.launch import Launch

#: Time for a batcher that has just died to be replaced.
COMMAND_TIMEOUT_S = 5.0


class AdminServer(uvicorn.Server):
    """Uvicorn's server, which also advances the heartbeat."""

    page: MetricPage

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        self.page.beat(time.monotonic_ns())
        if counter == 0:
            self.page.set_state(PageState.READY)
        return await super().on_tick(counter)


async def serve(launch: Launch) -> None:
    """Serve until SIGTERM. Whoever is still being answered then is let go after a second."""
    layout = PageLayout.of(launch.configuration)
    page = MetricPage(launch.page_fd, layout)
    page.begin(time.monotonic_ns())
    pages = {name: MetricPage(fd, layout) for name, fd in launch.page_fds.items()}
    app = make_app(launch.configuration, pages, partial(command, launch.rendezvous, timeout_s=COMMAND_TIMEOUT_S))
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, ws="none", lifespan="off",
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = AdminServer(config)
    server.page = page
    # The handler that Uvicorn will install, only earlier: so no signal is lost before that, and none kills when Uvicorn
    # raises again those that stopped it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    let_signals_through()
    await server.serve(sockets=[inherited_socket(launch.listen_fd)])
