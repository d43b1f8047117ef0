"""Sockets that a role inherits from the supervisor. **Effects.**"""

from __future__ import annotations

import socket


def inherited_socket(fd: int) -> socket.socket:
    """The listening socket behind ``fd``, not blocking."""
    listener = socket.socket(fileno=fd)
    listener.setblocking(False)
    return listener
