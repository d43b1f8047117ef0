"""Closes connections that are idle, or whose caller is too slow to send or to read. **Effects.**

One sweep per second over all connections, instead of a timer per request: arming and cancelling a timer costs about
1 µs per request, a sweep about 0.5 µs per connection and second.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from mlproxy.units import NS_PER_S
from workers.ingress.phase import Phase

if TYPE_CHECKING:
    from uvicorn.server import ServerState

    from workers.ingress.door import Door
    from workers.ingress.protocol import IngressProtocol

#: Longer than the idle time of the gateways in front (Envoy, the Knative activator: 60 s and 90 s pools re-dial on a
#: clean close), so that it is rarely this side that closes under a request already on its way. nginx's default.
KEEP_ALIVE_S = 75
#: How long a refused caller may pause before its connection is closed (nginx's ``lingering_timeout``).
DISCARD_S = 5
#: And how long it may go on sending what is discarded, if it never pauses (nginx's ``lingering_time``).
LONGEST_DISCARD_S = 30
#: A caller that takes nothing of its answer for this long is gone (nginx's ``send_timeout``).
SEND_TIMEOUT_S = 60

# Bound once, as in `workers.ingress.phase`.
_IDLE, _HEAD, _PREDICTION_BODY, _PASSING_BODY, _ANSWERING, _DISCARDING = Phase


class Watchdog:
    """Sweeps once per second, until stopped."""

    def __init__(self, loop: asyncio.AbstractEventLoop, door: Door, server_state: ServerState) -> None:
        self._loop = loop
        self._door = door
        self._server_state = server_state
        self._header_timeout_s = _whole_seconds(door.limits.header_timeout_ns)
        self._body_timeout_s = _whole_seconds(door.limits.body_timeout_ns)
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
        self._look_at_answers(connection, tick)
        phase = connection.phase
        if phase is _IDLE:
            if tick - connection.active_tick > KEEP_ALIVE_S and not connection.unsent_bytes:
                connection.transport.close()
        elif phase is _DISCARDING:
            over = tick - connection.active_tick > DISCARD_S or tick - connection.began_tick > LONGEST_DISCARD_S
            if over and not connection.unsent_bytes:
                connection.transport.close()
        elif phase is not _ANSWERING:
            self._look_at_request(connection, phase, tick)

    def _look_at_request(self, connection: IngressProtocol, phase: Phase, tick: int) -> None:
        quiet_s, busy_s = tick - connection.active_tick, tick - connection.began_tick
        if connection.flow.read_paused:
            connection.began_tick = tick  # it is this side that does not read
        elif (busy_s if phase is _HEAD else quiet_s) > self._header_timeout_s:
            connection.time_out("limits.header_timeout")
        elif phase is _PREDICTION_BODY and busy_s > self._body_timeout_s:
            connection.time_out("limits.body_timeout")

    def _look_at_answers(self, connection: IngressProtocol, tick: int) -> None:
        unsent_bytes = connection.transport.get_write_buffer_size()
        if unsent_bytes != connection.unsent_bytes:
            connection.unsent_bytes = unsent_bytes
            connection.sent_tick = connection.active_tick = tick
        elif unsent_bytes and tick - connection.sent_tick > SEND_TIMEOUT_S:
            connection.transport.abort()


def _whole_seconds(duration_ns: int) -> int:
    return max(1, -(-duration_ns // NS_PER_S))
