"""The connections to one URL, over a network whose order the test decides."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mlproxy.backend import BackendFailure
from tests.unit.backend.client import SHORT_NS, run, until
from tests.unit.backend.network import Network, World, client_of, turn

STEPS = st.sampled_from(["send", "connected", "refused", "lost", "answer", "cut", "abort", "turn"])


def test_the_timeout_covers_connecting_and_a_connection_that_comes_too_late_serves_the_next_call() -> None:
    async def main() -> None:
        network = Network()
        client = client_of(network)
        await client.ask(timeout_ns=SHORT_NS)
        assert client.kinds() == ["timeout"]
        network.attempts[0].set_result("connected")
        await turn()
        client.send(b"next")
        assert [line.unanswered for line in network.lines] == [[b"next"]]
        assert len(network.attempts) == 1
        await client.pool.close()

    run(main())


def test_a_connection_that_takes_too_long_is_a_connect_failure() -> None:
    async def main() -> None:
        client = client_of(Network(), connect_timeout_ns=SHORT_NS)
        await client.ask()
        assert client.results == [BackendFailure("connect", "no connection to http://127.0.0.1 within 30ms")]

    run(main())


def test_connections_that_are_lost_before_the_loop_hands_them_over_take_up_no_room() -> None:
    async def main() -> None:
        network = Network()
        client = client_of(network, max_connections=2)
        for _ in range(5):
            client.send()
        for number in range(5):
            await turn()
            network.attempts[number].set_result("lost")
            await turn()
        await until(lambda: len(client.results) == 5)
        assert client.kinds() == ["reset"] * 5
        assert repr(client.pool) == "<ConnectionPool http://127.0.0.1: 0 open, 0 idle, 0 connecting, 0 waiting>"

    run(main())


def test_a_closed_pool_opens_nothing_again() -> None:
    async def main() -> None:
        network = Network()
        client = client_of(network, max_connections=2)
        client.send(b"kept")
        await turn()
        network.attempts[0].set_result("connected")
        await turn()
        network.lines[0].answer()
        for number in range(4):  # one on the kept connection, one connecting, two in the line
            client.send(b"%d" % number)
        await turn()
        await client.pool.close()
        await turn()
        assert network.open_attempts() == []
        assert client.bodies() == [b"kept"]

    run(main())


# --- any order -----------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(STEPS, st.integers(0, 5)), max_size=40), st.integers(1, 3))
def test_no_connection_ever_has_two_calls_and_every_call_ends_once(
    steps: list[tuple[str, int]], max_connections: int
) -> None:
    async def main() -> None:
        network = Network()
        client = client_of(network, max_connections=max_connections)
        world = World(network, client)
        for step, choice in steps:
            await world.take(step, choice)
            assert all(line.most_unanswered <= 1 for line in network.lines)
            assert world.connections() <= max_connections
        await world.answer_everything()
        assert sorted(world.ended) == world.expected()
        assert world.connections() == world.counted()
        await client.pool.close()

    run(main())
