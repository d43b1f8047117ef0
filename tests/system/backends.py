"""A model server that does exactly what a test tells it to, right or wrong. **Effects**: threads, sockets on loopback.

It answers KServe v1 and JSON lists by echoing: prediction i is the text of instance i, byte for byte, so a test sees
who got what. What it does instead is a `Script`, a function over one `Exchange`. Invariant: nothing of the product is
imported here, so that the two sides of a test do not share their mistakes.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeAlias

from tests.system.received import Recorded, read_body, read_head

Script: TypeAlias = "Callable[[Exchange], None]"

_LOOK_EVERY_S = 0.02


class Exchange:
    """One request, and the connection on which to answer it."""

    def __init__(self, connection: socket.socket, request: Recorded, stopping: threading.Event) -> None:
        self.request = request
        self._connection = connection
        self._stopping = stopping
        self.ended = False

    def send(self, data: bytes) -> None:
        """Raw bytes."""
        self._connection.sendall(data)

    def reply(self, status: int, body: bytes, *headers: str) -> None:
        """A whole response with its length."""
        lines = [f"HTTP/1.1 {status} Scripted", *headers, f"Content-Length: {len(body)}"]
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def end(self) -> None:
        """Close the connection in good order."""
        self.ended = True

    def reset(self) -> None:
        """Close it with a TCP reset."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.ended = True

    def pause(self, seconds: float) -> bool:
        """True afterwards; False at once when the backend stops."""
        return not self._stopping.wait(seconds)

    def left(self) -> bool:
        """Has the proxy closed the connection?"""
        try:
            return self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    def wait(self, ready: Callable[[], bool]) -> None:
        """Until ``ready``, or until the backend stops."""
        while not ready() and not self._stopping.wait(_LOOK_EVERY_S):
            pass


class Gate:
    """Holds calls until they are let through."""

    def __init__(self) -> None:
        self._permits = threading.Semaphore(0)
        self._open = False

    def let(self, calls: int = 1) -> None:
        """Let that many more calls through."""
        self._permits.release(calls)

    def open(self) -> None:
        """Let everything through from now on."""
        self._open = True

    def passes(self) -> bool:
        """Ask once."""
        return self._open or self._permits.acquire(blocking=False)


class Backend:
    """A listening socket, a thread for it, and one for each connection."""

    def __init__(
        self, script: Script | None = None, *, tls: ssl.SSLContext | None = None, listen: bool = True, port: int = 0
    ) -> None:
        self.script: Script = script or echo
        self.requests: list[Recorded] = []
        self.defects: list[str] = []  #: batches that were none, and scripts that raised
        self.connections = 0
        self._tls = tls
        self._gate: Gate | None = None
        self._stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))  # bound but not listening: connections are refused, the port is ours
        if listen:
            self.listen()

    @property
    def url(self) -> str:
        """Where it is, whether it listens or not."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"

    def listen(self) -> None:
        """From now on connections are accepted."""
        self._listener.listen(128)
        self._start(self._accept)

    @property
    def predictions(self) -> list[Recorded]:
        """The batches among the requests, whole ones only."""
        return [request for request in self.requests if request.method == "POST" and request.complete]

    @contextmanager
    def held(self) -> Iterator[Gate]:
        """Every call waits at the gate before it is answered. Afterwards none does."""
        self._gate = gate = Gate()
        try:
            yield gate
        finally:
            self._gate = None
            gate.open()

    def forget(self) -> None:
        """As new: nothing recorded, right answers."""
        self.script = echo
        self.requests = []
        self.defects = []

    def close(self) -> None:
        """End every connection and thread."""
        self._stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        while self._threads:
            self._threads.pop().join()
        self._listener.close()

    # --- threads ---------------------------------------------------------------------------------------------

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._serve, connection, self.connections)

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with self._lock:
                self._open.add(connection)
            self._converse(connection, number)
        except OSError:
            pass  # the proxy left, or refused the certificate
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _converse(self, connection: socket.socket, number: int) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        source = connection.makefile("rb")
        with source:
            while not self._stopping.is_set() and (request := read_head(source, number)) is not None:
                self.requests.append(request)
                read_body(source, request)
                exchange = Exchange(connection, request, self._stopping)
                self._answer(exchange)
                if exchange.ended:
                    return

    def _answer(self, exchange: Exchange) -> None:
        gate = self._gate
        if gate is not None:
            exchange.wait(gate.passes)
        if self._stopping.is_set():
            exchange.end()
            return
        try:
            self.script(exchange)
        except ValueError as error:
            self.defects.append(f"{error} in {bytes(exchange.request.body)!r}")
            exchange.reply(500, b"a defect of the test or of the proxy")


@contextmanager
def running_backend(
    script: Script | None = None, *, tls: ssl.SSLContext | None = None, listen: bool = True, port: int = 0
) -> Iterator[Backend]:
    """A backend that is closed at the end."""
    backend = Backend(script, tls=tls, listen=listen, port=port)
    try:
        yield backend
    finally:
        backend.close()


# --- scripts ---------------------------------------------------------------------------------------------------


def predictions(request: Recorded, items: list[bytes] | None = None) -> bytes:
    """The right answer to a batch, or the one with these items instead."""
    inside = b", ".join(request.instances if items is None else items)
    return b"[" + inside + b"]" if request.body.startswith(b"[") else b'{"predictions": [' + inside + b"]}"


def echo(exchange: Exchange) -> None:
    """The right answer. Anything but POST gets a small document about itself."""
    if exchange.request.method == "POST":
        exchange.reply(200, predictions(exchange.request), "Content-Type: application/json")
    else:
        body = json.dumps({"method": exchange.request.method, "target": exchange.request.target}).encode()
        exchange.reply(200, b"" if exchange.request.method == "HEAD" else body, "Content-Type: application/json")


def echo_chunked(exchange: Exchange) -> None:
    """The right answer in chunks of seven bytes, with an extension and a trailer."""
    exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    body = predictions(exchange.request)
    for start in range(0, len(body), 7):
        piece = body[start : start + 7]
        exchange.send(b"%x;note=1\r\n%b\r\n" % (len(piece), piece))
    exchange.send(b"0\r\nX-Trailer: yes\r\n\r\n")


def echo_after_interim(exchange: Exchange) -> None:
    """``100 Continue`` and ``103 Early Hints`` that nobody asked for, then the right answer."""
    exchange.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
    echo(exchange)


def echo_and_close(exchange: Exchange) -> None:
    """The right answer with ``Connection: close``."""
    exchange.reply(200, predictions(exchange.request), "Connection: close")
    exchange.end()


def echo_until_eof(exchange: Exchange) -> None:
    """The right answer in HTTP/1.0's manner: it ends where the connection ends."""
    exchange.send(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + predictions(exchange.request))
    exchange.end()


