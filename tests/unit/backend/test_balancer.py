"""The choice of a URL, with pools and a clock that the test owns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlproxy.backend import BackendCall, BackendFailure, BackendReply, BackendUrl, Balancer, ConnectionPool
from mlproxy.backend.balancer import FIRST_AVOIDANCE_S, LONGEST_AVOIDANCE_S

OK = BackendReply(200, b"", b"")
REFUSED = BackendFailure("connect", "refused")
Result = BackendReply | BackendFailure


class Clock:
    """A loop's clock, and nothing else of a loop."""

    now = 1000.0

    def time(self) -> float:
        return self.now


class Pool:
    """Holds its calls until the test ends them."""

    def __init__(self) -> None:
        self.url = BackendUrl.parse("http://model:9000")
        self.calls: list[BackendCall] = []
        self.closed = False

    def __repr__(self) -> str:
        return "<Pool>"

    def send(
        self, path: bytes, headers: bytes, body: Sequence[bytes], timeout_ns: int, on_done: Callable[[Result], None]
    ) -> BackendCall:
        self.calls.append(BackendCall(body, on_done))
        return self.calls[-1]

    async def close(self) -> None:
        self.closed = True


class World:
    """A balancer over some pools, and what it reported."""

    def __init__(self, urls: int, jitter: float = 1.0) -> None:
        self.clock = Clock()
        self.pools = [Pool() for _ in range(urls)]
        self.health: list[tuple[int, bool]] = []
        self.results: list[Result] = []
        self.balancer = Balancer(
            cast("list[ConnectionPool]", self.pools),
            cast(asyncio.AbstractEventLoop, self.clock),
            endpoint="m",
            on_health=lambda url, healthy: self.health.append((url, healthy)),
            jitter=lambda: jitter,
        )
        self.health.clear()  # what it says at the start has a test of its own

    def send(self) -> int:
        """Send a call; which URL got it."""
        before = [len(pool.calls) for pool in self.pools]
        self.balancer.send(b"/", b"", [b"body"], 1, self.results.append)
        [chosen] = [url for url, pool in enumerate(self.pools) if len(pool.calls) > before[url]]
        return chosen

    def end(self, url: int, result: Result = OK) -> None:
        """The oldest call of ``url`` ends."""
        next(call for call in self.pools[url].calls if not call.done).finish(result)

    def fail(self, url: int) -> None:
        """A call to ``url``, which is not being avoided, cannot connect."""
        assert url in [self.send() for _ in self.pools]
        self.pools[url].calls[-1].finish(REFUSED)
        self.abort_all()

    def avoided(self, url: int) -> bool:
        """Whether ``url`` loses against one that is busier."""
        chosen = [self.send() for _ in self.pools]
        self.abort_all()
        return url not in chosen

    def abort_all(self) -> None:
        for pool in self.pools:
            for call in pool.calls:
                call.abort()


def test_every_url_counts_as_healthy_until_something_is_known() -> None:
    said: list[tuple[int, bool]] = []
    pools = cast("list[ConnectionPool]", [Pool(), Pool()])
    loop = cast(asyncio.AbstractEventLoop, Clock())
    Balancer(pools, loop, endpoint="m", on_health=lambda url, healthy: said.append((url, healthy)))
    assert said == [(0, True), (1, True)]


def test_the_url_with_the_fewest_outstanding_calls_is_next() -> None:
    world = World(3)
    assert {world.send(), world.send(), world.send()} == {0, 1, 2}
    world.end(1)
    assert world.send() == 1
    world.end(2)
    assert world.send() == 2


def test_idle_urls_take_turns() -> None:
    world = World(3)
    order = []
    for _ in range(6):
        order.append(world.send())
        world.end(order[-1])
    assert order == [0, 1, 2, 0, 1, 2]


def test_the_result_reaches_the_caller_once() -> None:
    world = World(2)
    failure = BackendFailure("reset", "gone")
    for result in (OK, REFUSED, failure):
        world.end(world.send(), result)
    assert world.results == [OK, REFUSED, failure]


@given(st.lists(st.sampled_from(["send", "answer", "refuse", "abort"]), max_size=60), st.integers(1, 4))
def test_what_is_outstanding_is_what_was_sent_and_has_not_ended(steps: list[str], urls: int) -> None:
    world = World(urls)
    out: list[BackendCall] = []
    for step in steps:
        if step == "send":
            out.append(world.pools[world.send()].calls[-1])
        elif out and step == "abort":
            out.pop(0).abort()
        elif out:
            out.pop(0).finish(OK if step == "answer" else REFUSED)
    for pool, upstream in zip(world.pools, world.balancer._upstreams, strict=True):
        assert upstream.outstanding == sum(not call.done for call in pool.calls)


