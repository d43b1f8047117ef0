"""The one timer of an endpoint, on the loop that the batcher runs on."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import uvloop

from mlproxy.config import Endpoint
from mlproxy.engine import Command, Event
from mlproxy.units import NS_PER_MS
from workers.batcher.endpoint import EndpointRuntime


class SleepyEngine:
    """Wants to be woken at ``due_ns``; notes when it was."""

    queued_instances = queued_bytes = in_flight = 0

    def __init__(self) -> None:
        self.due_ns: int | None = None
        self.turns_ns: list[int] = []

    def handle(self, events: list[Event], now_ns: int) -> list[Command]:
        self.turns_ns.append(now_ns)
        if self.due_ns is not None and now_ns >= self.due_ns:
            self.due_ns = None
        return []

    def next_wakeup_ns(self) -> int | None:
        return self.due_ns


class NoMetrics:
    """Takes no notes."""

    def gauges(self, *values: int) -> None:
        """Nobody looks."""


def turns_until_due(in_ns: int) -> tuple[int, list[int]]:
    """The instant at which an engine wanted to be woken, and those at which it was."""

    async def run() -> tuple[int, list[int]]:
        loop, engine, woken = asyncio.get_running_loop(), SleepyEngine(), asyncio.Event()
        endpoint = Endpoint.model_validate({"name": "iris", "backend": {"urls": ["http://127.0.0.1:9"]}})

        def take_a_turn(runtime: EndpointRuntime) -> None:
            now_ns = time.monotonic_ns()
            runtime.turn(now_ns, set())
            runtime.rearm(loop, now_ns)
            if engine.due_ns is None:
                woken.set()

        nothing: Any = None
        runtime = EndpointRuntime(endpoint, cast(Any, engine), nothing, nothing, cast(Any, NoMetrics()), take_a_turn)
        engine.due_ns = due_ns = time.monotonic_ns() + in_ns
        runtime.rearm(loop, time.monotonic_ns())
        await asyncio.wait_for(woken.wait(), 10)
        return due_ns, engine.turns_ns

    return uvloop.run(run())


def test_an_engine_is_woken_when_it_is_due_and_not_over_and_over_until_then() -> None:
    for tenths in range(20):  # at every tenth of a millisecond of the clock
        due_ns, turns_ns = turns_until_due(2 * NS_PER_MS + tenths * NS_PER_MS // 10)
        assert turns_ns[-1] >= due_ns
        assert len(turns_ns) <= 2  # one; libuv's clock may be a coarser one and a millisecond behind
