"""Who connects to the batcher's socket keeps a descriptor of it: not for long, if it is nobody."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from workers.batcher.service import BatcherService


def ends(sent: bytes) -> bool:
    """Does the batcher end a connection that says this much, and no more?"""

    async def connect() -> bool:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as stranger:
            listener.bind(f"\0mlproxy-test-{os.getpid()}-{os.urandom(8).hex()}")
            listener.listen()
            service = BatcherService(loop, listener, max_backlog_bytes=2**20)
            service.start([])
            stranger.setblocking(False)
            await loop.sock_connect(stranger, listener.getsockname())
            await loop.sock_sendall(stranger, sent)
            try:
                return await asyncio.wait_for(loop.sock_recv(stranger, 1), 1) == b""
            except TimeoutError:
                return False
            finally:
                service.close()

    return asyncio.run(connect())


def test_who_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.batcher.service.GREETING_WITHIN_S", 0.05)
    assert ends(b"")


def test_another_user_is_let_go_before_it_has_said_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    assert ends(b"")
