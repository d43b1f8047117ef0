"""Messages as callers really write them: chunked, cut into packets, of old versions, in other spellings."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from bench.processes import Proxy, wait_until
from tests.system.backends import Backend
from tests.system.conftest import BODY_BYTES
from tests.system.iris import IRIS, JSON, answer_to, assert_error, body_of, predict, predict_in_chunks
from tests.system.raw_http import WITHIN_S, Caller, ask, request


def test_expect_100_continue_gets_the_interim_line_before_the_body_is_sent(proxy: Proxy, backend: Backend) -> None:
    head, _, body = predict(b'"patient"', "Expect: 100-continue").partition(b"\r\n\r\n")
    with Caller(proxy.url) as caller:
        for _ in range(2):
            assert caller.call(head + b"\r\n\r\n").status == 100
            assert caller.call(body).body == answer_to(b'"patient"')


def test_expect_100_continue_is_not_encouraged_when_the_answer_is_a_refusal(proxy: Proxy, backend: Backend) -> None:
    data = request("POST", IRIS, (JSON, "Expect: 100-continue", f"Content-Length: {BODY_BYTES + 1}"))
    with Caller(proxy.url) as caller:
        assert_error(caller.call(data), 413, "body-too-large")
        assert caller.read_to_end() == b""


def test_expect_100_continue_waits_for_its_turn_in_a_pipeline(proxy: Proxy, backend: Backend) -> None:
    head, _, body = predict(b'"second"', "Expect: 100-continue").partition(b"\r\n\r\n")
    with backend.held() as gate, Caller(proxy.url) as caller:
        caller.send(predict(b'"first"') + head + b"\r\n\r\n")
        assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
        gate.open()
        assert caller.read_response().body == answer_to(b'"first"')
        assert caller.read_response().status == 100
        assert caller.call(body).body == answer_to(b'"second"')


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_chunked_body_is_taken_whatever_its_chunks(proxy: Proxy, backend: Backend, size: int) -> None:
    instance = b'"%b"' % (b"chunks " * 30)
    body = body_of(instance)
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    assert ask(proxy.url, predict_in_chunks(pieces)).body == answer_to(instance)


def test_chunk_extensions_and_trailers_are_skipped(proxy: Proxy, backend: Backend) -> None:
    body = body_of(b'"x"')
    data = request("POST", IRIS, (JSON, "Transfer-Encoding: chunked"))
    data += b'%X;name="value"\r\n%b\r\n0\r\nX-Trailer: yes\r\n\r\n' % (len(body), body)
    with Caller(proxy.url) as caller:
        assert caller.call(data).body == answer_to(b'"x"')
        assert caller.call(predict(b'"next"')).body == answer_to(b'"next"')


def test_a_chunked_body_over_the_limit_is_refused_while_it_comes(proxy: Proxy, backend: Backend) -> None:
    with Caller(proxy.url) as caller:
        caller.send(request("POST", IRIS, (JSON, "Transfer-Encoding: chunked")))
        piece = b"%x\r\n%b\r\n" % (2**20, b" " * 2**20)
        for _ in range(BODY_BYTES // 2**20 + 1):
            caller.send(piece)
        assert_error(caller.read_response(), 413, "body-too-large")
        assert caller.read_to_end() == b""


# --- packets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["length", "chunks", "known head"])
def test_a_request_split_at_any_byte_is_the_same_request(proxy: Proxy, backend: Backend, kind: str) -> None:
    data = predict_in_chunks([b'{"instances"', b': ["split"]}']) if kind == "chunks" else predict(b'"split"')
    with ExitStack() as stack:
        positions = range(1, len(data))
        callers = [stack.enter_context(Caller(proxy.url)) for _ in positions]
        if kind == "known head":
            for caller in callers:
                assert caller.call(data).status == 200
        for caller, position in zip(callers, positions, strict=True):
            caller.send(data[:position])
        # One worker: its loop has read all the first parts before it answers what came after them.
        assert ask(proxy.url, request("GET", "/healthz")).status == 200
        for caller, position in zip(callers, positions, strict=True):
            caller.send(data[position:])
        for caller, position in zip(callers, positions, strict=True):
            response = caller.read_response()
            assert (response.status, response.body) == (200, answer_to(b'"split"')), f"split at byte {position}"


def test_a_request_sent_byte_by_byte_is_the_same_request(proxy: Proxy, backend: Backend) -> None:
    data = predict(b'"drop by drop"')
    with Caller(proxy.url) as caller:
        caller.send(*(data[position : position + 1] for position in range(len(data))))
        assert caller.read_response().body == answer_to(b'"drop by drop"')


def test_two_requests_cut_at_any_byte_of_the_second_are_two_requests(proxy: Proxy, backend: Backend) -> None:
    first, second = predict(b'"one"'), predict(b'"two"')
    with ExitStack() as stack:
        cuts = range(1, len(second), 3)
        callers = [stack.enter_context(Caller(proxy.url)) for _ in cuts]
        for caller, cut in zip(callers, cuts, strict=True):
            caller.send(first + second[:cut])
        for caller, cut in zip(callers, cuts, strict=True):
            assert caller.read_response().body == answer_to(b'"one"')
            caller.send(second[cut:])
            assert caller.read_response().body == answer_to(b'"two"')


# --- versions and connections ----------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [(), ("Connection: keep-alive",)], ids=["plain", "keep-alive"])
def test_http_1_0_is_answered_and_closed(proxy: Proxy, backend: Backend, headers: tuple[str, ...]) -> None:
    with Caller(proxy.url) as caller:
        response = caller.call(predict(b'"old"', *headers).replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert (response.status, response.body) == (200, answer_to(b'"old"'))
        assert response.header("connection") == "close"
        assert caller.read_to_end() == b""


def test_connection_close_is_obeyed_and_said(proxy: Proxy, backend: Backend) -> None:
    with Caller(proxy.url) as caller:
        response = caller.call(predict(b'"last"', "Connection: close"))
        assert (response.body, response.header("connection")) == (answer_to(b'"last"'), "close")
        assert caller.read_to_end() == b""


@pytest.mark.parametrize(
    "offer",
    [
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
        ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x"),
    ],
    ids=["h2c", "websocket"],
)
def test_an_offered_upgrade_is_served_as_http_1_1(proxy: Proxy, backend: Backend, offer: tuple[str, ...]) -> None:
    with Caller(proxy.url) as caller:
        for number in range(2):
            assert caller.call(predict(b'"%d"' % number, *offer)).body == answer_to(b'"%d"' % number)
        head, _, body = predict(b'"split"', *offer).partition(b"\r\n\r\n")
        caller.send(head + b"\r\n\r\n" + body[:5])
        assert ask(proxy.url, request("GET", "/healthz", offer)).status == 200
        assert caller.call(body[5:]).body == answer_to(b'"split"')


@pytest.mark.parametrize(
    "target",
    [
        IRIS + "?verbose=1",
        "/v1/models/iris%3Apredict",
        "/v1/models/%69ris:predict?a=%20",
        "http://proxy" + IRIS,  # RFC 9112 §3.2.2: a server MUST accept the absolute form
    ],
)
def test_other_spellings_of_the_route_are_the_route(proxy: Proxy, backend: Backend, target: str) -> None:
    response = ask(proxy.url, request("POST", target, (JSON,), body_of(b'"same"')))
    assert (response.status, response.body) == (200, answer_to(b'"same"'))
    assert response.header("x-mlproxy-batch-size") == "1"
