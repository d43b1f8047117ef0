"""The sockets that outlive the processes using them. **Effects.**"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass

from mlproxy.config import Configuration

#: Connections that the kernel holds until a worker accepts them; Uvicorn's default, capped by net.core.somaxconn.
BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class Sockets:
    """All listening sockets of a running proxy."""

    data: list[socket.socket]  #: one per ingress worker, all on the same port; the kernel spreads connections
    admin: socket.socket
    rendezvous: socket.socket

    @property
    def address(self) -> str:
        """``host:port`` of the data port."""
        return format_address(self.data[0])

    @property
    def admin_address(self) -> str:
        """``host:port`` of the admin port."""
        return format_address(self.admin)

    @property
    def rendezvous_name(self) -> str:
        """The abstract name, as ``connect`` takes it."""
        name: bytes = self.rendezvous.getsockname()
        return name.decode()

    def stop_accepting(self) -> None:
        """Close this process's copies of the data sockets."""
        for listener in self.data:
            listener.close()

    def close(self) -> None:
        """Close everything."""
        self.stop_accepting()
        self.admin.close()
        self.rendezvous.close()


def bind(configuration: Configuration, workers: int) -> Sockets:
    """Bind everything, or nothing: OSError names the address that is taken.

    Each worker has its own socket with SO_REUSEPORT and this process keeps them all open, so connections that were
    waiting for a worker that died are accepted by its successor.
    """
    if configuration.server.port:
        # With SO_REUSEPORT alone a second proxy of the same user would bind too, and take half of the traffic.
        _listen(configuration.server.host, configuration.server.port, shared=False).close()
    with ExitStack() as undo:
        first = undo.enter_context(_listen(configuration.server.host, configuration.server.port))
        port = first.getsockname()[1]
        others = [undo.enter_context(_listen(configuration.server.host, port)) for _ in range(workers - 1)]
        admin = undo.enter_context(_listen(configuration.admin.host, configuration.admin.port, shared=False))
        rendezvous = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        rendezvous.bind(f"\0mlproxy-{os.getpid()}-{os.urandom(8).hex()}")
        rendezvous.listen(BACKLOG)
        undo.pop_all()
    return Sockets([first, *others], admin, rendezvous)


def format_address(listener: socket.socket) -> str:
    """``host:port`` of a bound TCP socket."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen(host: str, port: int, *, shared: bool = True) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        # Not os.strerror: a name that does not resolve has an error number of getaddrinfo's.
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener
