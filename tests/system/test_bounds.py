"""What callers can make the proxy hold is bounded: bytes that come in, time that they take, connections."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from bench.processes import Proxy, running_proxy, wait_until
from tests.crash.callers import pid_of
from tests.system.backends import Backend
from tests.system.conftest import StartProxy
from tests.system.iris import IRIS
from tests.system.raw_http import WITHIN_S, Caller, Response, ask, read_metric, request
from tests.system.test_memory import pss_bytes

MIB = 2**20
QUEUE_BYTES = 8 * MIB
CONNECTIONS = 40
TOLD = 100
BODY_TIMEOUT_S = 3.0
SHED = 'mlproxy_shed_total{endpoint="iris",reason="worker_full"}'


@pytest.fixture(scope="module")
def proxy(start_proxy: StartProxy, shared_backend: Backend) -> Proxy:
    return start_proxy({
        "limits": {
            "body": "4MiB", "queue_bytes": QUEUE_BYTES, "header_timeout": "2s", "body_timeout": "3s",
            "connections": CONNECTIONS,
        },
        "endpoints": [{"name": "iris", "backend": {"urls": [shared_backend.url]}}],
    })  # fmt: skip


def head(*headers: str) -> bytes:
    return request("POST", IRIS, ("Content-Type: application/json", *headers))


def body_of(size: int) -> bytes:
    return b'{"instances": ["%b"]}' % (b"x" * (size - 19))


def assert_shed_and_closed(caller: Caller, response: Response) -> None:
    assert response.status == 503
    assert response.json()["type"] == "urn:mlproxy:error:overloaded"
    assert (response.header("connection"), response.header("retry-after")) == ("close", "1")
    assert caller.read_to_end() == b""


def test_bodies_that_come_in_share_the_queues_bytes_and_the_excess_is_shed(proxy: Proxy, backend: Backend) -> None:
    before = read_metric(proxy.admin_url, SHED)
    body, fitting, all_of_them = body_of(2 * MIB), QUEUE_BYTES // (2 * MIB) - 1, 10
    with ExitStack() as stack:
        callers = [stack.enter_context(Caller(proxy.url)) for _ in range(all_of_them)]
        for caller in callers[:fitting]:
            caller.send(head(f"Content-Length: {len(body)}"), body[:-1])
        assert ask(proxy.url, request("GET", "/healthz")).status == 200  # all of it has been read
        for caller in callers[fitting:]:
            caller.send(head(f"Content-Length: {len(body)}"), body[: MIB + 2])
        assert wait_until(lambda: read_metric(proxy.admin_url, SHED) - before >= all_of_them - fitting - 1, WITHIN_S)
        for caller in callers[:fitting]:
            assert caller.call(body[-1:]).status == 200
        refusals = [(caller, caller.read_response()) for caller in callers[fitting:]]
        assert sorted(response.status for _, response in refusals) == [408, *[503] * 6]  # one more fits, unfinished
        for caller, response in refusals:
            if response.status == 503:
                assert_shed_and_closed(caller, response)
    for _ in range(QUEUE_BYTES // MIB):  # everything has been given back, also of those who left in the middle
        assert ask(proxy.url, head(f"Content-Length: {3 * MIB}") + body_of(3 * MIB)).status == 200


def test_a_body_in_tiny_chunks_takes_no_more_memory_than_its_bytes(proxy: Proxy, backend: Backend) -> None:
    bodies, chunks = 4, MIB // 2
    with ExitStack() as stack:
        callers = [stack.enter_context(Caller(proxy.url)) for _ in range(bodies)]
        before_bytes = pss_bytes(proxy, "mlproxy: ingress 0")
        for caller in callers:
            caller.send(head("Transfer-Encoding: chunked"), b"2\r\n  \r\n" * chunks)
        assert ask(proxy.url, request("GET", "/healthz")).status == 200
        assert pss_bytes(proxy, "mlproxy: ingress 0") - before_bytes < 5 * bodies * MIB  # 28 times as much, as objects


def test_a_body_that_trickles_is_told_408_when_its_time_is_over(proxy: Proxy, backend: Backend) -> None:
    began = time.monotonic()
    with Caller(proxy.url, within_s=0.5) as caller:
        caller.send(head("Content-Length: 1000"))
        response = None
        while response is None and time.monotonic() - began < 3 * BODY_TIMEOUT_S:
            caller.send(b" ")
            try:
                response = caller.read_response()
            except TimeoutError:
                caller.renew()
        assert response is not None
        assert (response.status, response.json()["type"]) == (408, "urn:mlproxy:error:request-timeout")
        assert "limits.body_timeout" in response.json()["detail"]
    assert time.monotonic() - began > BODY_TIMEOUT_S - 1


def test_one_connection_too_many_is_told_so_and_the_next_is_served_when_one_leaves(
    proxy: Proxy, backend: Backend
) -> None:
    with ExitStack() as stack:
        callers = [stack.enter_context(Caller(proxy.url)) for _ in range(CONNECTIONS)]
        for caller in callers:
            assert caller.call(request("GET", "/healthz")).status == 200
        for data in (request("GET", "/readyz"), head("Content-Length: 19") + body_of(19)):
            with Caller(proxy.url) as late:
                assert_shed_and_closed(late, late.call(data))
        assert callers[0].call(head("Content-Length: 20") + body_of(20)).status == 200
        for caller in callers[:3]:
            caller.close()
        assert wait_until(lambda: ask(proxy.url, request("GET", "/healthz")).status == 200, WITHIN_S)


def test_a_worker_without_enough_descriptors_takes_fewer_connections_and_says_so(tmp_path: Path) -> None:
    log = tmp_path / "proxy.log"
    with (
        running_proxy("--backend", "http://127.0.0.1:9", "--name", "iris", "--workers", "1", log=log) as proxy,
        ExitStack() as stack,
    ):
        psutil.Process(proxy.pid).rlimit(psutil.RLIMIT_NOFILE, (220, 220))  # what its next child inherits
        os.kill(pid_of(proxy, "ingress-0"), signal.SIGKILL)
        said = "of limits.connections this worker takes 20, not 10000: it may have 220 descriptors"
        assert wait_until(lambda: said in proxy.log_text(), WITHIN_S)
        for _ in range(20):
            caller = stack.enter_context(Caller(proxy.url))
            assert caller.call(request("GET", "/healthz")).status == 200
        with Caller(proxy.url) as late:
            assert_shed_and_closed(late, late.call(request("GET", "/healthz")))


def test_far_too_many_connections_are_closed_without_a_word(proxy: Proxy, backend: Backend) -> None:
    with ExitStack() as stack:
        for _ in range(CONNECTIONS + TOLD):
            stack.enter_context(Caller(proxy.url))
        with Caller(proxy.url) as beyond:
            assert beyond.read_to_end() == b""
    assert wait_until(lambda: ask(proxy.url, request("GET", "/healthz")).status == 200, WITHIN_S)
