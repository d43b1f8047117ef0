"""Opens a TCP connection to whichever of a host's addresses answers first. **Effects.**

RFC 8305 ("happy eyeballs"): addresses in the resolver's order, the next one begun when the one before has failed, or
has said nothing for a while; so one dead address of several costs that while, and not every call. uvloop's own
`create_connection` tries them strictly one after the other, and takes no ``happy_eyeballs_delay``.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

Address: TypeAlias = "tuple[int, int, int, str, Any]"  #: of `socket.getaddrinfo`

#: How long an address may say nothing before the next one is tried too; the RFC's "Connection Attempt Delay".
NEXT_ADDRESS_AFTER_S = 0.25


async def dial(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    """A connected socket. OSError with every address's reason when none can be had; give up by cancelling."""
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    attempts: list[asyncio.Task[socket.socket]] = []
    chosen: socket.socket | None = None
    try:
        chosen = await _first(loop, addresses, attempts)
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(partial(_close_unless, chosen))
    return chosen


async def _first(
    loop: asyncio.AbstractEventLoop, addresses: Sequence[Address], attempts: list[asyncio.Task[socket.socket]]
) -> socket.socket:
    """The first connection of those begun, which are all put into ``attempts``."""
    pending: set[asyncio.Task[socket.socket]] = set()
    failures: list[OSError] = []
    while pending or len(attempts) < len(addresses):
        if len(attempts) < len(addresses):
            attempts.append(loop.create_task(_connect(loop, addresses[len(attempts)])))
            pending.add(attempts[-1])
        patience_s = NEXT_ADDRESS_AFTER_S if len(attempts) < len(addresses) else None
        done, pending = await asyncio.wait(pending, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        for attempt in done:
            failure = attempt.exception()
            if failure is None:
                return attempt.result()
            if not isinstance(failure, OSError):
                raise failure
            failures.append(failure)
    raise _combined(addresses, failures)


async def _connect(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    family, kind, protocol, _, place = address
    connection = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        await loop.sock_connect(connection, place)
    except BaseException:
        connection.close()
        raise
    return connection


def _combined(addresses: Sequence[Address], failures: Sequence[OSError]) -> OSError:
    # Not `strerror`: for every reason uvloop says "Connect call failed" there.
    reasons = dict.fromkeys(os.strerror(failure.errno) if failure.errno else str(failure) for failure in failures)
    where = f" ({len(addresses)} addresses)" if len(addresses) > 1 else ""
    return OSError(failures[0].errno, "; ".join(reasons) + where)


def _close_unless(chosen: socket.socket | None, attempt: asyncio.Task[socket.socket]) -> None:
    """An attempt that came second, or too late."""
    if not attempt.cancelled() and attempt.exception() is None and attempt.result() is not chosen:
        attempt.result().close()
