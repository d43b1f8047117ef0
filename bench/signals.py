"""Work that a signal ends in an orderly way. **Effects**: handles SIGINT and SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class Interrupted(Exception):
    """A signal came, and everything has been cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.exit_code = 128 + number


async def until_signalled(work: Awaitable[T]) -> T:
    """Cancel ``work`` on the first SIGINT or SIGTERM and let it clean up; the ones after that change nothing."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    caught: list[int] = []

    def stop(number: int) -> None:
        caught.append(number)
        if len(caught) == 1:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not caught:
            raise
        raise Interrupted(caught[0]) from None
    finally:  # closing the loop leaves a handler that does nothing (uvloop 0.23)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
