"""The batcher's loop: accepts workers and commands, runs one turn per burst of events, drains. **Effects.**"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Sequence
from typing import Any

from mlproxy.ipc.control import is_command
from mlproxy.ipc.rendezvous import RendezvousError, accept_offer, check_user
from workers.batcher.control import ControlConnection
from workers.batcher.endpoint import EndpointRuntime
from workers.batcher.link import LinkedRequest, WorkerLink

logger = logging.getLogger("mlproxy.batcher")

#: No descriptor is free for a worker that waits: the listener stays readable, and each look would fail.
ACCEPT_PAUSE_S = 1.0
#: Whoever connects says at once what it wants; who does not only keeps a descriptor.
GREETING_WITHIN_S = 5.0


class BatcherService:
    """Owns the links and the endpoint runtimes, and turns the crank.

    Everything that happens within one turn of the event loop (records of all workers, backend replies, timers) is
    handed to the engines together, once, so the cost of deciding is paid per turn and not per request.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, listener: socket.socket, *, max_backlog_bytes: int) -> None:
        self._loop = loop
        self._listener = listener
        self._max_backlog_bytes = max_backlog_bytes  # of answers that one worker does not take
        self._links: set[WorkerLink] = set()
        self._runtimes: Sequence[EndpointRuntime] = ()
        self._awake: set[EndpointRuntime] = set()
        self._turn_scheduled = False
        self._drained: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<BatcherService {len(self._links)} workers, {list(self._runtimes)!r}>"

    def start(self, runtimes: Sequence[EndpointRuntime]) -> None:
        """Begin to accept workers."""
        self._runtimes = runtimes
        self._listener.setblocking(False)
        self._listen()

    async def drain(self) -> None:
        """Send what waits without waiting for company; return when everyone has been answered."""
        self._drained = asyncio.Event()
        for runtime in self._runtimes:
            runtime.drain()
        await self._drained.wait()

    def close(self) -> None:
        """Let every worker go."""
        self._loop.remove_reader(self._listener.fileno())
        for link in list(self._links):
            link.close()

    def wake(self, runtime: EndpointRuntime) -> None:
        """Something happened to ``runtime``: take a turn once this loop iteration's input is all in."""
        self._awake.add(runtime)
        if not self._turn_scheduled:
            self._turn_scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_scheduled = False
        awake, self._awake = self._awake, set()
        touched: set[WorkerLink] = set()
        now_ns = time.monotonic_ns()
        for runtime in awake:
            runtime.turn(now_ns, touched)
            runtime.rearm(self._loop, now_ns)
        for link in touched:
            link.flush()
        if self._drained is not None and all(runtime.engine.idle for runtime in self._runtimes):
            self._drained.set()

    def _listen(self) -> None:
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            logger.error("cannot accept a worker, trying again in %.1f s: %s", ACCEPT_PAUSE_S, error)
            self._loop.remove_reader(self._listener.fileno())
            self._loop.call_later(ACCEPT_PAUSE_S, self._listen)
            return
        try:
            check_user(peer)  # before it is waited for: anybody in this network namespace can connect
        except RendezvousError as error:
            self._refuse(peer, error)
            return
        peer.setblocking(False)
        timer = self._loop.call_later(GREETING_WITHIN_S, self._give_up, peer)
        self._loop.add_reader(peer.fileno(), self._greet, peer, timer)

    def _give_up(self, peer: socket.socket) -> None:
        self._loop.remove_reader(peer.fileno())
        self._refuse(peer, RendezvousError("it does not say what it wants"))

    def _refuse(self, peer: socket.socket, error: Exception) -> None:
        logger.warning("channel refused: %s", error)
        peer.close()

    def _greet(self, peer: socket.socket, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        self._loop.remove_reader(peer.fileno())
        try:
            if is_command(peer):
                ControlConnection(self._loop, peer, self._do)
                return
            offer = accept_offer(peer)
        except (OSError, RendezvousError) as error:
            self._refuse(peer, error)
            return
        link = WorkerLink(
            self._loop, peer, offer, max_backlog_bytes=self._max_backlog_bytes,
            on_requests=self._arrive, on_cancel=self._cancel, on_closed=self._links.discard,
        )  # fmt: skip
        self._links.add(link)
        logger.info("worker joined worker=%d", link.worker)

    def _do(self, message: dict[str, Any]) -> dict[str, Any]:
        """Carry out a command."""
        match message:
            case {"command": "resume_batching", "endpoint": str(name)}:
                lanes = [runtime.resume_batching() for runtime in self._runtimes if runtime.name == name]
                return {"lanes": lanes[0]} if lanes else {"error": f"no endpoint is called {name!r}"}
            case _:
                return {"error": f"no such command: {message!r:.200}"}

    def _arrive(self, requests: list[LinkedRequest]) -> None:
        if len(self._runtimes) == 1:
            self._runtimes[0].arrive(requests)
            return
        for request in requests:
            self._runtimes[request.endpoint].arrive([request])

    def _cancel(self, request: LinkedRequest) -> None:
        self._runtimes[request.endpoint].cancel(request)
