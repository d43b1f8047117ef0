"""Formats beside rows and tensors through a running proxy: each caller gets what it would have got alone."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import pytest

from bench.processes import Proxy, wait_until
from tests.system.backends import Backend, Exchange
from tests.system.conftest import StartProxy
from tests.system.endpoint import assert_error
from tests.system.iris import IRIS
from tests.system.raw_http import WITHIN_S, Caller, Response, ask, read_metric, request

MAX_SIZE = 4
EMBEDDINGS = "/v1/embeddings"
NESTED, BARE = "/deep/score", "/list/score"


@pytest.fixture(scope="module")
def proxy(start_proxy: StartProxy, shared_backend: Backend) -> Proxy:
    """One slot, so that a held call makes all others queue."""
    batching = {"policy": "static", "max_size": MAX_SIZE, "max_inflight": 1}
    backend = {"urls": [shared_backend.url]}
    endpoints: list[dict[str, Any]] = [
        {"name": "iris"},
        {"name": "bge", "protocol": "openai-embeddings"},
        {"name": "minilm", "protocol": "openai-embeddings", "route": "/minilm/v1/embeddings"},
        {
            "name": "nested", "protocol": "custom", "route": "/nested", "backend": {**backend, "path": NESTED},
            "request": {"items": "/data/0/rows", "constants": {"model": "m"}},
            "response": {"items": "/results/scores"},
        },
        {
            "name": "bare", "protocol": "custom", "route": "/bare", "backend": {**backend, "path": BARE},
            "request": {"items": "", "wrap": True}, "response": {"items": "", "unwrap": True},
        },
    ]  # fmt: skip
    return start_proxy({"endpoints": [{"backend": backend, "batching": batching, **one} for one in endpoints]})


@pytest.fixture
def backend(backend: Backend) -> Backend:
    backend.script = serve
    return backend


def post(path: str, document: Any) -> bytes:
    return request("POST", path, ("Content-Type: application/json",), json.dumps(document).encode())


def together(proxy: Proxy, backend: Backend, endpoint: str, path: str, documents: list[Any]) -> list[Response]:
    """The answers to requests that were all waiting when the slot became free, behind a call of the first's kind."""
    with backend.held() as gate, ExitStack() as stack:
        callers = [stack.enter_context(Caller(proxy.url)) for _ in range(len(documents) + 1)]
        callers[0].send(post(path, documents[0]))
        assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
        for caller, document in zip(callers[1:], documents, strict=True):
            caller.send(post(path, document))
            # The worker's loop has read what came before it answers a later request: the order of arrival is ours.
            assert ask(proxy.url, request("GET", "/healthz")).status == 200
        depth = f'mlproxy_queue_depth{{endpoint="{endpoint}"}}'
        assert wait_until(lambda: read_metric(proxy.admin_url, depth) > 0, WITHIN_S)
        gate.open()
        answers = [caller.read_response() for caller in callers]
    del backend.requests[0]
    assert answers[0].body == answers[1].body
    return answers[1:]


def sent(backend: Backend) -> list[Any]:
    """What each call carried."""
    return [json.loads(bytes(call.body)) for call in backend.predictions]


# --- a model server that computes item by item ---------------------------------------------------------------------


def serve(exchange: Exchange) -> None:
    """The right answer to a batch, by the path it comes to."""
    answer = ANSWERS[exchange.request.target](json.loads(bytes(exchange.request.body)))
    exchange.reply(200, json.dumps(answer).encode(), "Content-Type: application/json")


def columns(document: Any) -> Any:
    inputs = document["inputs"]
    if isinstance(inputs, list):
        return {"outputs": [2 * row for row in inputs]}
    return {"outputs": {f"{name}_out": [2 * row for row in rows] for name, rows in inputs.items()}, "model": "m"}


def embeddings(document: Any) -> Any:
    """As vLLM answers, last item first; a text is as many tokens as it has letters."""
    inputs = document["input"]
    texts = inputs if isinstance(inputs, list) and not isinstance(inputs[0], int) else [inputs]
    data = [{"object": "embedding", "index": n, "embedding": [len(text), 0.5]} for n, text in enumerate(texts)]
    tokens = sum(map(len, texts))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}
    return {"id": "embd-1", "object": "list", "data": data[::-1], "model": document["model"], "usage": usage}


def nested(document: Any) -> Any:
    return {"results": {"scores": [2 * row for row in document["data"][0]["rows"]], "model": document["model"]}}


def listed(rows: Any) -> Any:
    return [{"of": row} for row in rows]


ANSWERS = {IRIS: columns, EMBEDDINGS: embeddings, NESTED: nested, BARE: listed}


# --- columns -------------------------------------------------------------------------------------------------------


