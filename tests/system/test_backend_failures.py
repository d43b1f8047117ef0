"""Backends that are late, broken, overloaded, wrong or poisoned: who pays, and with what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from bench.processes import Proxy, wait_until
from tests.system import backends as scripted
from tests.system.backends import Backend, Exchange, Script, echo, in_turn, poisoned_by, running_backend
from tests.system.conftest import StartProxy
from tests.system.endpoint import Endpoint, assert_answer, assert_error
from tests.system.raw_http import WITHIN_S, Caller

FRESH_ENDPOINTS = 30  #: at least as many as tests that ask for one; each makes the page of metrics longer
RETRIES = 2
BATCHING = {"policy": "static", "max_size": 16, "max_inflight": 1}


@pytest.fixture(scope="module")
def named() -> Iterator[dict[str, Backend]]:
    """Backends of particular make, by the name of their endpoint."""
    with ExitStack() as stack:
        yield {
            "late": stack.enter_context(running_backend(listen=False)),
            "down": stack.enter_context(running_backend(listen=False)),
            "half": stack.enter_context(running_backend()),
            "hasty": stack.enter_context(running_backend()),
            "plain": stack.enter_context(running_backend()),
        }


@pytest.fixture(scope="module")
def fresh() -> Iterator[dict[str, Backend]]:
    """Backends for tests that need one to themselves."""
    with ExitStack() as stack:
        yield {f"fresh{number}": stack.enter_context(running_backend()) for number in range(FRESH_ENDPOINTS)}


@pytest.fixture(scope="module")
def proxy(start_proxy: StartProxy, named: dict[str, Backend], fresh: dict[str, Backend]) -> Proxy:
    special = _particulars(named)
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


def _particulars(named: dict[str, Backend]) -> dict[str, dict[str, Any]]:
    return {
        "late": {"retry": {"attempts": 6}},
        "half": {"urls": [named["down"].url, named["half"].url]},
        "hasty": {"timeout": "300ms"},
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


def test_an_answer_that_comes_too_slowly_is_504(proxy: Proxy, named: dict[str, Backend]) -> None:
    hasty = Endpoint("hasty", proxy, named["hasty"])
    hasty.backend.script = scripted.dribble
    assert_error(hasty.ask(b"1"), 504, "backend-timeout")
    hasty.backend.script = echo
    assert_answer(hasty.ask(b"2"), b"2")


def test_a_head_without_end_is_502(plain: Endpoint) -> None:
    plain.backend.script = scripted.head_without_end
    assert_error(plain.ask(b"1"), 502, "backend-unavailable")
    plain.backend.script = echo
    assert_answer(plain.ask(b"2"), b"2")


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


# --- what the operator reads -----------------------------------------------------------------------------------


def test_the_log_names_the_endpoint_the_url_and_the_reason_once(endpoint: Endpoint) -> None:
    endpoint.backend.script = scripted.status(500, b"oops")
    for number in range(5):
        assert endpoint.ask(b"%d" % number).status == 500
    where = f"endpoint={endpoint.name} url={endpoint.backend.url}"
    assert endpoint.proxy.log_text().count(where) == 1
    assert f"warning batcher backend call failed {where} reason='it answered 500'" in endpoint.proxy.log_text()


@pytest.mark.parametrize(
    ("script", "reason"),
    [(scripted.without_the_last, "the backend answered 0 items, not 1"),
     (scripted.status(200, b"oops"), "the backend's reply is not valid JSON: ")],
    ids=["short", "garbage"],
)  # fmt: skip
def test_a_reply_that_answers_nobody_is_told_and_counted_as_a_broken_contract(
    endpoint: Endpoint, script: Script, reason: str
) -> None:
    endpoint.backend.script = script
    assert_error(endpoint.ask(b"1"), 502, "backend-contract")
    told = endpoint.proxy.log_text().partition(f"endpoint={endpoint.name} url={endpoint.backend.url} reason=")[2]
    assert told[1:].startswith(reason)
    assert endpoint.metric("backend_duration_seconds_count", code="contract") == 1


def test_the_log_tells_when_a_backend_that_was_down_is_back(endpoint: Endpoint) -> None:
    url = endpoint.backend.url
    endpoint.backend.close()
    assert_error(endpoint.ask(b"1"), 502, "backend-unavailable")
    unhealthy = f"backend unhealthy endpoint={endpoint.name} url={url} reason='cannot connect to {url}: "
    assert endpoint.proxy.log_text().count(unhealthy) == 1
    with running_backend(port=int(url.rpartition(":")[2])):
        assert_answer(endpoint.ask(b"2"), b"2")
    assert f"backend healthy again endpoint={endpoint.name} url={url} after=" in endpoint.proxy.log_text()


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


def test_poison_that_was_found_once_goes_alone_from_then_on_until_it_is_answered(endpoint: Endpoint) -> None:
    backend = endpoint.backend
    backend.script = poisoned_by(b'"poison"', scripted.status(422, b"its own words"))
    endpoint.ask_as_one_batch(b'"0"', b'"poison"', b'"2"')
    with backend.held() as gate, ExitStack() as stack:
        callers = [stack.enter_context(Caller(endpoint.proxy.url)) for _ in range(5)]
        before = len(backend.predictions)
        callers[0].send(endpoint.data(b'"occupies the slot"'))
        assert wait_until(lambda: len(backend.predictions) == before + 1, WITHIN_S)
        for caller, instance in zip(callers[1:], (b'"poison"', b'"4"', b'"5"', b'"poison"'), strict=True):
            caller.send(endpoint.data(instance))
        assert wait_until(lambda: endpoint.queue_depth() == 4, WITHIN_S)
        gate.open()
        responses = [caller.read_response() for caller in callers[1:]]
    assert [response.status for response in responses] == [422, 200, 200, 422]
    calls = [call.instances for call in backend.predictions[before + 1 :]]
    assert calls == [[b'"poison"'], [b'"4"', b'"5"'], [b'"poison"']]
    assert endpoint.metric("isolated_total", verdict="poison") == 3
    backend.forget()
    assert_answer(endpoint.ask(b'"poison"'), b'"poison"')
    backend.forget()
    endpoint.ask_as_one_batch(b'"7"', b'"poison"')


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
