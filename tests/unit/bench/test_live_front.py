"""The HTTP side of the emulated cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import orjson
import pytest

from bench.live.emulation import configuration_for
from bench.live.front import PREDICT, Front, HttpCall
from mlproxy.config import Configuration
from mlproxy.simulate import proxy_for

Exchange = Callable[[asyncio.StreamReader, asyncio.StreamWriter, list[HttpCall]], Awaitable[None]]


def exchange(talk: Exchange, on_call: Callable[[HttpCall], None] = HttpCall.answer) -> tuple[int, int]:
    """Let ``talk`` use a connection; how many calls came and how many were lost."""

    async def run() -> tuple[int, int]:
        calls: list[HttpCall] = []
        lost: list[HttpCall] = []

        def come(call: HttpCall) -> None:
            calls.append(call)
            on_call(call)

        front = Front(come, lost.append)
        url = await front.listen()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        try:
            async with asyncio.timeout(10):
                await talk(reader, writer, calls)
                writer.close()
                await writer.wait_closed()
                while front.connections:  # noqa: ASYNC110 - a set sets no Event
                    await asyncio.sleep(0.001)
        finally:
            writer.close()
            await front.close()
        return len(calls), len(lost)

    return asyncio.run(run())


def request(method: str, path: str, body: bytes = b"") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def response(reader: asyncio.StreamReader) -> tuple[int, object]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return int(head.split()[1]), orjson.loads(await reader.readexactly(length))


def asked(
    method: str, path: str, body: bytes = b"", on_call: Callable[[HttpCall], None] = HttpCall.answer
) -> tuple[int, object]:
    """What is answered, twice on the same connection."""
    answers: list[tuple[int, object]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, calls: list[HttpCall]) -> None:
        for _ in range(2):
            writer.write(request(method, path, body))
            answers.append(await response(reader))

    exchange(talk, on_call)
    assert answers[0] == answers[1]
    return answers[0]


def test_every_instance_comes_back_as_its_own_prediction_and_the_connection_is_kept() -> None:
    assert asked("POST", PREDICT, b'{"instances": [1, [2], "c"]}') == (200, {"predictions": [1, [2], "c"]})


def test_a_failed_call_is_answered_503() -> None:
    def fail(call: HttpCall) -> None:
        call.failed = True
        call.answer()

    assert asked("POST", PREDICT, b'{"instances": [1]}', fail) == (503, {"error": "pending request queue full"})


def test_the_model_is_ready() -> None:
    assert asked("GET", "/v1/models/emulated") == (200, {"name": "emulated", "ready": True})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"instances": []}', b'{"instances": 1}'])
def test_what_is_no_list_of_instances_is_refused(body: bytes) -> None:
    status, _ = asked("POST", PREDICT, body)
    assert status == 400


def test_other_paths_are_not_there() -> None:
    status, _ = asked("POST", "/elsewhere", b"{}")
    assert status == 404


def test_a_call_whose_caller_leaves_is_lost_and_not_answered_any_more() -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, calls: list[HttpCall]) -> None:
        writer.write(request("POST", PREDICT, b'{"instances": [1]}'))
        while not calls:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    assert exchange(leave, on_call=lambda call: None) == (1, 1)


def test_the_real_proxy_is_configured_as_the_simulated_one() -> None:
    simulated = proxy_for(
        "slo", slo="1s", share=0.95, changes=[("batching.max_size", 32), ("limits.queue_instances", 7)]
    )
    travelled = Configuration.from_json(configuration_for(simulated, "http://127.0.0.1:9").to_json())
    (endpoint,) = travelled.endpoints
    assert endpoint.backend.urls == ("http://127.0.0.1:9",)
    assert (endpoint.batching, endpoint.slo) == (simulated.endpoint.batching, simulated.endpoint.slo)
    assert endpoint.backend.scaling == simulated.endpoint.backend.scaling
    assert travelled.limits == simulated.limits