def test_columns_are_batched_by_name_and_each_caller_gets_its_own_rows(proxy: Proxy, backend: Backend) -> None:
    documents = [
        {"inputs": {"a": [1], "b": ["x"]}},
        {"inputs": {"b": ["y", "z"], "a": [2.5, 3]}},
        {"inputs": [4]},
        {"inputs": {"a": [5], "b": ["w"]}},
    ]
    answers = together(proxy, backend, "iris", IRIS, documents)
    assert [answer.json() for answer in answers] == [columns(document) for document in documents]
    assert sorted(sent(backend), key=str) == [
        {"inputs": [4]},
        {"inputs": {"a": [1, 2.5, 3, 5], "b": ["x", "y", "z", "w"]}},
    ]


def test_columns_longer_than_a_batch_may_be_travel_in_parts(proxy: Proxy, backend: Backend) -> None:
    document = {"inputs": {"a": [[number, 0.5] for number in range(10)], "b": list("abcdefghij")}}
    assert ask(proxy.url, post(IRIS, document)).json() == columns(document)
    assert [len(call["inputs"]["a"]) for call in sent(backend)] == [4, 4, 2]


def test_columns_of_different_lengths_are_refused(proxy: Proxy, backend: Backend) -> None:
    response = ask(proxy.url, post(IRIS, {"inputs": {"a": [1], "b": [1, 2]}}))
    assert_error(response, 400, "bad-request")
    assert "same first dimension" in response.json()["detail"]
    assert backend.predictions == []


# --- embeddings ----------------------------------------------------------------------------------------------------


def in_order(answer: Any) -> Any:
    """An answer as the proxy gives it: its items stand in the order of their inputs."""
    return answer | {"data": sorted(answer["data"], key=lambda item: item["index"])}


def test_embeddings_are_batched_by_model_and_each_caller_gets_its_own_items_and_usage(
    proxy: Proxy, backend: Backend
) -> None:
    documents = [
        {"model": "a", "input": "one text"},
        {"input": ["x", "yy"], "model": "a"},
        {"model": "b", "input": ["other"]},
        {"model": "a", "input": [1, 2, 3]},
        {"model": "a", "input": [[4], [5, 6]]},
    ]
    answers = together(proxy, backend, "bge", EMBEDDINGS, documents)
    assert [answer.json() for answer in answers] == [in_order(embeddings(document)) for document in documents]
    assert sorted(sent(backend), key=str) == [
        {"model": "a", "input": ["one text", "x", "yy"]},
        {"model": "a", "input": [[1, 2, 3], [4], [5, 6]]},
        {"model": "b", "input": ["other"]},
    ]


def test_more_embeddings_than_a_batch_may_have_are_one_answer_with_the_usage_of_all(
    proxy: Proxy, backend: Backend
) -> None:
    document = {"model": "a", "input": ["x" * length for length in range(1, 7)]}
    assert ask(proxy.url, post(EMBEDDINGS, document)).json() == in_order(embeddings(document))
    assert [len(call["input"]) for call in sent(backend)] == [4, 2]


def test_a_second_model_has_a_route_of_its_own(proxy: Proxy, backend: Backend) -> None:
    document = {"model": "m", "input": "text"}
    answer = ask(proxy.url, post("/minilm/v1/embeddings", document))
    assert answer.json() == embeddings(document)
    assert read_metric(proxy.admin_url, 'mlproxy_requests_total{code="200",endpoint="minilm"}') == 1
    assert_error(ask(proxy.url, request("GET", EMBEDDINGS)), 405, "method-not-allowed")


# --- custom --------------------------------------------------------------------------------------------------------


def test_instances_deep_in_a_body_are_batched_where_a_pointer_says_they_are(proxy: Proxy, backend: Backend) -> None:
    documents: list[dict[str, Any]] = [
        {"data": [{"rows": [1, 2], "k": "a"}, "rest"]},
        {"data": [{"k": "a", "rows": ["x"]}, "rest"], "model": "not mine to say"},
        {"data": [{"rows": [[3]]}, "rest"]},
    ]
    answers = together(proxy, backend, "nested", "/nested", documents)
    assert [answer.json() for answer in answers] == [nested(document | {"model": "m"}) for document in documents]
    assert sorted(sent(backend), key=str) == [
        {"model": "m", "data": [{"k": "a", "rows": [1, 2, "x"]}, "rest"]},
        {"model": "m", "data": [{"rows": [[3]]}, "rest"]},
    ]


def test_bare_bodies_are_wrapped_and_their_answers_unwrapped(proxy: Proxy, backend: Backend) -> None:
    documents: list[Any] = [{"a": 1}, [1, 2], "text", None]
    answers = together(proxy, backend, "bare", "/bare", documents)
    assert [answer.json() for answer in answers] == [{"of": document} for document in documents]
    assert sent(backend) == [documents]
    assert_error(ask(proxy.url, request("POST", "/bare", (), b"{")), 400, "bad-request")
