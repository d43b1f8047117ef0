"""The batcher's end of a connection that brings a command. **Effects.**"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import orjson

from mlproxy.ipc.control import HELLO, MOST_BYTES

logger = logging.getLogger("mlproxy.batcher")

#: A command comes in one piece; whoever begins one and does not end it only keeps a descriptor.
LINE_WITHIN_S = 5.0

#: Does what a command says, and returns what to answer.
Handle = Callable[[dict[str, Any]], dict[str, Any]]


class ControlConnection:
    """Reads one line, has it done, writes one line, and is gone. It keeps itself alive by the loop's reader."""

    def __init__(self, loop: asyncio.AbstractEventLoop, peer: socket.socket, handle: Handle) -> None:
        self._loop = loop
        self._peer = peer
        self._handle = handle
        self._received = b""
        self._timer = loop.call_later(LINE_WITHIN_S, self._close)
        loop.add_reader(peer.fileno(), self._read)

    def __repr__(self) -> str:
        return f"<ControlConnection, {len(self._received)} bytes>"

    def _read(self) -> None:
        try:
            data = self._peer.recv(MOST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += data
        if self._received.endswith(b"\n"):
            self._answer(self._do(self._received[len(HELLO) :]))
        if not data or self._received.endswith(b"\n") or len(self._received) > MOST_BYTES:
            self._close()

    def _close(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._peer.fileno())
        self._peer.close()

    def _do(self, line: bytes) -> dict[str, Any]:
        try:
            return self._handle(orjson.loads(line))
        except Exception as error:  # a command must not end the batcher
            logger.exception("defect in a command")
            return {"error": f"{type(error).__name__}: {error}"}

    def _answer(self, message: dict[str, Any]) -> None:
        try:
            self._peer.send(orjson.dumps(message) + b"\n")  # a line fits into the socket's buffer
        except OSError:
            logger.warning("who gave a command has gone")
