"""A simulated timeline on the real clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from bench.live.clock import Clock
from mlproxy.simulate.timeline import Timeline
from mlproxy.units import NS_PER_MS

Log = list[tuple[str, int]]


def with_clock(drive: Callable[[Timeline, Clock, Log], Awaitable[None]], planned: list[tuple[int, str]]) -> Log:
    """What ``drive`` made happen: names, and the instants at which the timeline says that they happened."""

    async def run() -> Log:
        timeline, log = Timeline(), Log()
        for at_ns, name in planned:
            timeline.at(at_ns, lambda name: log.append((name, timeline.now_ns)), name)
        clock = Clock(timeline)
        try:
            await drive(timeline, clock, log)
        finally:
            clock.close()
        return log

    return asyncio.run(run())


async def until(length: int, log: Log) -> None:
    async with asyncio.timeout(10):
        while len(log) < length:  # noqa: ASYNC110 - a list sets no Event
            await asyncio.sleep(0.001)


def test_what_is_late_happens_at_the_instant_for_which_it_was_planned() -> None:
    async def block(timeline: Timeline, clock: Clock, log: Log) -> None:
        time.sleep(0.02)  # noqa: ASYNC251 - no timer can fire meanwhile, which is the point
        await until(2, log)
        assert clock.late_ns
        assert clock.late_ns[0] >= 15 * NS_PER_MS

    log = with_clock(block, [(3 * NS_PER_MS, "b"), (NS_PER_MS, "a")])
    assert log == [("a", NS_PER_MS), ("b", 3 * NS_PER_MS)]


def test_what_was_planned_before_comes_before_what_comes_from_outside() -> None:
    async def block(timeline: Timeline, clock: Clock, log: Log) -> None:
        time.sleep(0.02)  # noqa: ASYNC251
        clock.happen(lambda name: log.append((name, timeline.now_ns)), "from outside")
        assert [name for name, _ in log] == ["planned", "from outside"]

    (_, planned_ns), (_, outside_ns) = with_clock(block, [(5 * NS_PER_MS, "planned")])
    assert planned_ns == 5 * NS_PER_MS
    assert outside_ns >= 20 * NS_PER_MS


def test_nothing_happens_once_it_is_closed() -> None:
    async def come_too_late(timeline: Timeline, clock: Clock, log: Log) -> None:
        clock.close()
        clock.happen(lambda name: log.append((name, 0)), "too late")

    assert with_clock(come_too_late, [(3600 * 1000 * NS_PER_MS, "in an hour")]) == []


def test_an_earlier_alarm_is_not_kept_waiting_by_a_later_one() -> None:
    async def plan_earlier(timeline: Timeline, clock: Clock, log: Log) -> None:
        clock.happen(lambda name: log.append((name, clock.now_ns)), "soon", 5 * NS_PER_MS)
        await until(1, log)

    ((_, happened_ns),) = with_clock(plan_earlier, [(3600 * 1000 * NS_PER_MS, "in an hour")])
    assert happened_ns >= 5 * NS_PER_MS
