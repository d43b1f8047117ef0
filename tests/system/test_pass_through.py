"""What is not a prediction: passed through to the backend as it is, both ways, while it comes; and health."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from bench.processes import Proxy, wait_until
from tests.system.backends import Backend, Exchange, running_backend
from tests.system.conftest import StartProxy
from tests.system.raw_http import WITHIN_S, Caller, ConnectionEnded, ask, request


@pytest.fixture(scope="module")
def absent() -> Iterator[Backend]:
    """A backend at whose port nobody listens."""
    with running_backend(listen=False) as backend:
        yield backend


@pytest.fixture(scope="module")
def proxy(start_proxy: StartProxy, shared_backend: Backend, absent: Backend) -> Proxy:
    return start_proxy(
        {
            "endpoints": [
                {"name": "iris", "backend": {"urls": [shared_backend.url]}},
                {"name": "deep", "backend": {"urls": [shared_backend.url + "/below/here"]}},
                {"name": "tags", "protocol": "json-list", "backend": {"urls": [shared_backend.url]}},
                {"name": "absent", "backend": {"urls": [absent.url]}},
                {"name": "slow", "backend": {"urls": [shared_backend.url], "timeout": "300ms"}},
            ]
        }
    )


@pytest.mark.parametrize(
    ("target", "arrives_as"),
    [
        ("/v1/models/iris", "/v1/models/iris"),
        ("/v1/models/iris/versions/2?full=1&x=%2F", "/v1/models/iris/versions/2?full=1&x=%2F"),
        ("/v1/models/iris/a%20b%2Fc", "/v1/models/iris/a%20b%2Fc"),
        ("/v1/models/iris:explain", "/v1/models/iris:explain"),
        ("/tags/docs.json", "/tags/docs.json"),
        ("/v1/models/deep/x", "/below/here/v1/models/deep/x"),
    ],
)
def test_a_path_under_the_prefix_passes_through(proxy: Proxy, backend: Backend, target: str, arrives_as: str) -> None:
    with Caller(proxy.url) as caller:
        for _ in range(2):
            response = caller.call(request("GET", target))
            assert (response.status, response.json()) == (200, {"method": "GET", "target": arrives_as})
            assert response.header("content-type") == "application/json"
    assert [(call.method, bytes(call.body)) for call in backend.requests] == [("GET", b"")] * 2


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_any_method_passes_through_with_its_body_and_the_backends_status(
    proxy: Proxy, backend: Backend, method: str
) -> None:
    body = bytes(range(256))
    backend.script = lambda exchange: exchange.reply(418, bytes(exchange.request.body), "X-Own: header")
    response = ask(proxy.url, request(method, "/v1/models/iris/raw", ("Content-Type: image/png",), body))
    assert (response.status, response.body, response.header("x-own")) == (418, body, "header")
    assert backend.requests[0].method == method
    assert backend.requests[0].header("content-type") == "image/png"


def test_head_passes_through_without_a_body_and_the_connection_goes_on(proxy: Proxy, backend: Backend) -> None:
    backend.script = lambda exchange: exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")
    with Caller(proxy.url) as caller:
        response = caller.call(request("HEAD", "/v1/models/iris"), to_head=True)
        assert (response.status, response.header("content-length")) == (200, "1234")
        backend.forget()
        assert caller.call(request("GET", "/v1/models/iris")).status == 200


@pytest.mark.parametrize("status", [204, 304, 404, 500, 503])
def test_the_backends_status_is_the_callers(proxy: Proxy, backend: Backend, status: int) -> None:
    body = b"" if status in (204, 304) else b"its own words"
    head = f"HTTP/1.1 {status} Whatever\r\n" + ("" if not body else f"Content-Length: {len(body)}\r\n") + "\r\n"
    backend.script = lambda exchange: exchange.send(head.encode() + body)
    with Caller(proxy.url) as caller:
        for _ in range(2):
            response = caller.call(request("GET", "/v1/models/iris"))
            assert (response.status, response.body) == (status, body)
    assert len(backend.requests) == 2, "what passes through is never sent again by the proxy"


# --- streams ---------------------------------------------------------------------------------------------------


def test_the_first_bytes_of_an_answer_arrive_before_the_backend_has_finished(proxy: Proxy, backend: Backend) -> None:
    seen: list[bytes] = []

    def stream(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            exchange.send(b"5\r\nnr %d\n\r\n" % number)
            exchange.wait(lambda: len(seen) > number)  # noqa: B023 - asked within the loop's turn
        exchange.send(b"0\r\n\r\n")

    backend.script = stream
    with Caller(proxy.url) as caller:
        caller.send(request("GET", "/v1/models/iris/stream"))
        assert caller.read_head().header("content-type") == "text/event-stream"
        for number in range(3):
            seen.append(caller.read_chunk())
            assert seen[-1] == b"nr %d\n" % number
        assert caller.read_chunk() == b""


def test_the_first_bytes_of_an_upload_arrive_before_the_caller_has_finished(proxy: Proxy, backend: Backend) -> None:
    backend.script = lambda exchange: exchange.reply(200, bytes(exchange.request.body))
    with Caller(proxy.url) as caller:
        caller.send(request("POST", "/v1/models/iris/upload", ("Transfer-Encoding: chunked",)), b"5\r\nfirst\r\n")
        assert wait_until(lambda: bool(backend.requests) and backend.requests[0].body == b"first", WITHIN_S)
        caller.send(b"6\r\nsecond\r\n")
        assert wait_until(lambda: backend.requests[0].body == b"firstsecond", WITHIN_S)
        assert caller.call(b"0\r\n\r\n").body == b"firstsecond"


@pytest.mark.parametrize("with_length", [True, False], ids=["content-length", "chunked"])
def test_a_large_upload_and_a_large_download_arrive_whole(proxy: Proxy, backend: Backend, with_length: bool) -> None:
    def digest_and_return(exchange: Exchange) -> None:
        body = bytes(exchange.request.body)
        exchange.reply(200, body, f"X-Digest: {hashlib.sha256(body).hexdigest()}")

    backend.script = digest_and_return
    piece = bytes(range(256)) * 1024
    count = 80  # 20 MiB: more than limits.body, which bounds what is held, and this is not
    length = f"Content-Length: {count * len(piece)}" if with_length else "Transfer-Encoding: chunked"
    with Caller(proxy.url) as caller:
        caller.send(request("PUT", "/v1/models/iris/weights", (length,)))
        for _ in range(count):
            caller.send(piece if with_length else b"%x\r\n%b\r\n" % (len(piece), piece))
        response = caller.call(b"" if with_length else b"0\r\n\r\n")
    assert response.header("x-digest") == hashlib.sha256(piece * count).hexdigest()
    assert response.body == piece * count


def test_an_answer_that_breaks_off_is_seen_to_break_off(proxy: Proxy, backend: Backend) -> None:
    def break_off(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        exchange.end()

    backend.script = break_off
    with Caller(proxy.url) as caller:
        caller.send(request("GET", "/v1/models/iris/half"))
        with pytest.raises(ConnectionEnded):
            caller.read_response()
    assert ask(proxy.url, request("GET", "/healthz")).status == 200


# --- headers ---------------------------------------------------------------------------------------------------

END_TO_END = ("Authorization: Bearer abc", "X-Custom: 1", "X-Custom: 2", "Accept: text/plain", "Cookie: a=b; c=d")
ONE_HOP = (
    "Connection: keep-alive, X-Nominated", "Keep-Alive: timeout=5", "TE: trailers", "Proxy-Authorization: secret",
    "Proxy-Connection: keep-alive", "X-Nominated: for the proxy only",
)  # fmt: skip


def test_headers_are_forwarded_but_those_about_one_hop(proxy: Proxy, backend: Backend) -> None:
    ask(proxy.url, request("GET", "/v1/models/iris", (*END_TO_END, *ONE_HOP, "X-Forwarded-For: 192.0.2.1")))
    got = [f"{name.lower()}: {value}" for name, value in backend.requests[0].headers]
    assert [header for header in got if header.split(":")[0] in ("authorization", "x-custom", "accept", "cookie")] == [
        header[: header.index(":")].lower() + header[header.index(":") :] for header in END_TO_END
    ]
    names = [header.split(":")[0] for header in got]
    hidden = {"keep-alive", "te", "proxy-authorization", "proxy-connection", "x-nominated", "upgrade"}
    assert hidden & set(names) == set()
    assert "x-forwarded-for: 192.0.2.1, 127.0.0.1" in got
    assert names.count("host") == 1
    assert backend.requests[0].header("host") == backend.url.removeprefix("http://")


def test_the_backends_headers_are_forwarded_but_those_about_one_hop(proxy: Proxy, backend: Backend) -> None:
    backend.script = lambda exchange: exchange.reply(
        200, b"x", 'ETag: "v1"', "Set-Cookie: a=1", "Set-Cookie: b=2", "Keep-Alive: timeout=9",
        "Connection: keep-alive", "Proxy-Authenticate: Basic", "Date: Mon, 01 Jan 2001 00:00:00 GMT",
    )  # fmt: skip
    response = ask(proxy.url, request("GET", "/v1/models/iris"))
    assert response.header("etag") == '"v1"'
    assert [value for name, value in response.headers if name == "set-cookie"] == ["a=1", "b=2"]
    assert response.header("keep-alive") is None
    assert response.header("proxy-authenticate") is None
    assert response.header("date") is not None  # read by `header`: exactly one


def test_trailers_do_not_become_headers(proxy: Proxy, backend: Backend) -> None:
    backend.script = lambda exchange: exchange.reply(200, b"")
    data = request("POST", "/v1/models/iris/x", ("Transfer-Encoding: chunked", "X-User: me"))
    data += b"2\r\n{}\r\n0\r\nX-User: somebody else\r\nAuthorization: stolen\r\n\r\n"
    assert ask(proxy.url, data).status == 200
    assert [value for name, value in backend.requests[0].headers if name.lower() == "x-user"] == ["me"]
    assert backend.requests[0].header("authorization") is None


# --- refusals and health ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [None, b"something"], ids=["GET", "POST"])
def test_a_backend_that_is_down_is_502_with_an_error_document(
    proxy: Proxy, backend: Backend, body: bytes | None
) -> None:
    headers = ("Accept: application/problem+json", "X-Request-Id: mine")
    with Caller(proxy.url) as caller:
        response = caller.call(request("POST" if body else "GET", "/v1/models/absent", headers, body))
        assert response.status == 502
        document = response.json()
        assert document["type"] == "urn:mlproxy:error:backend-unavailable"
        assert (document["status"], document["instance"]) == (502, "urn:request:mine")
        assert document["error"] == document["detail"] != ""
        assert response.header("content-type") == "application/problem+json"
        assert caller.call(request("GET", "/healthz")).status == 200


@pytest.mark.parametrize("reply", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
def test_a_backend_that_breaks_http_is_502(proxy: Proxy, backend: Backend, reply: bytes) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(reply)
        exchange.end()

    backend.script = script
    response = ask(proxy.url, request("POST", "/v1/models/iris/x", (), b"{}"))
    assert (response.status, response.json()["type"]) == (502, "urn:mlproxy:error:backend-unavailable")


def test_a_backend_that_does_not_answer_is_504(proxy: Proxy, backend: Backend) -> None:
    backend.script = lambda exchange: exchange.wait(lambda: False)
    response = ask(proxy.url, request("GET", "/v1/models/slow"))
    assert (response.status, response.json()["type"]) == (504, "urn:mlproxy:error:backend-timeout")
    backend.forget()
    assert ask(proxy.url, request("GET", "/v1/models/slow")).status == 200


@pytest.mark.parametrize("target", ["/", "/v1", "/v1/models", "/v1/models/", "/v1/models/irises", "/v2/models/iris"])
def test_a_path_outside_every_prefix_is_404(proxy: Proxy, backend: Backend, target: str) -> None:
    response = ask(proxy.url, request("GET", target))
    assert (response.status, response.json()["type"]) == (404, "urn:mlproxy:error:endpoint-not-found")
    assert backend.requests == []


@pytest.mark.parametrize(
    "target",
    ["/v1/models/iris/../../../admin", "/v1/models/iris/%2e%2e/%2E%2E/admin", "/v1/models/iris/..%2f..%2fadmin",
     "/v1/models/iris/./../other"],
)  # fmt: skip
def test_dots_do_not_lead_out_of_the_prefix(proxy: Proxy, backend: Backend, target: str) -> None:
    response = ask(proxy.url, request("GET", target))
    assert response.status in (400, 404)
    assert backend.requests == []


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"


@pytest.mark.parametrize("says", [b"", STREAM_HEAD], ids=["before the head", "in the middle of a silent stream"])
@pytest.mark.parametrize("body", [None, b"{}"], ids=["GET", "POST"])
def test_when_the_caller_leaves_the_backend_sees_its_connection_end_at_once(
    proxy: Proxy, backend: Backend, says: bytes, body: bytes | None
) -> None:
    gone = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.send(says)
        exchange.wait(exchange.left)
        gone.set()
        exchange.end()

    backend.script = script
    with Caller(proxy.url) as caller:
        caller.send(request("POST" if body else "GET", "/v1/models/iris/stream", (), body))
        assert wait_until(lambda: len(backend.requests) == 1 and backend.requests[0].complete, WITHIN_S)
        if says:
            assert (caller.read_head().status, caller.read_chunk()) == (200, b"first")
    assert gone.wait(2), "long before backend.timeout"


@pytest.mark.parametrize("behind", [b"", request("GET", "/healthz")], ids=["alone", "with a request behind it"])
def test_a_stream_without_an_end_ends_when_its_caller_leaves(proxy: Proxy, backend: Backend, behind: bytes) -> None:
    gone = threading.Event()

    def left_after_more(exchange: Exchange) -> bool:
        exchange.send(b"4\r\nmore\r\n")
        return exchange.left()

    def script(exchange: Exchange) -> None:
        exchange.send(STREAM_HEAD)
        with suppress(OSError):
            exchange.wait(lambda: left_after_more(exchange))
        gone.set()
        exchange.end()

    backend.script = script
    with Caller(proxy.url) as caller:
        caller.send(request("GET", "/v1/models/iris/stream") + behind)
        assert (caller.read_head().status, caller.read_chunk()) == (200, b"first")
    assert gone.wait(WITHIN_S)


@pytest.mark.parametrize(
    ("given", "kept"), [("mine-1", True), ("not\tvisible", False), ("x" * 129, False), (None, False)]
)
def test_what_passes_through_has_a_request_id_on_both_sides(
    proxy: Proxy, backend: Backend, given: str | None, kept: bool
) -> None:
    backend.script = lambda exchange: exchange.reply(200, b"", "X-Request-Id: the-backends-own")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = [f"traceparent: {trace}", *([f"X-Request-Id: {given}"] if given else [])]
    for target, status in (("/v1/models/iris", 200), ("/nowhere", 404)):
        answer = ask(proxy.url, request("GET", target, headers))
        name = answer.header("x-request-id")
        assert answer.status == status
        assert (name == given) is kept
        assert re.fullmatch("[!-~]{1,128}", name or "")
        if status == 200:
            assert backend.requests[0].header("x-request-id") == name
            assert backend.requests[0].header("traceparent") == trace


def test_at_the_end_of_a_drain_who_waits_is_told_503_and_a_stream_is_cut(
    start_proxy: StartProxy, shared_backend: Backend, backend: Backend
) -> None:
    stopping = start_proxy({
        "server": {"drain_timeout": "3s"}, "endpoints": [{"name": "iris", "backend": {"urls": [shared_backend.url]}}],
    })  # fmt: skip

    def script(exchange: Exchange) -> None:
        exchange.send(STREAM_HEAD if exchange.request.target.endswith("/stream") else b"")
        exchange.wait(exchange.left)
        exchange.end()

    backend.script = script
    with Caller(stopping.url) as stream, Caller(stopping.url) as waiting:
        stream.send(request("GET", "/v1/models/iris/stream"))
        assert (stream.read_head().status, stream.read_chunk()) == (200, b"first")
        waiting.send(request("GET", "/v1/models/iris"))
        assert wait_until(lambda: len(backend.requests) == 2, WITHIN_S)
        os.kill(stopping.pid, signal.SIGTERM)
        answer = waiting.read_response()
        assert (answer.status, answer.json()["type"]) == (503, "urn:mlproxy:error:draining")
        with pytest.raises(ConnectionEnded):
            stream.read_chunk()
    assert wait_until(lambda: stopping.returncode is not None, WITHIN_S)  # its log is looked at when the module ends


@pytest.mark.parametrize("accept", ["application/problem+json", "Application/Problem+JSON"])
def test_a_media_type_has_no_case(proxy: Proxy, backend: Backend, accept: str) -> None:
    answer = ask(proxy.url, request("GET", "/nowhere", (f"Accept: {accept}",)))
    assert (answer.status, answer.header("content-type")) == (404, "application/problem+json")


@pytest.mark.parametrize("target", ["/healthz", "/readyz"])
def test_health_can_be_asked_for_its_head_only(proxy: Proxy, backend: Backend, target: str) -> None:
    with Caller(proxy.url) as caller:
        whole = caller.call(request("GET", target))
        only_head = caller.call(request("HEAD", target), to_head=True)
        assert (only_head.status, only_head.header("content-length")) == (200, str(len(whole.body)))
        assert caller.call(request("GET", target)).status == 200


def test_every_response_but_healths_has_a_line_in_the_access_log(
    start_proxy: StartProxy, shared_backend: Backend, backend: Backend
) -> None:
    logging_proxy = start_proxy({
        "logging": {"access": True}, "limits": {"header": "1KiB"},
        "endpoints": [{"name": "iris", "backend": {"urls": [shared_backend.url]}}],
    })  # fmt: skip
    long = "X-Long: " + "x" * 2000
    for data in (
        request("GET", "/v1/models/iris?q=1", ("X-Request-Id: passed",)), request("PUT", "/nowhere?q=1"),
        request("GET", "/healthz", (long,)), request("POST", "/v1/models/iris:predict", (), b'{"instances": [1]}'),
        b"NOT HTTP\r\n\r\n",
    ):  # fmt: skip
        ask(logging_proxy.url, data)
    address, size, id_ = r"127\.0\.0\.1:\d+", r"\d+B [\d.]+ms", "id=[!-~]+"
    expected = [
        rf'{address} "GET /v1/models/iris" 200 {size} id=passed', rf'{address} "PUT /nowhere" 404 {size} {id_}',
        rf'{address} "GET /healthz" 431 {size} {id_}', rf'{address} "POST /v1/models/iris:predict" 200 {size} {id_}',
        rf'{address} "- -" 400 {size} {id_}',
    ]  # fmt: skip
    assert wait_until(lambda: logging_proxy.log_text().count(" id=") == len(expected), WITHIN_S)
    lines = [line for line in logging_proxy.log_text().splitlines() if " id=" in line]
    for line, pattern in zip(lines, expected, strict=True):
        assert re.search(pattern + "$", line), (line, pattern)


@pytest.mark.parametrize("target", ["/healthz", "/readyz"])
def test_health_is_not_the_backends_business(proxy: Proxy, backend: Backend, target: str) -> None:
    response = ask(proxy.url, request("GET", target))
    assert response.status == 200
    assert json.loads(response.body)["status"] in ("ok", "ready")
    assert backend.requests == []
