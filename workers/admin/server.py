"""Runs the admin application on the inherited socket. **Effects.**"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import uvicorn

from mlproxy.observe import MetricPage, PageLayout, PageState
from workers.admin.app import make_app
from workers.sockets import inherited_socket

if TYPE_CHECKING:
    from workers.launch import Launch


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
    config = uvicorn.Config(
        make_app(launch.configuration, pages), log_config=None, access_log=False, server_header=False, ws="none",
        lifespan="off", timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = AdminServer(config)
    server.page = page
    # Uvicorn raises the signals that stopped it again once it is done; by then they have been obeyed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    await server.serve(sockets=[inherited_socket(launch.listen_fd)])
