"""HTTP on the data port as callers really speak it: pipelines, split packets, old versions, slow callers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack, suppress

import pytest

from bench.processes import Proxy, wait_until
from tests.system.backends import Backend, never
from tests.system.backends import status as saying_status
from tests.system.conftest import StartProxy
from tests.system.raw_http import Caller, Response, ask, chunked, read_metric, request

IRIS = "/v1/models/iris:predict"
HEADER_BYTES = 8192
BODY_BYTES = 8 * 2**20
WITHIN_S = 10.0
JSON = "Content-Type: application/json"


@pytest.fixture(scope="module")
def proxy(start_proxy: StartProxy, shared_backend: Backend) -> Proxy:
    batching = {"policy": "static", "max_size": 64, "max_inflight": 1}
    return start_proxy({
        "limits": {"header": HEADER_BYTES, "body": BODY_BYTES, "header_timeout": "1s"},
        "endpoints": [
            {"name": "iris", "backend": {"urls": [shared_backend.url], "timeout": "20s"}, "batching": batching}
        ],
    })  # fmt: skip


def body_of(instance: bytes) -> bytes:
    return b'{"instances": [' + instance + b"]}"


def answer_to(instance: bytes) -> bytes:
    return b'{"predictions": [' + instance + b"]}"


def predict(instance: bytes, *headers: str) -> bytes:
    return request("POST", IRIS, (JSON, *headers), body_of(instance))


def predict_in_chunks(pieces: Sequence[bytes], *headers: str) -> bytes:
    return request("POST", IRIS, (JSON, "Transfer-Encoding: chunked", *headers)) + chunked(pieces)


def assert_error(response: Response, status: int, slug: str) -> None:
    """A whole error document of docs/http.md."""
    assert response.status == status
    document = response.json()
    assert document["status"] == status
    assert document["type"] == f"urn:mlproxy:error:{slug}"
    assert document["error"] == document["detail"] != ""
    assert document["title"]
    assert document["instance"] == f"urn:request:{response.header('x-request-id')}"


# --- pipelines -------------------------------------------------------------------------------------------------


def test_pipelined_predictions_in_one_packet_are_answered_in_order(proxy: Proxy, backend: Backend) -> None:
    with Caller(proxy.url) as caller:
        caller.send(b"".join(predict(b'"%d"' % number) for number in range(20)))
        for number in range(20):
            assert caller.read_response().body == answer_to(b'"%d"' % number)


def test_hot_and_other_routes_in_one_packet_are_answered_in_order(proxy: Proxy, backend: Backend) -> None:
    steps = [
        (predict(b'"first"'), 200, answer_to(b'"first"')),
        (request("GET", "/healthz"), 200, b'{"status":"ok"}'),
        (predict_in_chunks([b'{"instances"', b': ["second"]}']), 200, answer_to(b'"second"')),
        (request("GET", "/v1/models/iris"), 200, b'{"method": "GET", "target": "/v1/models/iris"}'),
        (request("GET", "/nowhere"), 404, None),
        (predict(b"not json"), 400, None),
        (request("PUT", IRIS, (JSON,), body_of(b"1")), 405, None),
        (predict(b'"third"'), 200, answer_to(b'"third"')),
        (request("GET", "/healthz"), 200, b'{"status":"ok"}'),
        (predict(b'"fourth"'), 200, answer_to(b'"fourth"')),
    ]
    with Caller(proxy.url) as caller:
        caller.send(b"".join(data for data, _, _ in steps))
        for number, (_, status, body) in enumerate(steps):
            response = caller.read_response()
            assert response.status == status, f"step {number}: {response}"
            assert body is None or response.body == body


def test_a_later_answer_waits_for_an_earlier_one(proxy: Proxy, backend: Backend) -> None:
    with backend.held() as gate, Caller(proxy.url) as caller:
        caller.send(predict(b'"slow"') + request("GET", "/healthz") + predict(b"refused"))
        assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
        gate.open()
        assert [caller.read_response().status for _ in range(3)] == [200, 200, 400]


def test_a_thousand_refused_requests_behind_a_waiting_one_are_answered_in_turn(proxy: Proxy, backend: Backend) -> None:
    with backend.held() as gate, Caller(proxy.url) as caller:
        caller.send(predict(b'"slow"') + 1000 * predict(b"refused") + predict(b'"last"'))
        assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
        gate.open()
        assert [caller.read_response().status for _ in range(1002)] == [200, *[400] * 1000, 200]


def test_connection_close_in_the_middle_of_a_pipeline_ends_it_there(proxy: Proxy, backend: Backend) -> None:
    with Caller(proxy.url) as caller:
        caller.send(predict(b'"a"') + predict(b'"b"', "Connection: close") + predict(b'"never answered"'))
        assert caller.read_response().body == answer_to(b'"a"')
        last = caller.read_response()
        assert (last.body, last.header("connection")) == (answer_to(b'"b"'), "close")
        assert caller.read_to_end() == b""


@pytest.mark.parametrize(
    "broken",
    [
        b"NOT HTTP\r\n\r\n",
        request("POST", IRIS, (JSON, "Transfer-Encoding: chunked")) + b"zz\r\n",
        request("POST", "/v1/models/iris/x", ("Transfer-Encoding: chunked",)) + b"zz\r\n",
    ],
    ids=["head", "body of a prediction", "body that passes through"],
)
def test_what_is_broken_behind_a_waiting_request_costs_only_itself(
    proxy: Proxy, backend: Backend, broken: bytes
) -> None:
    with backend.held() as gate, Caller(proxy.url) as caller:
        caller.send(predict(b'"good"') + broken)
        assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
        gate.open()
        assert caller.read_response().body == answer_to(b'"good"')
        # Whether it is told 400 is open; that the connection ends is not.
        assert caller.read_to_end()[:12] in (b"", b"HTTP/1.1 400")


# --- bodies ----------------------------------------------------------------------------------------------------


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


# --- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_predict_route_takes_post_only(proxy: Proxy, backend: Backend, method: str) -> None:
    body = body_of(b"1") if method in ("PUT", "PATCH") else None
    with Caller(proxy.url) as caller:
        response = caller.call(request(method, IRIS, (), body), to_head=method == "HEAD")
        assert (response.status, response.header("allow")) == (405, "POST")
        if method != "HEAD":
            assert_error(response, 405, "method-not-allowed")
        assert caller.call(predict(b'"goes on"')).body == answer_to(b'"goes on"')
    assert len(backend.requests) == 1


@pytest.mark.parametrize(
    "target",
    ["/", "/nowhere", "/v1/models", "/v1/models/iris2", "/v1/models/other:predict", "/v1/models/irisx:predict"],
)
def test_an_unknown_path_is_404(proxy: Proxy, backend: Backend, target: str) -> None:
    with Caller(proxy.url) as caller:
        assert_error(caller.call(request("GET", target)), 404, "endpoint-not-found")
        assert_error(caller.call(request("POST", target, (JSON,), b"{}")), 404, "endpoint-not-found")
    assert backend.requests == []


@pytest.mark.parametrize(
    "header",
    ["Content-Type: text/html", "Content-Type: image/png", "Content-Type: application/xml; charset=utf-8",
     "Content-Type: multipart/form-data; boundary=x", "Content-Encoding: gzip", "Content-Encoding: br, gzip"],
)  # fmt: skip
def test_a_type_or_encoding_that_is_not_json_is_415(proxy: Proxy, backend: Backend, header: str) -> None:
    with Caller(proxy.url) as caller:
        assert_error(caller.call(request("POST", IRIS, (header,), body_of(b"1"))), 415, "unsupported-media-type")
    assert backend.requests == []


@pytest.mark.parametrize(
    "headers",
    [(), ("Content-Type: application/json; charset=utf-8",), ("Content-Type: application/x-www-form-urlencoded",),
     ("content-type: Application/JSON",), ("Content-Type: application/vnd.model+json",),
     (JSON, "Content-Encoding: identity")],
)  # fmt: skip
def test_json_by_another_name_is_taken(proxy: Proxy, backend: Backend, headers: tuple[str, ...]) -> None:
    assert ask(proxy.url, request("POST", IRIS, headers, body_of(b"1"))).body == answer_to(b"1")


@pytest.mark.parametrize("target", [IRIS, "/v1/models/iris", "/healthz"])
@pytest.mark.parametrize("shape", ["one header", "many headers", "target", "without an end"])
def test_a_head_over_the_limit_is_431(proxy: Proxy, backend: Backend, target: str, shape: str) -> None:
    long = {
        "one header": request("POST", target, ("X-Long: " + "x" * HEADER_BYTES,), b"{}"),
        "many headers": request("POST", target, [f"X-{n}: {'x' * 90}" for n in range(HEADER_BYTES // 90)], b"{}"),
        "target": request("POST", f"{target}?{'x' * HEADER_BYTES}", (), b"{}"),
        "without an end": request("POST", target, ["X-Long: " + "x" * 2 * HEADER_BYTES])[:-4],
    }[shape]
    with Caller(proxy.url) as caller:
        response = caller.call(long)
        assert_error(response, 431, "header-too-large")
        assert response.header("connection") == "close"
        assert caller.read_to_end() == b""
    assert backend.requests == []


@pytest.mark.parametrize("target", [IRIS, "/healthz"])
@pytest.mark.parametrize("hosts", [b"", b"Host: a\r\nHost: a\r\n"], ids=["none", "two"])
def test_http_1_1_takes_exactly_one_host(proxy: Proxy, backend: Backend, target: str, hosts: bytes) -> None:
    data = request("POST", target, (JSON,), body_of(b"1"))
    host = next(line for line in data.splitlines(keepends=True) if line.lower().startswith(b"host:"))
    with Caller(proxy.url) as caller:
        assert_error(caller.call(data.replace(host, hosts)), 400, "bad-request")
        assert caller.read_to_end() == b""
    assert backend.requests == []


@pytest.mark.parametrize("target", [IRIS, "/v1/models/iris/x"])
def test_trailers_are_bounded_like_a_head(proxy: Proxy, backend: Backend, target: str) -> None:
    backend.script = saying_status(200, b'{"predictions": [1]}')
    trailers = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 1000) for number in range(20 * HEADER_BYTES // 1000))
    headers = (JSON, "Connection: close", "Transfer-Encoding: chunked")
    body = b"%x\r\n%b\r\n0\r\n" % (len(body_of(b"1")), body_of(b"1"))
    with Caller(proxy.url) as caller:
        with suppress(ConnectionError):
            caller.send(request("POST", target, headers) + body, trailers, b"\r\n")
        assert caller.read_to_end()[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 431")


def test_a_head_below_the_limit_is_taken(proxy: Proxy, backend: Backend) -> None:
    headers = [f"X-{number}: {'x' * 60}" for number in range(HEADER_BYTES // 100)]
    assert ask(proxy.url, predict(b"1", *headers)).body == answer_to(b"1")


def assert_timed_out(caller: Caller) -> None:
    response = caller.read_response()
    assert_error(response, 408, "request-timeout")
    assert response.header("connection") == "close"
    assert caller.read_to_end() == b""


def test_callers_that_stall_in_a_head_or_a_body_are_told_408(proxy: Proxy, backend: Backend) -> None:
    head, body, in_chunks = predict(b"1")[:40], predict(b"1")[:-3], predict_in_chunks([body_of(b"1")])[:-8]
    with ExitStack() as stack:
        callers = [stack.enter_context(Caller(proxy.url)) for _ in range(4)]
        assert callers[3].call(predict(b"1")).status == 200
        for caller, stalled in zip(callers, (head, body, in_chunks, body), strict=True):
            caller.send(stalled)
        for caller in callers:
            assert_timed_out(caller)
    assert len(backend.predictions) == 1


def test_a_caller_that_stalls_in_a_body_that_passes_through_is_told_408(proxy: Proxy, backend: Backend) -> None:
    with Caller(proxy.url) as caller:
        caller.send(request("POST", "/v1/models/iris/x", ("Content-Length: 10",)) + b"12345")
        assert_timed_out(caller)
    assert backend.predictions == []


def test_a_caller_that_waits_for_a_slow_backend_is_not_stalled(proxy: Proxy, backend: Backend) -> None:
    with backend.held() as gate, Caller(proxy.url) as waiting, Caller(proxy.url) as stalled:
        waiting.send(predict(b'"waits"'))
        assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
        assert stalled.call(b"POST ").status == 408  # longer than header_timeout has passed
        gate.open()
        assert waiting.read_response().body == answer_to(b'"waits"')


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("application/problem+json", "application/problem+json"),
        ("application/json, application/problem+json;q=0.5", "application/problem+json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
    ],
)
def test_an_error_is_a_problem_document_when_that_is_accepted(
    proxy: Proxy, backend: Backend, accept: str, content_type: str
) -> None:
    headers = (f"Accept: {accept}", "X-Request-Id: mine")
    for data, status, slug in [
        (request("POST", IRIS, headers, b"{"), 400, "bad-request"),
        (request("GET", "/nowhere", headers), 404, "endpoint-not-found"),
        (request("GET", IRIS, headers), 405, "method-not-allowed"),
    ]:
        response = ask(proxy.url, data)
        assert_error(response, status, slug)
        assert response.header("content-type") == content_type
        assert response.header("x-request-id") == "mine"


@pytest.mark.parametrize("target", [IRIS, "/v1/models/iris/x"])
def test_a_transfer_coding_that_is_not_undone_is_refused(proxy: Proxy, backend: Backend, target: str) -> None:
    coded = request("POST", target, (JSON, "Transfer-Encoding: gzip, chunked")) + chunked([body_of(b"1")])
    with Caller(proxy.url) as caller:
        assert_error(caller.call(coded), 400, "bad-request")
    assert backend.requests == []


@pytest.mark.parametrize(("method", "target"), [("OPTIONS", "*"), ("GET", "http://proxy"), ("GET", "http://proxy?x=1")])
def test_a_target_without_a_path_is_404_like_any_other(
    proxy: Proxy, backend: Backend, method: str, target: str
) -> None:
    with Caller(proxy.url) as caller:
        assert_error(caller.call(request(method, target)), 404, "endpoint-not-found")
        assert caller.call(predict(b'"goes on"')).body == answer_to(b'"goes on"')


@pytest.mark.parametrize("target", [IRIS, "/nowhere", "/v1/models/iris/refused"])
def test_who_is_answered_before_the_body_is_whole_is_not_waited_for(
    proxy: Proxy, backend: Backend, target: str
) -> None:
    with Caller(proxy.url) as caller:
        response = caller.call(request("PUT", target, ("Content-Length: 1000",)) + b"x")
        assert response.status in (404, 405, 408)
        assert caller.read_to_end() == b"", "the connection ends; its rest might never come"


def test_line_ends_are_no_head(proxy: Proxy, backend: Backend) -> None:
    body = body_of(b'"x"')
    with Caller(proxy.url) as caller:
        assert caller.call(b"\r\n\r\n" + predict(b'"x"')).status == 200
        caller.send(b"\r\n" * (len(body) // 2 + 2))  # as long as a head of two line ends with that body
        assert ask(proxy.url, request("GET", "/healthz")).status == 200  # read by now, alone
        caller.send(b"\r\n\r\n" + body)
        assert_error(caller.read_response(), 400, "bad-request")
        assert caller.read_to_end() == b""


# --- callers that leave or dawdle ------------------------------------------------------------------------------


def queue_depth(proxy: Proxy) -> int:
    return int(read_metric(proxy.admin_url, 'mlproxy_queue_depth{endpoint="iris"}'))


def cancelled(proxy: Proxy) -> int:
    return int(read_metric(proxy.admin_url, 'mlproxy_cancelled_total{endpoint="iris"}'))


def test_a_caller_that_leaves_the_queue_takes_nobody_along_and_is_not_sent(proxy: Proxy, backend: Backend) -> None:
    before = cancelled(proxy)
    with backend.held() as gate, ExitStack() as stack:
        callers = [stack.enter_context(Caller(proxy.url)) for _ in range(6)]
        callers[0].send(predict(b'"0"'))
        assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
        for number, caller in enumerate(callers[1:], start=1):
            caller.send(predict(b'"%d"' % number))
        assert wait_until(lambda: queue_depth(proxy) == 5, WITHIN_S)
        callers[1].close()
        callers[3].close()
        assert wait_until(lambda: queue_depth(proxy) == 3, WITHIN_S)
        gate.open()
        for number in (0, 2, 4, 5):
            assert callers[number].read_response().body == answer_to(b'"%d"' % number)
    sent = {instance for call in backend.predictions for instance in call.instances}
    assert sent == {b'"0"', b'"2"', b'"4"', b'"5"'}
    assert cancelled(proxy) - before == 2


def test_a_caller_that_leaves_a_batch_in_flight_does_not_disturb_its_siblings(proxy: Proxy, backend: Backend) -> None:
    before = cancelled(proxy)
    with backend.held() as gate, ExitStack() as stack:
        callers = [stack.enter_context(Caller(proxy.url)) for _ in range(5)]
        callers[0].send(predict(b'"0"'))
        assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
        for number, caller in enumerate(callers[1:], start=1):
            caller.send(predict(b'"%d"' % number))
        assert wait_until(lambda: queue_depth(proxy) == 4, WITHIN_S)
        gate.let()
        assert wait_until(lambda: len(backend.predictions) == 2, WITHIN_S)
        callers[1].close()
        callers[4].close()
        assert wait_until(lambda: cancelled(proxy) - before == 2, WITHIN_S)
        gate.open()
        for number in (0, 2, 3):
            assert callers[number].read_response().body == answer_to(b'"%d"' % number)
    assert len(backend.predictions[1].instances) == 4


def test_a_call_that_nobody_waits_for_any_more_frees_its_slot(proxy: Proxy, backend: Backend) -> None:
    backend.script = never
    with Caller(proxy.url) as leaving:
        leaving.send(predict(b'"leaves"'))
        assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
    backend.forget()
    assert ask(proxy.url, predict(b'"next"')).body == answer_to(b'"next"')  # long before backend.timeout


def test_a_caller_that_leaves_in_the_middle_of_its_body_is_forgotten(proxy: Proxy, backend: Backend) -> None:
    before = cancelled(proxy)
    with Caller(proxy.url) as leaving:
        leaving.send(predict(b'"half"')[:-4])
    assert wait_until(lambda: cancelled(proxy) - before == 1, WITHIN_S)
    assert backend.requests == []


def test_a_slow_reader_gets_its_whole_answer_and_delays_nobody(proxy: Proxy, backend: Backend) -> None:
    instance = json.dumps("slow " * (BODY_BYTES // 6)).encode()
    with Caller(proxy.url, receive_buffer_bytes=4096) as slow:
        slow.send(predict(instance))
        assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
        for number in range(20):
            assert ask(proxy.url, predict(b'"%d"' % number)).body == answer_to(b'"%d"' % number)
        assert slow.read_response().body == answer_to(instance)
        assert slow.call(predict(b'"and on"')).body == answer_to(b'"and on"')
