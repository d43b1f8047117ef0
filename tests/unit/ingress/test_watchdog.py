"""The sweep over all connections, with a loop and connections that only pretend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from mlproxy.units import NS_PER_MS, NS_PER_S
from workers.ingress.phase import Phase
from workers.ingress.watchdog import DISCARD_S, KEEP_ALIVE_S, LONGEST_DISCARD_S, SEND_TIMEOUT_S, Watchdog

if TYPE_CHECKING:
    from uvicorn.server import ServerState

    from workers.ingress.door import Door

HEADER_TIMEOUT_S = 3
BODY_TIMEOUT_S = 20


class Timer:
    """A pending `FakeLoop.call_later`."""

    def __init__(self, due: float, callback: Callable[[], object]) -> None:
        self.due = due
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """Time passes when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        self.timers.append(Timer(self.now + delay, callback))
        return self.timers[-1]

    def advance(self, seconds: int) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.due <= end and not timer.cancelled]:
            timer = min(due, key=lambda timer: timer.due)
            self.timers.remove(timer)
            self.now = timer.due
            timer.callback()
        self.now = end


@dataclass(eq=False)
class Transport:
    """Remembers how it was ended."""

    unsent_bytes: int = 0
    ended: str = ""

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"


@dataclass(eq=False)
class Connection:
    """What the watchdog looks at."""

    active_tick: int = 0
    began_tick: int = 0
    sent_tick: int = 0
    unsent_bytes: int = 0
    phase: Phase = Phase.IDLE
    reading_paused: bool = False
    transport: Transport = field(default_factory=Transport)

    @property
    def flow(self) -> SimpleNamespace:
        return SimpleNamespace(read_paused=self.reading_paused)

    def time_out(self, limit: str) -> None:
        self.transport.ended = limit


class World:
    """A watchdog that has been started, over one connection (or more)."""

    def __init__(self, *connections: Connection, header_timeout_ns: int = HEADER_TIMEOUT_S * NS_PER_S) -> None:
        self.loop = FakeLoop()
        limits = SimpleNamespace(header_timeout_ns=header_timeout_ns, body_timeout_ns=BODY_TIMEOUT_S * NS_PER_S)
        self.door = SimpleNamespace(tick=0, limits=limits)
        self.state = SimpleNamespace(connections=set(connections))
        self.watchdog = Watchdog(
            cast(asyncio.AbstractEventLoop, self.loop), cast("Door", self.door), cast("ServerState", self.state)
        )
        self.watchdog.start()

    def seconds_until_ended(self, connection: Connection, most: int = 200) -> tuple[int, str] | None:
        """When and how ``connection`` is ended; None: not at all."""
        for second in range(1, most + 1):
            self.loop.advance(1)
            if connection.transport.ended:
                return second, connection.transport.ended
        return None


def test_an_idle_connection_is_closed_after_the_keep_alive_time() -> None:
    connection = Connection()
    assert World(connection).seconds_until_ended(connection) == (KEEP_ALIVE_S + 1, "closed")


def test_a_connection_in_use_is_never_idle() -> None:
    connection = Connection()
    world = World(connection)
    for _ in range(5):
        assert world.seconds_until_ended(connection, most=KEEP_ALIVE_S - 1) is None
        connection.active_tick = world.door.tick
    assert world.seconds_until_ended(connection) == (KEEP_ALIVE_S + 1, "closed")


def test_who_waits_for_an_answer_may_wait() -> None:
    connection = Connection(phase=Phase.ANSWERING)
    assert World(connection).seconds_until_ended(connection) is None


def test_a_head_has_the_header_timeout_from_its_first_byte_whatever_trickles_in() -> None:
    connection = Connection()
    world = World(connection)
    world.loop.advance(10)
    connection.phase, connection.began_tick = Phase.HEAD, world.door.tick
    for second in range(1, HEADER_TIMEOUT_S + 1):
        connection.active_tick = world.door.tick
        assert world.seconds_until_ended(connection, most=1) is None, second
    assert world.seconds_until_ended(connection, most=1) == (1, "limits.header_timeout")


def test_a_body_has_the_header_timeout_from_its_latest_byte() -> None:
    connection = Connection(phase=Phase.PREDICTION_BODY)
    world = World(connection)
    for _ in range(5):
        assert world.seconds_until_ended(connection, most=HEADER_TIMEOUT_S) is None
        connection.active_tick = world.door.tick
    assert world.seconds_until_ended(connection) == (HEADER_TIMEOUT_S + 1, "limits.header_timeout")


