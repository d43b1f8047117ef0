"""Closes connections that are idle, or whose caller is too slow to send or to read. **Effects.**

One sweep per second over all connections, instead of a timer per request: arming and cancelling a timer costs about
1 µs per request, a sweep about 0.2 µs per connection and second.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from mlproxy.units import NS_PER_S

if TYPE_CHECKING:
    from uvicorn.server import ServerState

    from workers.ingress.door import Door
    from workers.ingress.protocol import IngressProtocol

#: Longer than the idle time of the gateways in front (Envoy, the Knative activator: 60 s and 90 s pools re-dial on a
#: clean close), so that it is rarely this side that closes under a request already on its way. nginx's default.
KEEP_ALIVE_S = 75
#: How long a refused caller may go on sending what will be dropped (nginx's ``lingering_timeout``).
LINGER_S = 5
#: A caller that takes nothing of its answer for this long is gone (nginx's ``send_timeout``).
SEND_TIMEOUT_S = 60


class Watchdog:
    """Sweeps once per second, until stopped."""

    def __init__(self, loop: asyncio.AbstractEventLoop, door: Door, server_state: ServerState) -> None:
        self._loop = loop
        self._door = door
        self._server_state = server_state
        self._header_timeout_s = max(1, -(-door.limits.header_timeout_ns // NS_PER_S))
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Sweep a second from now, and every second after."""
        self._timer = self._loop.call_later(1.0, self._sweep)

    def stop(self) -> None:
        """No more sweeps."""
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self) -> None:
        self.start()  # first: a defect below must not end the sweeping
        self._door.tick += 1
        for connection in list(self._server_state.connections):
            self._look_at(cast("IngressProtocol", connection), self._door.tick)

    def _look_at(self, connection: IngressProtocol, tick: int) -> None:
        quiet_s = tick - connection.active_tick
        cycle = connection.cycle
        unsent_bytes = connection.transport.get_write_buffer_size()
        if unsent_bytes:
            if unsent_bytes != connection.unsent_bytes:
                connection.active_tick = tick
            elif quiet_s > SEND_TIMEOUT_S:
                connection.transport.abort()
        elif connection.lingering:
            if quiet_s > LINGER_S and (cycle is None or cycle.response_complete):
                connection.transport.close()
        elif connection.in_head:
            if connection.flow.read_paused:
                connection.head_began_tick = tick  # it is this side that does not read
            elif tick - connection.head_began_tick > self._header_timeout_s:
                connection.time_out()
        elif cycle is None or cycle.response_complete:
            if quiet_s > KEEP_ALIVE_S:
                connection.transport.close()
        elif connection.receiving and not connection.flow.read_paused and quiet_s > self._header_timeout_s:
            connection.time_out()
        connection.unsent_bytes = unsent_bytes
