"""KServe v2 through a running proxy: rows in batches that agree, each caller's own answer in the form it asked for."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from bench.processes import Proxy, wait_until
from tests.system.backends import Backend, status
from tests.system.conftest import StartProxy
from tests.system.endpoint import assert_error
from tests.system.raw_http import WITHIN_S, Caller, Response, ask, read_metric, request
from tests.system.tensors import DTYPES, MODEL, answer_of, batch_of, computed, infer, serve, write_message

MAX_SIZE = 8
DEPTH = 'mlproxy_queue_depth{endpoint="iris"}'


@pytest.fixture(scope="module")
def proxy(start_proxy: StartProxy, shared_backend: Backend) -> Proxy:
    """One slot, so that a held call makes all others queue; a ring of the smallest size, so that bodies outgrow it."""
    batching = {"policy": "static", "max_size": MAX_SIZE, "max_inflight": 1}
    backend = {"urls": [shared_backend.url]}
    return start_proxy({
        "server": {"ring": "64KiB"},
        "endpoints": [
            {"name": "rows", "backend": backend, "batching": batching},
            {"name": "iris", "protocol": "kserve-v2", "backend": backend, "batching": batching},
        ],
    })  # fmt: skip


@pytest.fixture
def backend(backend: Backend) -> Backend:
    backend.script = serve
    return backend


def floats(*rows: list[float]) -> Any:
    return np.array(rows, dtype="f4")


def strings(*texts: str) -> Any:
    return np.array(texts, dtype=object)


def together(proxy: Proxy, backend: Backend, requests: list[bytes], depth: int) -> list[Response]:
    """The answers to requests that were all waiting when the slot became free."""
    with backend.held() as gate, ExitStack() as stack:
        callers = [stack.enter_context(Caller(proxy.url)) for _ in range(len(requests) + 1)]
        callers[0].send(infer({"occupies": floats([0])}))
        assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
        for caller, data in zip(callers[1:], requests, strict=True):
            caller.send(data)
        assert wait_until(lambda: read_metric(proxy.admin_url, DEPTH) == depth, WITHIN_S)
        gate.open()
        assert callers[0].read_response().status == 200
        answers = [caller.read_response() for caller in callers[1:]]
    del backend.requests[0]
    return answers


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_travels_in_json_and_in_binary(
    proxy: Proxy, backend: Backend, datatype: str, binary: bool
) -> None:
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(DTYPES[datatype])
    wanted: dict[str, Any] = {"parameters": {"binary_data_output": binary}}
    answer = answer_of(ask(proxy.url, infer({"x": array, "names": strings("a", "é")}, binary=binary, **wanted)))
    assert answer.tensors["x_out"].dtype == array.dtype
    np.testing.assert_array_equal(answer.tensors["x_out"], computed(array))
    assert answer.tensors["names_out"].tolist() == ["<a>", "<é>"]


def test_what_numpy_does_not_know_travels_in_binary(proxy: Proxy, backend: Backend) -> None:
    seen = []

    def echo(exchange: Any) -> None:
        seen.append(bytes(exchange.request.body).partition(b"]}")[2])
        text = b'{"outputs":[{"name":"y","shape":[3,1],"datatype":"BF16","parameters":{"binary_data_size":6}}]}'
        exchange.reply(200, text + seen[-1], f"Inference-Header-Content-Length: {len(text)}")

    backend.script = echo
    section = b"\x80\x3f\xff\xff\x00\x7f"
    body = b'{"inputs":[{"name":"x","shape":[3,1],"datatype":"BF16","parameters":{"binary_data_size":6}}]}'
    length = (f"Inference-Header-Content-Length: {len(body)}",)
    response = ask(proxy.url, request("POST", f"{MODEL}/infer", length, body + section))
    assert seen == [section]
    assert response.body.endswith(section)


def test_interleaved_shapes_each_fill_their_own_batch(proxy: Proxy, backend: Backend) -> None:
    requests = [infer({"x": floats([n] * (2 + n % 2))}, binary=True) for n in range(2 * MAX_SIZE)]
    answers = together(proxy, backend, requests, depth=2 * MAX_SIZE)
    for n, response in enumerate(answers):
        assert answer_of(response).tensors["x_out"].tolist() == [[2 * n] * (2 + n % 2)]
    assert [batch_of(call).tensors["x"].shape for call in backend.predictions] == [(8, 2), (8, 3)]
    assert {response.header("x-mlproxy-batch-size") for response in answers} == {"8"}


def test_each_caller_gets_its_own_id_and_nobody_anothers(proxy: Proxy, backend: Backend) -> None:
    ids = ["a", None, 'b"\\', "a"]
    requests = [infer({"x": floats([n])}, id=one) for n, one in enumerate(ids)]
    answers = together(proxy, backend, requests, depth=4)
    assert [answer_of(response).document.get("id") for response in answers] == ids
    assert [answer_of(response).tensors["x_out"].tolist() for response in answers] == [[[0]], [[2]], [[4]], [[6]]]
    assert len(backend.predictions) == 1
    assert "id" not in batch_of(backend.predictions[0]).document


def test_each_caller_gets_the_form_and_the_outputs_that_it_asked_for(proxy: Proxy, backend: Backend) -> None:
    tensors = {"x": floats([1, 2]), "s": strings("a")}
    x = {"name": "x_out", "parameters": {"binary_data": True}}
    requests = [
        infer(tensors),
        infer(tensors, parameters={"binary_data_output": True}),
        infer(tensors, outputs=[x, {"name": "s_out"}]),
        infer(tensors, binary=True, outputs=[{"name": "s_out"}]),
        infer(tensors),
    ]
    answers = together(proxy, backend, requests, depth=5)
    forms = [
        {one["name"]: "data" not in one for one in answer_of(response).document["outputs"]} for response in answers
    ]
    neither, both = {"x_out": False, "s_out": False}, {"x_out": True, "s_out": True}
    assert forms == [neither, both, {"x_out": True, "s_out": False}, {"s_out": False}, neither]
    assert len(backend.predictions) == 4


@pytest.mark.parametrize("binary", [False, True])
def test_a_request_larger_than_a_batch_travels_in_parts_and_comes_back_whole(
    proxy: Proxy, backend: Backend, binary: bool
) -> None:
    rows = 3 * MAX_SIZE + 1
    array, texts = np.arange(rows * 3, dtype="i8").reshape(rows, 3), strings(*(str(n) * n for n in range(rows)))
    answer = answer_of(ask(proxy.url, infer({"x": array, "s": texts}, binary=binary, id="large")))
    np.testing.assert_array_equal(answer.tensors["x_out"], 2 * array)
    assert answer.tensors["s_out"].tolist() == [f"<{text}>" for text in texts]
    assert answer.document["id"] == "large"
    assert sorted(len(batch_of(call).tensors["x"]) for call in backend.predictions) == [1, 8, 8, 8]


def test_a_body_larger_than_the_ring_comes_back_whole(proxy: Proxy, backend: Backend) -> None:
    array = np.arange(300_000, dtype="f8").reshape(3, 100_000)
    for binary in (True, False):
        wanted: dict[str, Any] = {"parameters": {"binary_data_output": binary}}
        answer = answer_of(ask(proxy.url, infer({"x": array}, binary=binary, **wanted)))
        np.testing.assert_array_equal(answer.tensors["x_out"], 2 * array)


def test_versions_of_a_model_are_calls_of_their_own(proxy: Proxy, backend: Backend) -> None:
    paths = [f"{MODEL}/infer", f"{MODEL}/versions/1/infer", f"{MODEL}/versions/2/infer", f"{MODEL}/versions/1/infer"]
    requests = [infer({"x": floats([n])}, path=path) for n, path in enumerate(paths)]
    answers = together(proxy, backend, requests, depth=4)
    assert [answer_of(response).tensors["x_out"].tolist() for response in answers] == [[[0]], [[2]], [[4]], [[6]]]
    calls = {call.target: batch_of(call).tensors["x"].tolist() for call in backend.predictions}
    assert calls == {paths[0]: [[0]], paths[1]: [[1], [3]], paths[2]: [[2]]}


def test_requests_on_a_kept_connection_may_have_json_of_different_lengths(proxy: Proxy, backend: Backend) -> None:
    with Caller(proxy.url) as caller:
        for n in (1, 1, 1000, 1, 1):
            for binary in (True, True, False):
                answer = answer_of(caller.call(infer({"x": floats([n])}, binary=binary, more="m" * n)))
                assert answer.tensors["x_out"].tolist() == [[2 * n]]


@pytest.mark.parametrize(
    "path", ["/v2", "/v2/health/live", "/v2/health/ready", MODEL, f"{MODEL}/ready", f"{MODEL}/versions/1"]
)
def test_questions_about_the_model_and_its_server_reach_the_backend(proxy: Proxy, backend: Backend, path: str) -> None:
    assert ask(proxy.url, request("GET", path)).status == 200
    assert [(call.method, call.target) for call in backend.requests] == [("GET", path)]


def test_a_time_budget_in_the_body_counts(proxy: Proxy, backend: Backend) -> None:
    with backend.held() as gate, Caller(proxy.url) as first:
        first.send(infer({"x": floats([1])}))
        assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
        hurried = infer({"x": floats([2])}, parameters={"timeout": 50_000})
        assert_error(ask(proxy.url, hurried), 504, "deadline-exceeded")
        gate.open()
        assert first.read_response().status == 200


def test_a_request_that_the_backend_refuses_costs_its_neighbours_nothing(proxy: Proxy, backend: Backend) -> None:
    refuse = status(400, b'{"error":"no such number"}')
    backend.script = lambda exchange: (refuse if b"666" in exchange.request.body else serve)(exchange)
    requests = [infer({"x": np.array([[n]])}) for n in (1, 2, 666, 3)]
    answers = together(proxy, backend, requests, depth=4)
    assert [response.status for response in answers] == [200, 200, 400, 200]
    assert answers[2].body == b'{"error":"no such number"}'
    assert answer_of(answers[3]).tensors["x_out"].tolist() == [[6]]


def test_a_reply_with_other_than_the_batchs_rows_is_nobodys_answer(proxy: Proxy, backend: Backend) -> None:
    backend.script = lambda exchange: exchange.reply(200, write_message("outputs", {"y": floats([1], [2])}, set())[0])
    assert_error(ask(proxy.url, infer({"x": floats([1])})), 502, "backend-contract")
    backend.script = lambda exchange: exchange.reply(200, b'{"outputs":[{"name":"y","shape":[1],"datatype":"FP32"}]}')
    assert_error(ask(proxy.url, infer({"x": floats([1])})), 502, "backend-contract")


def test_what_is_no_request_is_refused_before_it_meets_others(proxy: Proxy, backend: Backend) -> None:
    good = infer({"x": floats([1, 2])})
    assert_error(ask(proxy.url, good.replace(b"[1, 2]", b"[1, 3]")), 400, "bad-request")
    assert_error(ask(proxy.url, good.replace(b"FP32", b"FP99")), 400, "bad-request")
    assert_error(
        ask(proxy.url, good.replace(b"Host", b"Inference-Header-Content-Length: 5\r\nHost")), 400, "bad-request"
    )
    assert_error(ask(proxy.url, request("GET", f"{MODEL}/versions/1/infer")), 405, "method-not-allowed")
    assert backend.requests == []


def test_an_endpoint_without_tensors_refuses_them(proxy: Proxy, backend: Backend) -> None:
    lines = ("Inference-Header-Content-Length: 17",)
    data = request("POST", "/v1/models/rows:predict", lines, b'{"instances":[1]}')
    assert_error(ask(proxy.url, data), 400, "bad-request")
