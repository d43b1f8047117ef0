"""What a caller is told when a request that passes through gets no answer. **Pure.**"""

from __future__ import annotations

import os
import socket
import ssl

import httpx

from mlproxy.config import Backend
from mlproxy.errors import BackendTimeout, BackendUnavailable, ProxyError
from mlproxy.units import format_duration

#: How httpcore and h11 begin to say that a connection was closed; all else is about what came over it.
_CLOSED = ("Server disconnected", "peer closed connection")


def error_of(error: httpx.HTTPError, url: str, backend: Backend) -> ProxyError:
    """What httpx's ``error`` is for a caller: the same status, and nearly the same words, as for a prediction."""
    match error:
        case httpx.ConnectTimeout():
            return BackendUnavailable(f"no connection to {url} within {format_duration(backend.connect_timeout_ns)}")
        case httpx.PoolTimeout():
            return BackendTimeout(f"no connection to {url} was free within {format_duration(backend.timeout_ns)}")
        case httpx.TimeoutException():
            return BackendTimeout(f"{url} did not answer within {format_duration(backend.timeout_ns)}")
        case httpx.ConnectError():
            return BackendUnavailable(f"cannot connect to {url}{_system_reason(error)}")
        case httpx.RemoteProtocolError() if not str(error).startswith(_CLOSED):
            return BackendUnavailable(f"what {url} answers is not HTTP")
        case httpx.RemoteProtocolError() | httpx.ReadError() | httpx.WriteError():
            return BackendUnavailable(f"{url} closed the connection before its answer was complete")
        case _:
            return BackendUnavailable(f"the call to {url} failed")


def _system_reason(error: BaseException) -> str:
    """What the kernel or OpenSSL said, from under the words of the libraries above them."""
    reason, below = "", error.__cause__ or error.__context__
    while below is not None:
        if isinstance(below, ssl.SSLError | socket.gaierror):
            reason = f": {below.strerror}"
        elif isinstance(below, OSError) and below.errno:  # not `strerror`: asyncio says "Connect call failed" there
            reason = f": {os.strerror(below.errno)}"
        below = below.__cause__ or below.__context__
    return reason
