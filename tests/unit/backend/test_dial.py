"""Which of a host's addresses is connected to, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mlproxy.backend import dial as dial_module
from mlproxy.backend.dial import dial
from tests.unit.backend.client import run

Place = tuple[str, int]


def open_sockets() -> int:
    return sum(fd.is_socket() for fd in Path("/proc/self/fd").iterdir())


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    before = open_sockets()
    yield
    assert open_sockets() == before


@pytest.fixture
def live() -> Iterator[Place]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()


@pytest.fixture
def refusing() -> Iterator[Place]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()


@pytest.fixture
def silent() -> Iterator[Place]:
    """Its line of waiting connections is full: the kernel drops whoever asks, as a host that is gone would."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        while True:
            asking = stack.enter_context(socket.socket())
            asking.settimeout(0.1)
            try:
                asking.connect(listener.getsockname())
            except TimeoutError:
                break
        yield listener.getsockname()


async def dial_a_name_of(*places: Place, within_s: float = 10) -> Place:
    """Where the connection led."""
    loop = asyncio.get_running_loop()

    resolve = loop.getaddrinfo

    async def resolved(host: str, port: int, **hints: Any) -> list[Any]:
        if host != "several.example":  # uvloop asks again for every address
            return await resolve(host, port, **hints)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", place) for place in places]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "getaddrinfo", resolved)
        try:
            async with asyncio.timeout(within_s):
                with await dial(loop, "several.example", 80) as connection:
                    place: Place = connection.getpeername()
        finally:
            cancelled = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.gather(*cancelled, return_exceptions=True)
    return place


def test_an_address_is_connected_to(live: Place) -> None:
    async def main() -> Place:
        with await dial(asyncio.get_running_loop(), *live) as connection:
            place: Place = connection.getpeername()
            return place

    assert run(main()) == live


def test_an_address_of_eight_groups_is_connected_to() -> None:
    async def main(place: tuple[str, int, int, int]) -> None:
        with await dial(asyncio.get_running_loop(), "::1", place[1]) as connection:
            assert connection.getpeername() == place

    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listener:
        run(main(listener.getsockname()))


def test_after_an_address_that_refuses_the_next_is_tried_at_once(
    refusing: Place, live: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial_module, "NEXT_ADDRESS_AFTER_S", 3600)
    assert run(dial_a_name_of(refusing, refusing, live)) == live


def test_an_address_that_says_nothing_is_not_waited_for_long(silent: Place, live: Place) -> None:
    assert run(dial_a_name_of(silent, live, within_s=0.9)) == live  # the kernel would try for two minutes


def test_when_all_refuse_the_reason_says_so(refusing: Place) -> None:
    with pytest.raises(ConnectionRefusedError, match=r"Connection refused \(2 addresses\)"):
        run(dial_a_name_of(refusing, refusing))


def test_who_gives_up_leaves_no_attempt_behind(silent: Place) -> None:
    with pytest.raises(TimeoutError):
        run(dial_a_name_of(silent, silent, within_s=0.4))


def test_of_two_that_answer_one_is_closed(live: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_module, "NEXT_ADDRESS_AFTER_S", 0)
    assert run(dial_a_name_of(live, live, live)) == live