def test_an_aborted_call_no_longer_counts_and_never_ends() -> None:
    world = World(2)
    assert world.send() == 0
    assert world.send() == 1
    world.pools[0].calls[0].abort()
    world.pools[0].calls[0].abort()
    assert world.send() == 0
    assert world.results == []


# --- health --------------------------------------------------------------------------------------------------


def test_a_url_that_cannot_be_connected_to_is_avoided_for_a_while() -> None:
    world = World(2)
    world.fail(0)
    assert world.health == [(0, False)]
    assert world.avoided(0)
    world.clock.now += FIRST_AVOIDANCE_S * 0.99
    assert world.avoided(0)
    world.clock.now += FIRST_AVOIDANCE_S * 0.02
    assert not world.avoided(0)


def test_the_while_doubles_with_every_failure_up_to_a_bound() -> None:
    world = World(2)
    lengths = []
    for _ in range(9):
        world.fail(0)
        lengths.append(world.balancer._upstreams[0].avoided_until - world.clock.now)
        world.clock.now += lengths[-1]
        assert not world.avoided(0)
    doubled = [FIRST_AVOIDANCE_S * 2**failures for failures in range(9)]
    assert lengths == pytest.approx([min(LONGEST_AVOIDANCE_S, length) for length in doubled])


def test_jitter_shortens_the_while_by_at_most_half() -> None:
    world = World(2, jitter=0.0)
    world.fail(0)
    assert world.balancer._upstreams[0].avoided_until == pytest.approx(world.clock.now + FIRST_AVOIDANCE_S / 2)


def test_when_all_are_avoided_the_one_whose_while_ends_first_is_tried() -> None:
    world = World(2)
    world.fail(1)
    world.clock.now += FIRST_AVOIDANCE_S / 2
    assert world.send() == 0
    world.end(0, REFUSED)
    assert [world.send(), world.send()] == [1, 1]


@pytest.mark.parametrize("result", [OK, BackendReply(500, b"", b""), BackendFailure("timeout", "slow")])
def test_a_url_that_is_connected_to_again_is_healthy_whatever_it_says(result: Result) -> None:
    world = World(1)
    world.fail(0)
    world.fail(0)
    assert world.health == [(0, False), (0, False)]
    world.send()
    world.end(0, result)
    assert world.health[2:] == [(0, True)]
    world.send()
    world.end(0, result)
    assert world.health[3:] == []
    assert world.balancer._upstreams[0].avoided_until == 0


@pytest.mark.parametrize("kind", ["reset", "timeout", "protocol", "too_large"])
def test_a_url_that_answers_badly_is_not_avoided(kind: str) -> None:
    world = World(2)
    first = world.send()
    world.end(first, BackendFailure(kind, "x"))  # type: ignore[arg-type]
    assert world.health == []
    assert not world.avoided(first)


def test_the_log_tells_of_lost_health_of_found_health_and_of_bad_answers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mlproxy.backend")
    world = World(1)
    for result in (REFUSED, REFUSED, BackendReply(503, b"", b""), BackendFailure("timeout", "slow"), OK):
        world.send()
        world.end(0, result)
    world.clock.now += 10
    for result in (BackendReply(404, b"", b""), BackendFailure("timeout", "slow")):
        world.send()
        world.end(0, result)
    where = "endpoint=m url=http://model:9000"
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", f"backend unhealthy {where} reason='refused'"),
        ("INFO", f"backend healthy again {where} after=0.0s"),
        ("WARNING", f"backend call failed {where} reason='it answered 503'"),
        ("WARNING", f"backend call failed {where} reason='slow' (1 more since the last such line)"),
    ]


def test_closing_closes_every_pool_and_the_repr_shows_them() -> None:
    world = World(2)
    world.send()
    upstreams = "<Upstream <Pool>, 1 outstanding, 0 failures in a row>, <Upstream <Pool>, 0 outstanding, 0 failures"
    assert upstreams in repr(world.balancer)
    asyncio.run(world.balancer.close())
    assert [pool.closed for pool in world.pools] == [True, True]
