"""The backend client: pooled HTTP/1.1 calls on httptools, by callback. **Effects.**

Measured against the alternatives in one process at 32 connections: about 16 CPU-µs per call here, 32 on asyncio
streams, over 4,000 with httpx.
"""

from mlproxy.backend.balancer import Balancer
from mlproxy.backend.call import BackendCall, BackendFailure, BackendReply
from mlproxy.backend.pool import ConnectionPool
from mlproxy.backend.url import BackendUrl, tls_context

__all__ = [
    "BackendCall",
    "BackendFailure",
    "BackendReply",
    "BackendUrl",
    "Balancer",
    "ConnectionPool",
    "tls_context",
]
