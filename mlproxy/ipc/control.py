"""Commands to the batcher: a line of JSON each way, over the socket where it meets the workers. **Effects.**

Each command is a connection of its own. The supervisor holds the listening socket, so either end may be replaced in
between: a command waits for the batcher's successor, as long as whoever gave it does.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import orjson

#: How a connection begins that brings a command; a worker's begins otherwise.
HELLO = b"MLPC"
#: Longest line; a command is a few words.
MOST_BYTES = 64 * 1024


class ControlError(Exception):
    """The batcher did not do it; the text says why."""


def command(address: str, message: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """Have the batcher do something, and return what it says about it. Blocks. `ControlError` when it does not."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(timeout_s)
            peer.connect(address)
            peer.sendall(HELLO + orjson.dumps(message) + b"\n")
            with peer.makefile("rb") as lines:
                line = lines.readline(MOST_BYTES)
    except OSError as error:
        raise ControlError(f"the batcher does not answer: {error}") from error
    if not line.endswith(b"\n"):
        raise ControlError("the batcher ended the connection")
    answer: dict[str, Any] = orjson.loads(line)
    if "error" in answer:
        raise ControlError(answer["error"])
    return answer


def is_command(peer: socket.socket) -> bool:
    """Whether a new connection, of which something can be read, brings a command."""
    return peer.recv(len(HELLO), socket.MSG_PEEK) == HELLO
