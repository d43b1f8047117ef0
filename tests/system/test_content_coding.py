"""Compressed bodies through a running proxy: what callers send, what backends answer, and what only passes through."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from bench.processes import Proxy
from tests.system.backends import Backend, Exchange, echo, predictions
from tests.system.conftest import StartProxy
from tests.system.endpoint import Endpoint, assert_answer, assert_error
from tests.system.iris import IRIS
from tests.system.raw_http import Caller, ask, chunked, request
from tests.system.tensors import answer_of, batch_of, serve, write_message

BODY_BYTES = 2**20
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "X-GZip": gzip.compress,
}


@pytest.fixture(scope="module")
def proxy(start_proxy: StartProxy, shared_backend: Backend) -> Proxy:
    backend, batching = {"urls": [shared_backend.url]}, {"policy": "static", "max_size": 8, "max_inflight": 1}
    return start_proxy({
        "limits": {"body": BODY_BYTES, "queue_bytes": 2 * BODY_BYTES},
        "endpoints": [
            {"name": "iris", "backend": backend, "batching": batching},
            {"name": "tensors", "protocol": "kserve-v2", "backend": backend, "batching": batching},
        ],
    })  # fmt: skip


def compressed(instance: bytes, coding: str = "gzip", *headers: str) -> bytes:
    body = CODINGS[coding](b'{"instances": [%b]}' % instance)
    return request("POST", IRIS, (f"Content-Encoding: {coding}", *headers), body)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_compressed_body_is_answered_and_shares_a_batch_with_plain_ones(
    proxy: Proxy, backend: Backend, coding: str
) -> None:
    endpoint = Endpoint("iris", proxy, backend)
    assert_answer(ask(proxy.url, compressed(b'"x"', coding)), b'"x"')
    [call] = backend.predictions
    assert bytes(call.body) == b'{"instances": ["x"]}'
    assert (call.header("content-encoding"), call.header("accept-encoding")) == (None, "identity")
    assert_answer(endpoint.ask(b'"y"'), b'"y"')


def test_on_one_connection_compressed_and_plain_bodies_come_in_turns_and_pipelined(
    proxy: Proxy, backend: Backend
) -> None:
    plain = Endpoint("iris", proxy, backend).data
    with Caller(proxy.url) as caller:
        for n in range(3):
            assert_answer(caller.call(compressed(b"%d" % n)), b"%d" % n)
            assert_answer(caller.call(plain(b"%d" % n)), b"%d" % n)
        caller.send(compressed(b"1") + plain(b"2") + compressed(b"3", "deflate") + compressed(b"4"))
        for instance in (b"1", b"2", b"3", b"4"):
            assert_answer(caller.read_response(), instance)


def test_a_compressed_body_comes_in_chunks_and_after_a_go_ahead(proxy: Proxy, backend: Backend) -> None:
    body = gzip.compress(b'{"instances": ["%b"]}' % (b"x" * 5000))
    pieces = [body[start : start + 7] for start in range(0, len(body), 7)]
    with Caller(proxy.url) as caller:
        head = request("POST", IRIS, ("Content-Encoding: gzip", "Transfer-Encoding: chunked", "Expect: 100-continue"))
        assert caller.call(head).status == 100
        assert_answer(caller.call(chunked(pieces)), b'"%b"' % (b"x" * 5000))


def test_tensors_in_binary_are_measured_as_they_were_before_they_were_compressed(
    proxy: Proxy, backend: Backend
) -> None:
    backend.script = serve
    body, json_bytes = write_message("inputs", {"x": np.arange(3000).reshape(3, 1000)}, {"x"})
    headers = ("Content-Encoding: gzip", f"Inference-Header-Content-Length: {json_bytes}")
    for sent, status in ((gzip.compress(body), 200), (gzip.compress(body[:-1]), 400)):
        assert len(sent) < len(body)
        response = ask(proxy.url, request("POST", "/v2/models/tensors/infer", headers, sent))
        assert response.status == status
        if status == 200:
            assert answer_of(response).tensors["x_out"].tolist() == (2 * np.arange(3000).reshape(3, 1000)).tolist()
    [call] = backend.predictions
    assert batch_of(call).tensors["x"].tolist() == np.arange(3000).reshape(3, 1000).tolist()
    too_long = (headers[0], f"Inference-Header-Content-Length: {len(body) + 1}")
    assert_error(
        ask(proxy.url, request("POST", "/v2/models/tensors/infer", too_long, gzip.compress(body))), 400, "bad-request"
    )


@pytest.mark.parametrize(
    ("coding", "body", "status", "slug", "words"),
    [
        ("gzip", gzip.compress(b'{"instances": [1]}')[:-1], 400, "bad-request", "ends before"),
        ("gzip", gzip.compress(b'{"instances": [1]}') + b"x", 400, "bad-request", "goes on"),
        ("deflate", b'{"instances": [1]}', 400, "bad-request", "content encoding deflate"),
        ("gzip", gzip.compress(b'{"instances": [1}'), 400, "bad-request", "not valid JSON"),
        ("gzip", gzip.compress(b'{"instances": ["%b"]}' % (b"x" * BODY_BYTES)), 413, "body-too-large", "inflated"),
        ("br", b"x", 415, "unsupported-media-type", "'br'"),
    ],
    ids=["cut off", "followed by more", "of another coding", "no JSON", "too large", "of a coding that nobody takes"],
)  # fmt: skip
def test_a_body_that_cannot_be_inflated_is_refused_and_the_connection_goes_on(
    proxy: Proxy, backend: Backend, coding: str, body: bytes, status: int, slug: str, words: str
) -> None:
    with Caller(proxy.url) as caller:
        for _ in range(2):
            response = caller.call(request("POST", IRIS, (f"Content-Encoding: {coding}",), body))
            assert_error(response, status, slug)
            assert words in response.json()["error"]
            assert response.header("accept-encoding") == ("gzip, deflate" if status == 415 else None)
            if status == 415:
                break  # before its body was read
        else:
            assert_answer(caller.call(compressed(b"1")), b"1")
    assert len(backend.predictions) == (status != 415)


def test_what_was_inflated_counts_against_what_may_wait(proxy: Proxy, backend: Backend) -> None:
    data = compressed(b'"%b"' % (b"x" * (BODY_BYTES - 100)))
    with backend.held() as gate, Caller(proxy.url) as first, Caller(proxy.url) as second, Caller(proxy.url) as third:
        for caller in (first, second):
            caller.send(data)
        assert_error(third.call(data), 503, "overloaded")
        gate.open()
        for caller in (first, second):
            assert caller.read_response().status == 200
    assert_answer(ask(proxy.url, compressed(b"1")), b"1")


# --- what backends answer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["gzip", "br"])
def test_a_backend_that_compresses_unasked_is_a_sentence_and_no_garbage(
    proxy: Proxy, backend: Backend, coding: str
) -> None:
    def script(exchange: Exchange) -> None:
        exchange.reply(200, gzip.compress(predictions(exchange.request)), f"Content-Encoding: {coding}")

    backend.script = script
    response = ask(proxy.url, compressed(b"1"))
    assert_error(response, 502, "backend-contract")
    assert f"encoded ({coding})" in response.json()["error"]
    backend.script = lambda exchange: exchange.reply(200, predictions(exchange.request), "Content-Encoding: identity")
    assert_answer(ask(proxy.url, compressed(b"1")), b"1")


def test_an_error_that_a_backend_compressed_is_passed_on_with_its_encoding(proxy: Proxy, backend: Backend) -> None:
    body = gzip.compress(b"no such model")
    backend.script = lambda exchange: exchange.reply(404, body, "Content-Encoding: gzip", "Content-Type: text/plain")
    response = ask(proxy.url, compressed(b"1"))
    assert (response.status, response.header("content-encoding"), response.body) == (404, "gzip", body)


# --- what passes through ----------------------------------------------------------------------------------------------


def test_what_passes_through_is_encoded_as_it_was_both_ways(proxy: Proxy, backend: Backend) -> None:
    sent, answered = gzip.compress(b"a question"), gzip.compress(b"an answer")
    backend.script = lambda exchange: exchange.reply(200, answered, "Content-Encoding: gzip", "Vary: Accept-Encoding")
    headers = ("Content-Encoding: gzip", "Accept-Encoding: gzip;q=1.0, br;q=0.5")
    response = ask(proxy.url, request("POST", "/v1/models/iris/notes", headers, sent))
    assert (response.status, response.body, response.header("content-encoding")) == (200, answered, "gzip")
    assert response.header("vary") == "Accept-Encoding"
    [call] = backend.requests
    assert bytes(call.body) == sent
    assert [value for name, value in call.headers if name.lower() == "content-encoding"] == ["gzip"]
    assert [value for name, value in call.headers if name.lower() == "accept-encoding"] == ["gzip;q=1.0, br;q=0.5"]


def test_a_caller_that_accepts_no_encoding_by_name_is_not_said_to(proxy: Proxy, backend: Backend) -> None:
    backend.script = echo
    response = ask(proxy.url, request("GET", "/v1/models/iris/notes"))
    assert (response.status, response.header("content-encoding")) == (200, None)
    assert backend.requests[0].header("accept-encoding") is None