def test_a_prediction_has_the_body_timeout_however_it_trickles() -> None:
    connection = Connection(phase=Phase.PREDICTION_BODY)
    world = World(connection)
    for second in range(1, BODY_TIMEOUT_S + 1):
        connection.active_tick = world.door.tick
        assert world.seconds_until_ended(connection, most=1) is None, second
    connection.active_tick = world.door.tick
    assert world.seconds_until_ended(connection, most=1) == (1, "limits.body_timeout")


def test_an_upload_that_passes_through_may_take_its_time_as_long_as_it_goes_on() -> None:
    connection = Connection(phase=Phase.PASSING_BODY)
    world = World(connection)
    for _ in range(10 * BODY_TIMEOUT_S):
        connection.active_tick = world.door.tick
        assert world.seconds_until_ended(connection, most=1) is None
    assert world.seconds_until_ended(connection) == (HEADER_TIMEOUT_S, "limits.header_timeout")


def test_a_request_that_trickles_is_late_whatever_of_earlier_answers_is_still_untaken() -> None:
    connection = Connection(phase=Phase.HEAD, transport=Transport(unsent_bytes=1000))
    assert World(connection).seconds_until_ended(connection) == (HEADER_TIMEOUT_S + 1, "limits.header_timeout")


def test_a_refused_caller_that_never_pauses_is_closed_nevertheless() -> None:
    connection = Connection(phase=Phase.DISCARDING)
    world = World(connection)
    for second in range(1, LONGEST_DISCARD_S + 1):
        connection.active_tick = world.door.tick
        assert world.seconds_until_ended(connection, most=1) is None, second
    assert world.seconds_until_ended(connection, most=1) == (1, "closed")


def test_a_body_that_nobody_reads_is_not_its_callers_fault() -> None:
    connection = Connection(phase=Phase.PREDICTION_BODY, reading_paused=True)
    assert World(connection).seconds_until_ended(connection) is None


@pytest.mark.parametrize(("timeout_ns", "seconds"), [(1, 1), (NS_PER_S, 1), (1500 * NS_PER_MS, 2)])
def test_a_header_timeout_is_rounded_up_to_whole_seconds(timeout_ns: int, seconds: int) -> None:
    connection = Connection(phase=Phase.HEAD)
    world = World(connection, header_timeout_ns=timeout_ns)
    assert world.seconds_until_ended(connection) == (seconds + 1, "limits.header_timeout")


def test_a_refused_caller_may_go_on_sending_for_a_short_while() -> None:
    connection = Connection(phase=Phase.DISCARDING)
    assert World(connection).seconds_until_ended(connection) == (DISCARD_S + 1, "closed")


def test_a_refused_connection_stays_for_the_answers_that_are_still_due() -> None:
    connection = Connection(phase=Phase.ANSWERING)
    world = World(connection)
    assert world.seconds_until_ended(connection, most=10 * DISCARD_S) is None
    connection.phase = Phase.DISCARDING
    assert world.seconds_until_ended(connection) == (1, "closed")


def test_a_caller_that_takes_nothing_of_its_answer_is_given_up() -> None:
    connection = Connection(transport=Transport(unsent_bytes=1000))
    found = World(connection).seconds_until_ended(connection)
    assert found == (SEND_TIMEOUT_S + 2, "aborted")  # the first sweep sees how much there is


def test_a_caller_that_takes_its_answer_slowly_gets_it() -> None:
    connection = Connection(transport=Transport(unsent_bytes=1000))
    world = World(connection)
    for _ in range(5):
        assert world.seconds_until_ended(connection, most=SEND_TIMEOUT_S - 1) is None
        connection.transport.unsent_bytes -= 1
    connection.transport.unsent_bytes = 0
    assert world.seconds_until_ended(connection, most=10) is None


def test_one_connection_does_not_answer_for_another() -> None:
    idle, busy = Connection(), Connection(phase=Phase.ANSWERING)
    assert World(idle, busy).seconds_until_ended(idle) is not None
    assert busy.transport.ended == ""


def test_a_connection_may_leave_during_the_sweep() -> None:
    idle = [Connection() for _ in range(3)]
    world = World(*idle)
    for connection in idle:
        connection.transport.close = world.state.connections.clear  # type: ignore[method-assign]
    world.loop.advance(KEEP_ALIVE_S + 2)
    assert world.state.connections == set()


def test_it_sweeps_once_per_second_until_it_is_stopped() -> None:
    world = World()
    world.loop.advance(5)
    assert world.door.tick == 5
    world.watchdog.stop()
    world.loop.advance(5)
    assert world.door.tick == 5
    assert all(timer.cancelled for timer in world.loop.timers)
