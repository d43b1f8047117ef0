"""A timer to the nanosecond. **Effects**: holds a timerfd.

An event loop's own timers count in whole milliseconds, since epoll does, and would make every latency that starts with
one up to a millisecond too long.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable

from mlproxy.units import NS_PER_S


class InstantTimer:
    """Calls back at an instant of the monotonic clock."""

    class _Spec(ctypes.Structure):
        _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns")]

    def __init__(self, callback: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._callback = callback
        asyncio.get_running_loop().add_reader(self._fd, self._expired)

    def arm(self, at_ns: int) -> None:
        """Once, at ``at_ns``."""
        absolute = 1  # TFD_TIMER_ABSTIME
        spec = self._Spec(0, 0, *divmod(at_ns, NS_PER_S))
        if self._libc.timerfd_settime(self._fd, absolute, ctypes.byref(spec), None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        """Never again."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _expired(self) -> None:
        os.read(self._fd, 8)
        self._callback()
