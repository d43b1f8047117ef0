"""What is refused at the door: with its status, in form, and without a look at the backend."""

from __future__ import annotations

from contextlib import suppress

import pytest

from bench.processes import Proxy
from tests.system.backends import Backend
from tests.system.backends import status as saying_status
from tests.system.conftest import HEADER_BYTES
from tests.system.iris import IRIS, JSON, answer_to, assert_error, body_of, predict
from tests.system.raw_http import Caller, ask, chunked, request


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


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_only_read(proxy: Proxy, path: str) -> None:
    response = ask(proxy.url, request("DELETE", path))
    assert_error(response, 405, "method-not-allowed")
    assert response.header("allow") == "GET, HEAD"


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
     "Content-Type: multipart/form-data; boundary=x", "Content-Encoding: br", "Content-Encoding: br, gzip"],
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
        assert response.header("connection") == "close", "or it sends its next request into a closed connection"
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
