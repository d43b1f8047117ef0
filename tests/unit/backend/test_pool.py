"""The connections to one URL, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from contextlib import suppress
from typing import cast

import pytest
import trustme

from mlproxy.backend import BackendFailure, BackendReply
from mlproxy.units import NS_PER_US
from tests.unit.backend.client import LONG_NS, SHORT_NS, Backend, Client, backend, echo, reply, run, silence, until


def test_calls_one_after_the_other_share_one_connection() -> None:
    async def main() -> None:
        async with backend(echo) as (client, accepted):
            for number in range(10):
                result = await client.ask(b"%d" % number)
                assert result == BackendReply(200, b"", b"%d" % number)
            assert [connection.requests for connection in accepted] == [10]
            assert "1 open, 1 idle, 0 connecting, 0 waiting" in repr(client.pool)

    run(main())


def test_a_request_is_the_callers_bytes_under_one_head() -> None:
    async def main() -> bytes:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            client = Client(listener.getsockname()[1])
            client.pool.send(b"/p", b"accept: x\r\n", [b"ab", memoryview(b"cd")], LONG_NS, client.results.append)
            peer, _ = await asyncio.get_running_loop().sock_accept(listener)
            with peer:
                received = b""
                while not received.endswith(b"\r\n\r\nabcd"):
                    received += await asyncio.get_running_loop().sock_recv(peer, 1000)
            await client.pool.close()
            return received.replace(b"%d" % listener.getsockname()[1], b"PORT")

    assert run(main()) == b"POST /p HTTP/1.1\r\nhost: 127.0.0.1:PORT\r\naccept: x\r\ncontent-length: 4\r\n\r\nabcd"


def test_beyond_max_connections_calls_wait_in_line_and_leave_in_order() -> None:
    held: list[tuple[Backend, bytes]] = []

    async def main() -> None:
        async with backend(lambda *call: held.append(call), max_connections=2) as (client, accepted):
            for number in range(6):
                client.send(b"%d" % number)
            served: list[bytes] = []
            while len(served) < 6:
                # One answer at a time: of two on their way at once the kernel may hand over either first.
                await until(lambda: len(served) + len(held) == min(6, 2 + len(served)))
                connection, body = held.pop(0)
                served.append(body)
                echo(connection, body)
            await until(lambda: len(client.results) == 6)
            assert sorted(served[:2]) == [b"0", b"1"]
            assert sorted(client.bodies()) == [b"%d" % number for number in range(6)]
            assert served[2:] == [b"2", b"3", b"4", b"5"]
            assert len(accepted) == 2

    run(main())


def test_a_call_that_is_aborted_in_the_line_is_never_sent() -> None:
    seen: list[bytes] = []
    held: list[tuple[Backend, bytes]] = []

    def script(connection: Backend, body: bytes) -> None:
        seen.append(body)
        held.append((connection, body))

    async def main() -> None:
        async with backend(script, max_connections=1) as (client, _):
            client.send(b"first")
            client.send(b"gone").abort()
            client.send(b"last")
            while len(client.results) < 2:
                await until(lambda: bool(held) or len(client.results) == 2)
                for connection, body in held:
                    echo(connection, body)
                held.clear()
            assert client.bodies() == seen == [b"first", b"last"]

    run(main())


def test_an_aborted_call_makes_room_for_the_next_in_line() -> None:
    async def main() -> None:
        async with backend(silence, max_connections=1) as (client, accepted):
            first = client.send(b"first")
            await until(lambda: len(accepted) == 1 and accepted[0].requests == 1)
            client.send(b"second")
            first.abort()
            await until(lambda: len(accepted) == 2 and accepted[1].requests == 1)
            echo(accepted[1], b"second")
            await until(lambda: bool(client.results))
            assert client.bodies() == [b"second"]

    run(main())


def test_a_kept_connection_that_the_backend_closed_is_replaced_silently() -> None:
    def second_request_meets_the_close(connection: Backend, body: bytes) -> None:
        if connection.requests == 1:
            echo(connection, body)
        else:
            connection.transport.close()

    async def main() -> None:
        async with backend(second_request_meets_the_close) as (client, accepted):
            for number in range(4):
                await client.ask(b"%d" % number)
            assert client.bodies() == [b"0", b"1", b"2", b"3"]
            assert len(accepted) == 4

    run(main())


def test_a_call_on_a_replaced_connection_that_ends_too_is_a_reset() -> None:
    def only_the_first(connection: Backend, body: bytes) -> None:
        if body == b"first":
            echo(connection, body)
        else:
            connection.transport.close()

    async def main() -> None:
        async with backend(only_the_first) as (client, accepted):
            await client.ask(b"first")
            await client.ask(b"second")
            assert client.kinds() == ["answered", "reset"]
            assert len(accepted) == 2

    run(main())


def test_a_connection_closed_while_idle_is_not_used() -> None:
    async def main() -> None:
        async with backend(echo) as (client, accepted):
            await client.ask()
            accepted[0].transport.close()
            await until(lambda: "0 open, 0 idle" in repr(client.pool))
            await client.ask()
            assert client.kinds() == ["answered", "answered"]
            assert len(accepted) == 2

    run(main())


def test_a_backend_that_hangs_up_on_every_caller_costs_each_call_one_reset_and_no_room() -> None:
    async def main() -> None:
        async with backend(silence, max_connections=2) as (client, accepted):
            server_side = Backend.connection_made

            def hang_up(connection: Backend, transport: asyncio.BaseTransport) -> None:
                server_side(connection, transport)
                connection.transport.abort()

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Backend, "connection_made", hang_up)
                for _ in range(100):
                    client.send()
                await until(lambda: len(client.results) == 100)
            assert set(client.kinds()) == {"reset"}
            await until(lambda: "0 open, 0 idle, 0 connecting, 0 waiting" in repr(client.pool))
            assert len(accepted) == 100

    run(main())


def test_nobody_listening_is_a_connect_failure_for_each_call() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = reserved.getsockname()[1]
        client = Client(port, max_connections=1)
        for _ in range(3):
            client.send()
        await until(lambda: len(client.results) == 3)
        assert client.kinds() == ["connect"] * 3
        detail = cast(BackendFailure, client.results[0]).detail
        assert detail.startswith(f"cannot connect to http://127.0.0.1:{port}: ")

    run(main())


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 64])
def test_a_name_that_no_address_can_be_found_for_is_a_connect_failure(host: str) -> None:
    async def main() -> None:
        client = Client(80, host=host)
        await client.ask()
        assert client.kinds() == ["connect"]

    run(main())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def _client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_a_handshake_that_takes_too_long_is_a_connect_failure(authority: trustme.CA) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            client = Client(mute.getsockname()[1], tls=_client_context(authority), connect_timeout_ns=SHORT_NS)
            await client.ask()
            url = f"http://127.0.0.1:{mute.getsockname()[1]}"
            assert client.results == [BackendFailure("connect", f"no connection to {url} within 30ms")]
            assert "0 open, 0 idle, 0 connecting, 0 waiting" in repr(client.pool)

    run(main())


def test_a_backend_that_does_not_speak_tls_is_a_connect_failure_with_a_reason(authority: trustme.CA) -> None:
    async def main() -> None:
        async with backend(silence, tls=_client_context(authority)) as (client, accepted):
            client.send()
            await until(lambda: bool(accepted))
            accepted[0].transport.close()
            await until(lambda: bool(client.results))
            assert client.kinds() == ["connect"]
            # A reset, if the first bytes of the handshake come to a closed socket; else the end of the stream.
            detail = cast(BackendFailure, client.results[0]).detail
            assert "closed in the TLS handshake" in detail or "Connection reset by peer" in detail

    run(main())


def _shake_hands_and_leave(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Until the listener is shut down."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, suppress(OSError):
            context.wrap_socket(connection, server_side=True).close()


def test_whenever_the_time_to_connect_ends_it_is_a_failed_call_and_no_defect(authority: trustme.CA) -> None:
    """Before, in and after dialling and the handshake; a defect ends the batcher."""

    async def main(port: int) -> None:
        context = _client_context(authority)
        kinds = set()
        for timeout_us in range(0, 4000, 25):
            client = Client(port, tls=context, connect_timeout_ns=timeout_us * NS_PER_US)
            for _ in range(4):
                client.send()
            await until(lambda: len(client.results) == 4)  # noqa: B023 - awaited here
            kinds.update(client.kinds())
            await client.pool.close()
        assert kinds == {"connect", "reset"}

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        server = threading.Thread(target=_shake_hands_and_leave, args=(listener, _server_context(authority)))
        server.start()
        try:
            run(main(listener.getsockname()[1]))
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            server.join()


# --- time ----------------------------------------------------------------------------------------------------


def test_the_timeout_covers_a_backend_that_does_not_answer() -> None:
    async def main() -> None:
        async with backend(silence) as (client, accepted):
            await client.ask(timeout_ns=SHORT_NS)
            assert client.kinds() == ["timeout"]
            await until(lambda: "0 open" in repr(client.pool))
            assert [connection.requests for connection in accepted] == [1]

    run(main())


def test_a_kept_connection_that_stays_mute_is_the_last_of_its_age() -> None:
    """A host that is gone without a word takes every kept connection with it: one time-out, not one for each."""

    def script(connection: Backend, body: bytes) -> None:
        if body != b"mute":
            echo(connection, body)

    async def main() -> None:
        async with backend(script) as (client, accepted):
            for _ in range(3):
                client.send()
            await until(lambda: len(client.results) == 3)
            assert "3 open, 3 idle" in repr(client.pool)
            await client.ask(b"mute", timeout_ns=SHORT_NS)
            await until(lambda: "0 open, 0 idle" in repr(client.pool))
            await client.ask()
            assert client.kinds() == ["answered"] * 3 + ["timeout", "answered"]
            assert len(accepted) == 4

    run(main())


@pytest.mark.parametrize(
    ("calls_before", "said"), [(1, b""), (2, b"HTTP/1.1 200 OK\r\n")], ids=["a new connection", "a reply has begun"]
)
def test_a_backend_that_is_only_slow_keeps_its_other_connection(calls_before: int, said: bytes) -> None:
    def script(connection: Backend, body: bytes) -> None:
        connection.transport.write(said if body == b"slow" else reply(body))

    async def main() -> None:
        async with backend(script) as (client, _):
            if calls_before == 1:
                client.send(b"slow", timeout_ns=SHORT_NS)  # takes the first connection, the next call a second one
            for _ in range(calls_before):
                client.send()
            await until(lambda: client.kinds() == ["answered"] * calls_before)
            if calls_before == 2:
                client.send(b"slow", timeout_ns=SHORT_NS)
            await until(lambda: "1 open, 1 idle" in repr(client.pool))
            assert client.kinds()[-1] == "timeout"
            assert not any(connection.closing for connection in client.pool._idle)

    run(main())


def test_the_timeout_covers_waiting_in_line() -> None:
    async def main() -> None:
        async with backend(silence, max_connections=1) as (client, accepted):
            client.send(b"holds the connection")
            await client.ask(b"waits", timeout_ns=SHORT_NS)
            assert client.kinds() == ["timeout"]
            assert [connection.requests for connection in accepted] == [1]

    run(main())
