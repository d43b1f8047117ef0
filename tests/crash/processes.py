"""The processes of a running proxy as the operating system sees them. **Effects.**"""

from __future__ import annotations

import socket

import psutil

from bench.processes import Proxy, wait_until
from tests.system.raw_http import WITHIN_S


def processes(proxy: Proxy) -> dict[str, psutil.Process]:
    """Every process of a running proxy, by the name that ``ps`` shows."""
    supervisor = psutil.Process(proxy.pid)
    return {_title(process): process for process in (supervisor, *supervisor.children(recursive=True))}


def _title(process: psutil.Process) -> str:
    return " ".join(process.cmdline()).strip()


def alive(found: dict[str, psutil.Process]) -> list[str]:
    """Which of them have not ended. (A zombie has: it only waits for whoever is PID 1 here.)"""
    return [name for name, process in found.items() if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ended(proxy: Proxy, within_s: float = 2 * WITHIN_S) -> int | None:
    """Wait for its exit code; None when it does not come."""
    wait_until(lambda: proxy.returncode is not None, within_s)
    return proxy.returncode


def refused(proxy: Proxy) -> bool:
    """Does nobody accept connections any more?"""
    host, port = proxy.url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=WITHIN_S).close()
    except ConnectionError:
        return True
    return False
