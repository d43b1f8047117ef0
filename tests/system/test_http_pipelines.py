"""Pipelines: whatever follows whatever on a connection, answers leave in the order of the requests."""

from __future__ import annotations

import pytest

from bench.processes import Proxy, wait_until
from tests.system.backends import Backend
from tests.system.iris import IRIS, JSON, answer_to, body_of, predict, predict_in_chunks
from tests.system.raw_http import WITHIN_S, Caller, request


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
