"""Old versions, offered upgrades, spellings of a target: what HTTP leaves to the caller."""

from __future__ import annotations

import pytest

from bench.processes import Proxy
from tests.system.backends import Backend
from tests.system.iris import IRIS, JSON, answer_to, body_of, predict
from tests.system.raw_http import Caller, ask, request


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