def echo_byte_by_byte(exchange: Exchange) -> None:
    """The right answer, every byte in a packet of its own."""
    body = predictions(exchange.request)
    for byte in b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body):
        exchange.send(bytes((byte,)))


def dribble(exchange: Exchange) -> None:
    """The right answer, five bytes of it in a second."""
    body = predictions(exchange.request)
    for byte in b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body):
        exchange.send(bytes((byte,)))
        exchange.pause(0.2)


def head_without_end(exchange: Exchange) -> None:
    """Header after header, until the proxy has enough."""
    exchange.send(b"HTTP/1.1 200 OK\r\n")
    while exchange.pause(0):
        exchange.send(b"X-More: " + b"x" * 1000 + b"\r\n")


def without_the_last(exchange: Exchange) -> None:
    """One prediction too few."""
    exchange.reply(200, predictions(exchange.request, exchange.request.instances[:-1]))


def with_one_more(exchange: Exchange) -> None:
    """One prediction too many."""
    exchange.reply(200, predictions(exchange.request, [*exchange.request.instances, b'"more"']))


def cut_off(exchange: Exchange) -> None:
    """Half of the right answer, then a reset."""
    body = predictions(exchange.request)
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body[: len(body) // 2]))
    exchange.reset()


def hang_up(exchange: Exchange) -> None:
    """Not a word."""
    exchange.end()


def never(exchange: Exchange) -> None:
    """No answer, and the connection stays."""
    exchange.wait(lambda: False)


def saying(data: bytes) -> Script:
    """These bytes, then the end."""

    def script(exchange: Exchange) -> None:
        exchange.send(data)
        exchange.end()

    return script


def status(code: int, body: bytes, content_type: str = "application/json") -> Script:
    """A status of the backend's own."""
    return lambda exchange: exchange.reply(code, body, f"Content-Type: {content_type}")


def in_turn(*scripts: Script) -> Script:
    """The first for the first call, and so on; the last for all that follow."""
    left = list(scripts)
    lock = threading.Lock()

    def script(exchange: Exchange) -> None:
        with lock:
            chosen = left.pop(0) if len(left) > 1 else left[0]
        chosen(exchange)

    return script


def poisoned_by(instance: bytes, outcome: Script) -> Script:
    """``outcome`` for every batch that holds ``instance``; the right answer for the others."""
    return lambda exchange: (outcome if instance in exchange.request.instances else echo)(exchange)
