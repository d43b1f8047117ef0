"""A command is done once its line is whole, answered in a line, and ends nobody."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from mlproxy.ipc.control import HELLO, MOST_BYTES
from workers.batcher.control import ControlConnection


def tell(*pieces: bytes, end: bool = False) -> tuple[bytes, list[dict[str, Any]]]:
    """What is answered to these pieces, and the commands that were done."""
    done: list[dict[str, Any]] = []

    def handle(message: dict[str, Any]) -> dict[str, Any]:
        done.append(message)
        return {"lanes": 10 // message["divisor"]}

    async def converse(pieces: Sequence[bytes]) -> bytes:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        ControlConnection(loop, theirs, handle)
        answer = b""
        for piece in pieces:
            await loop.sock_sendall(ours, piece)
            for _ in range(3):
                await asyncio.sleep(0)
        if end:
            ours.shutdown(socket.SHUT_WR)
        while data := await loop.sock_recv(ours, MOST_BYTES):
            answer += data
        ours.close()
        return answer

    return asyncio.run(asyncio.wait_for(converse(pieces), 5)), done


def test_a_line_in_pieces_is_one_command() -> None:
    answer, done = tell(HELLO, b'{"divi', b'sor": 2}', b"\n")
    assert (orjson.loads(answer), done) == ({"lanes": 5}, [{"divisor": 2}])


@pytest.mark.parametrize("line", [b'{"divisor": 0}\n', b"{}\n", b"no json\n", b"[]\n"])
def test_a_command_that_cannot_be_done_is_told_so(line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    answer, _ = tell(HELLO + line)
    assert "error" in orjson.loads(answer)
    assert "defect in a command" in caplog.text


def test_half_a_line_is_no_command() -> None:
    assert tell(HELLO + b'{"divisor": 2}', end=True) == (b"", [])


def test_who_begins_a_line_and_does_not_end_it_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.batcher.control.LINE_WITHIN_S", 0.05)
    assert tell(HELLO + b'{"divi') == (b"", [])


def test_a_line_without_an_end_ends_the_connection() -> None:
    assert tell(HELLO, b"x" * 40_000, b"x" * 40_000) == (b"", [])
