"""Backends that are late, broken, overloaded, wrong or poisoned: who pays, and with what."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from bench.processes import Proxy, wait_until
from tests.system import backends as scripted
from tests.system.backends import Backend, Exchange, Script, echo, in_turn, poisoned_by, running_backend
from tests.system.conftest import StartProxy
from tests.system.raw_http import Caller, Response, ask, read_metric, request

WITHIN_S = 10.0
FRESH_ENDPOINTS = 24  #: at least as many as tests that ask for one; each makes the page of metrics longer
RETRIES = 2
BATCHING = {"policy": "static", "max_size": 16, "max_inflight": 1}


class Endpoint(NamedTuple):
    """A route of the proxy with a backend of its own, and so with an engine and a retry budget of its own."""

    name: str
    proxy: Proxy
    backend: Backend

    def data(self, instance: bytes) -> bytes:
        body = b'{"instances": [%b]}' % instance
        return request("POST", f"/v1/models/{self.name}:predict", ("Content-Type: application/json",), body)

    def ask(self, instance: bytes) -> Response:
        return ask(self.proxy.url, self.data(instance))

    def metric(self, name: str, **labels: str) -> int:
        text = ",".join(f'{key}="{value}"' for key, value in sorted({**labels, "endpoint": self.name}.items()))
        return int(read_metric(self.proxy.admin_url, f"mlproxy_{name}{{{text}}}"))

    def queue_depth(self) -> int:
        listed = ask(self.proxy.admin_url, request("GET", "/api/v1/endpoints")).json()
        return next(int(endpoint["queue_depth"]) for endpoint in listed if endpoint["name"] == self.name)

    def ask_as_one_batch(self, *instances: bytes) -> list[Response]:
        """The answers to requests that leave together, behind a call that is answered rightly and not counted."""
        script, self.backend.script = self.backend.script, echo
        with self.backend.held() as gate, ExitStack() as stack:
            callers = [stack.enter_context(Caller(self.proxy.url)) for _ in range(len(instances) + 1)]
            callers[0].send(self.data(b'"occupies the slot"'))
            assert wait_until(lambda: len(self.backend.predictions) == 1, WITHIN_S)
            for caller, instance in zip(callers[1:], instances, strict=True):
                caller.send(self.data(instance))
            assert wait_until(lambda: self.queue_depth() == len(instances), WITHIN_S)
            gate.let()
            assert callers[0].read_response().status == 200
            assert wait_until(lambda: len(self.backend.predictions) == 2, WITHIN_S)
            assert sorted(self.backend.predictions[1].instances) == sorted(instances)
            del self.backend.requests[0]
            self.backend.script = script
            gate.open()
            return [caller.read_response() for caller in callers[1:]]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def named(authority: trustme.CA) -> Iterator[dict[str, Backend]]:
    """Backends of particular make, by the name of their endpoint."""
    with ExitStack() as stack:
        good, elsewhere = _server_context(authority, "127.0.0.1"), _server_context(authority, "other.example")
        yield {
            "late": stack.enter_context(running_backend(listen=False)),
            "down": stack.enter_context(running_backend(listen=False)),
            "half": stack.enter_context(running_backend()),
            "hasty": stack.enter_context(running_backend()),
            "plain": stack.enter_context(running_backend()),
            "secure": stack.enter_context(running_backend(tls=good)),
            "stranger": stack.enter_context(running_backend(tls=good)),
            "trusting": stack.enter_context(running_backend(tls=good)),
            "misnamed": stack.enter_context(running_backend(tls=elsewhere)),
        }


def _server_context(authority: trustme.CA, host: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    return context


@pytest.fixture(scope="module")
def fresh() -> Iterator[dict[str, Backend]]:
    """Backends for tests that need one to themselves."""
    with ExitStack() as stack:
        yield {f"fresh{number}": stack.enter_context(running_backend()) for number in range(FRESH_ENDPOINTS)}


@pytest.fixture(scope="module")
def proxy(
    start_proxy: StartProxy, named: dict[str, Backend], fresh: dict[str, Backend], authority: trustme.CA,
    tmp_path_factory: pytest.TempPathFactory,
) -> Proxy:  # fmt: skip
    ca_file = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    special = _particulars(named, ca_file)
    return start_proxy(
        {
            "endpoints": [
                {
                    "name": name,
                    "backend": {"urls": [backend.url], "timeout": "10s", "retry": {"attempts": RETRIES}}
                    | special.get(name, {}),
                    "batching": BATCHING,
                }
                for name, backend in {**named, **fresh}.items()
            ]
        }
    )


def _particulars(named: dict[str, Backend], ca_file: Path) -> dict[str, dict[str, Any]]:
    tls = {"tls": {"ca_file": str(ca_file)}}
    return {
        "late": {"retry": {"attempts": 6}},
        "half": {"urls": [named["down"].url, named["half"].url]},
        "hasty": {"timeout": "300ms"},
        "secure": tls,
        "misnamed": tls,
        "trusting": {"tls": {"verify": False}},
    }


@pytest.fixture
def plain(proxy: Proxy, named: dict[str, Backend]) -> Iterator[Endpoint]:
    """One for tests that cost no retry."""
    named["plain"].forget()
    yield Endpoint("plain", proxy, named["plain"])
    assert named["plain"].defects == []


@pytest.fixture
def endpoint(proxy: Proxy, fresh: dict[str, Backend]) -> Iterator[Endpoint]:
    """One that nothing has happened to yet."""
    name, backend = fresh.popitem()
    try:
        yield Endpoint(name, proxy, backend)
        assert backend.defects == []
    finally:
        backend.close()


def assert_answer(response: Response, instance: bytes) -> None:
    assert (response.status, response.body) == (200, b'{"predictions": [%b]}' % instance)


def assert_error(response: Response, status: int, slug: str) -> None:
    assert (response.status, response.json()["type"]) == (status, f"urn:mlproxy:error:{slug}")
    assert response.json()["error"]


# --- answers that are right, in whatever form ------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [scripted.echo_chunked, scripted.echo_after_interim, scripted.echo_and_close, scripted.echo_until_eof,
     scripted.echo_byte_by_byte],
)  # fmt: skip
def test_any_form_of_a_right_answer_is_taken(plain: Endpoint, script: Script) -> None:
    plain.backend.script = script
    for number in range(3):
        assert_answer(plain.ask(b"%d" % number), b"%d" % number)
    assert len(plain.backend.predictions) == 3


def test_a_huge_answer_arrives_whole(plain: Endpoint) -> None:
    huge = b'"%b"' % (b"0123456789abcdef" * 2**20)
    plain.backend.script = lambda exchange: exchange.reply(200, scripted.predictions(exchange.request, [huge]))
    assert_answer(plain.ask(b"1"), huge)


def test_sequential_calls_share_one_connection(endpoint: Endpoint) -> None:
    for number in range(30):
        assert_answer(endpoint.ask(b"%d" % number), b"%d" % number)
    assert endpoint.backend.connections == 1
    assert {call.connection for call in endpoint.backend.predictions} == {1}


def test_a_connection_that_the_backend_closes_after_each_answer_costs_nobody_anything(endpoint: Endpoint) -> None:
    def answer_and_close(exchange: Exchange) -> None:
        echo(exchange)  # without saying that it will close
        exchange.end()

    endpoint.backend.script = answer_and_close
    for number in range(30):
        assert_answer(endpoint.ask(b"%d" % number), b"%d" % number)
    assert endpoint.metric("retries_total", reason="reset") == 0


# --- failures that pass ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [502, 503, 504])
def test_a_gateways_status_is_tried_again(endpoint: Endpoint, code: int) -> None:
    busy = scripted.status(code, b"busy", "text/plain")
    endpoint.backend.script = in_turn(busy, busy, echo)
    assert_answer(endpoint.ask(b"1"), b"1")
    assert len(endpoint.backend.predictions) == 1 + RETRIES
    assert endpoint.metric("retries_total", reason=f"status_{code}") == RETRIES


@pytest.mark.parametrize("breaking", [scripted.cut_off, scripted.hang_up], ids=["in the middle", "without a word"])
def test_a_lost_connection_is_tried_again(endpoint: Endpoint, breaking: Script) -> None:
    endpoint.backend.script = in_turn(breaking, echo)
    for response, instance in zip(endpoint.ask_as_one_batch(b"1", b"2"), (b"1", b"2"), strict=True):
        assert_answer(response, instance)


def test_a_backend_that_is_not_up_yet_is_tried_again(proxy: Proxy, named: dict[str, Backend]) -> None:
    late = Endpoint("late", proxy, named["late"])
    with Caller(proxy.url) as caller:
        caller.send(late.data(b"1"))
        assert wait_until(lambda: late.metric("retries_total", reason="connect") >= 1, WITHIN_S)
        late.backend.listen()
        assert_answer(caller.read_response(), b"1")


def test_a_dead_url_beside_a_live_one_costs_nobody_an_answer(proxy: Proxy, named: dict[str, Backend]) -> None:
    half = Endpoint("half", proxy, named["half"])
    for number in range(20):
        assert_answer(half.ask(b"%d" % number), b"%d" % number)
    assert half.metric("backend_healthy", url=named["down"].url) == 0
    assert half.metric("backend_healthy", url=named["half"].url) == 1


# --- failures that stay ----------------------------------------------------------------------------------------


def test_a_backend_that_stays_down_is_502_after_the_retries(proxy: Proxy, named: dict[str, Backend]) -> None:
    down = Endpoint("down", proxy, named["down"])
    assert_error(down.ask(b"1"), 502, "backend-unavailable")
    assert down.metric("retries_total", reason="connect") == RETRIES


@pytest.mark.parametrize("breaking", [scripted.cut_off, scripted.hang_up], ids=["in the middle", "without a word"])
def test_a_connection_that_is_lost_every_time_is_502_after_the_retries(endpoint: Endpoint, breaking: Script) -> None:
    endpoint.backend.script = breaking
    assert_error(endpoint.ask(b"1"), 502, "backend-unavailable")
    assert len(endpoint.backend.predictions) == 1 + RETRIES


def test_a_batch_that_is_503_every_time_is_an_error_for_each(endpoint: Endpoint) -> None:
    endpoint.backend.script = scripted.status(503, b'{"error": "no capacity"}')
    responses = endpoint.ask_as_one_batch(b"1", b"2", b"3")
    assert {response.status for response in responses} <= {502, 503}
    assert len(endpoint.backend.predictions) > RETRIES


def test_no_answer_in_time_is_504_and_not_tried_again(proxy: Proxy, named: dict[str, Backend]) -> None:
    hasty = Endpoint("hasty", proxy, named["hasty"])
    hasty.backend.script = scripted.never
    with ExitStack() as stack:
        callers = [stack.enter_context(Caller(proxy.url)) for _ in range(3)]
        for caller in callers:
            caller.send(hasty.data(b"1"))
        for caller in callers:
            assert_error(caller.read_response(), 504, "backend-timeout")
    assert sum(len(call.instances) for call in hasty.backend.predictions) == 3
    hasty.backend.script = echo
    assert_answer(hasty.ask(b"2"), b"2")


def test_an_answer_that_stops_in_the_middle_is_504(proxy: Proxy, named: dict[str, Backend]) -> None:
    def stop_in_the_middle(exchange: Exchange) -> None:
        exchange.send(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"predictions": [')
        exchange.wait(lambda: False)

    hasty = Endpoint("hasty", proxy, named["hasty"])
    hasty.backend.script = stop_in_the_middle
    assert_error(hasty.ask(b"1"), 504, "backend-timeout")
    hasty.backend.script = echo
    assert_answer(hasty.ask(b"2"), b"2")


@pytest.mark.parametrize("wrong", [scripted.without_the_last, scripted.with_one_more], ids=["short", "long"])
def test_a_wrong_number_of_predictions_is_502_for_each_of_the_batch(endpoint: Endpoint, wrong: Script) -> None:
    endpoint.backend.script = wrong
    for response in endpoint.ask_as_one_batch(b'"a"', b'"b"', b'"c"'):
        assert_error(response, 502, "backend-contract")
    assert_error(endpoint.ask(b'"alone"'), 502, "backend-contract")


@pytest.mark.parametrize("wrong", [scripted.without_the_last, scripted.with_one_more], ids=["short", "long"])
def test_a_model_that_cannot_batch_still_answers_each_rightly(endpoint: Endpoint, wrong: Script) -> None:
    endpoint.backend.script = lambda exchange: (wrong if len(exchange.request.instances) > 1 else echo)(exchange)
    instances = [b'"a"', b'"b"', b'"c"', b'"d"', b'"e"']
    for response, instance in zip(endpoint.ask_as_one_batch(*instances), instances, strict=True):
        assert_answer(response, instance)


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[1]", b"oops", b'{"predictions": [1', b'{"predictions": [1]} x', b'{"predictions": {"0": 1}}',
     b'{"predictions": 1}', b'{"outputs": [1]}', b'{"predictions": [\xff]}',
     b'{"predictions": [1], "predictions": [2]}', b'{"predictions": [1,]}', b'{"error": "with 200"}',
     b'{"predictions": [' + b"[" * 100_000 + b"]}"],
    ids=lambda body: repr(body[:24]),
)  # fmt: skip
def test_a_reply_that_cannot_be_cut_is_502(plain: Endpoint, body: bytes) -> None:
    plain.backend.script = scripted.status(200, body)
    assert_error(plain.ask(b"1"), 502, "backend-contract")
    plain.backend.script = echo
    assert_answer(plain.ask(b"2"), b"2")


@pytest.mark.parametrize(
    "data",
    [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"\x00" * 64, b"HTTP/1.1 999999 ?\r\n\r\n",
     b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"],
    ids=lambda data: repr(data[:40]),
)  # fmt: skip
def test_a_reply_that_is_not_http_is_502(plain: Endpoint, data: bytes) -> None:
    plain.backend.script = scripted.saying(data)
    assert_error(plain.ask(b"1"), 502, "backend-unavailable")
    plain.backend.script = echo
    assert_answer(plain.ask(b"2"), b"2")


def test_bytes_after_an_answer_are_nobodys_answer(plain: Endpoint) -> None:
    def twice(exchange: Exchange) -> None:
        body, surplus = scripted.predictions(exchange.request), b'{"predictions": ["of nobody"]}'
        # In one packet: what comes only after the next call has left is, in HTTP/1.1, the answer to that call.
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
        exchange.send(head % len(body) + body + head % len(surplus) + surplus)

    plain.backend.script = twice
    for number in range(10):
        assert_answer(plain.ask(b"%d" % number), b"%d" % number)


# --- poison ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [400, 413, 422, 500, 501, 503])
def test_a_poison_instance_fails_alone_with_the_backends_own_words(endpoint: Endpoint, code: int) -> None:
    endpoint.backend.script = poisoned_by(b'"poison"', scripted.status(code, b"its own words", "text/x-own"))
    instances = [b'"%d"' % number for number in range(7)]
    instances.insert(code % 8, b'"poison"')  # somewhere else for each code
    for response, instance in zip(endpoint.ask_as_one_batch(*instances), instances, strict=True):
        if instance == b'"poison"':
            assert (response.status, response.body) == (code, b"its own words")
            assert response.header("content-type") == "text/x-own"
            assert response.header("x-request-id")
        else:
            assert_answer(response, instance)
    assert endpoint.metric("isolated_total", verdict="poison") == 1


def test_what_the_backend_says_about_the_call_is_said_to_everyone_with_one_call(endpoint: Endpoint) -> None:
    def busy(exchange: Exchange) -> None:
        exchange.reply(429, b"come back", "Content-Type: text/x-own", "Retry-After: 17", "Set-Cookie: not=yours")

    endpoint.backend.script = busy
    responses = endpoint.ask_as_one_batch(b'"a"', b'"b"', b'"c"')
    for response in responses:
        assert (response.status, response.body) == (429, b"come back")
        assert (response.header("content-type"), response.header("retry-after")) == ("text/x-own", "17")
        assert response.header("set-cookie") is None
    assert len(endpoint.backend.requests) == 1


def test_an_instance_that_crashes_the_model_server_fails_alone(endpoint: Endpoint) -> None:
    endpoint.backend.script = poisoned_by(b'"poison"', scripted.cut_off)
    instances = [b'"a"', b'"b"', b'"poison"', b'"c"']
    responses = dict(zip(instances, endpoint.ask_as_one_batch(*instances), strict=True))
    assert_error(responses.pop(b'"poison"'), 502, "backend-unavailable")
    for instance, response in responses.items():
        assert_answer(response, instance)


def test_two_poison_instances_fail_and_nobody_else(endpoint: Endpoint) -> None:
    endpoint.backend.script = poisoned_by(b'"poison"', scripted.status(400, b"no"))
    instances = [b'"0"', b'"poison"', b'"2"', b'"3"', b'"4"', b'"5"', b'"poison"', b'"7"']
    for response, instance in zip(endpoint.ask_as_one_batch(*instances), instances, strict=True):
        if instance == b'"poison"':
            assert (response.status, response.body) == (400, b"no")
        else:
            assert_answer(response, instance)


@pytest.mark.parametrize("code", [400, 401, 404, 409, 413, 422, 429, 499])
def test_a_4xx_for_a_request_alone_is_relayed(plain: Endpoint, code: int) -> None:
    plain.backend.script = scripted.status(code, b'{"error": "wrong shape"}')
    response = plain.ask(b"1")
    assert (response.status, response.body) == (code, b'{"error": "wrong shape"}')
    assert response.header("content-type") == "application/json"
    assert len(plain.backend.predictions) == 1


# --- TLS -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["secure", "trusting"])
def test_an_https_backend_is_called_when_its_certificate_is_accepted(
    proxy: Proxy, named: dict[str, Backend], name: str
) -> None:
    secure = Endpoint(name, proxy, named[name])
    for number in range(3):
        assert_answer(secure.ask(b"%d" % number), b"%d" % number)
    assert secure.backend.connections == 1
    assert ask(proxy.url, request("GET", f"/v1/models/{name}")).status == 200


@pytest.mark.parametrize("name", ["stranger", "misnamed"], ids=["unknown authority", "another host's certificate"])
def test_an_https_backend_is_refused_when_its_certificate_is_not_verified(
    proxy: Proxy, named: dict[str, Backend], name: str
) -> None:
    refused = Endpoint(name, proxy, named[name])
    assert_error(refused.ask(b"1"), 502, "backend-unavailable")
    assert_error(ask(proxy.url, request("GET", f"/v1/models/{name}")), 502, "backend-unavailable")
    assert refused.backend.requests == []
