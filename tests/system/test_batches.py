"""Answers from batches, compared with those alone: what differs ends batching, until it is resumed.

And requests that are the same, sent once.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from bench.processes import Proxy, wait_until
from tests.system import backends as scripted
from tests.system.backends import Backend, Exchange, echo
from tests.system.conftest import StartProxy
from tests.system.endpoint import Endpoint, assert_answer
from tests.system.raw_http import WITHIN_S, Caller, Response, ask, request

TOKEN = "a tökén"
BATCHING = {"policy": "static", "max_size": 16, "max_inflight": 1}


@pytest.fixture(scope="module")
def proxy(start_proxy: StartProxy, shared_backend: Backend) -> Proxy:
    return start_proxy({
        "admin": {"token": TOKEN},
        "endpoints": [
            {"name": "checked", "backend": {"urls": [shared_backend.url]}, "batching": BATCHING | {"verify": 1}},
            {
                "name": "coalescing",
                "backend": {"urls": [shared_backend.url]},
                "batching": BATCHING | {"coalesce": True},
            },
        ],
    })  # fmt: skip


@pytest.fixture
def checked(proxy: Proxy, backend: Backend) -> Iterator[Endpoint]:
    endpoint = Endpoint("checked", proxy, backend)
    yield endpoint
    assert put(endpoint, block_of(endpoint)).status == 200


@pytest.fixture
def coalescing(proxy: Proxy, backend: Backend) -> Endpoint:
    return Endpoint("coalescing", proxy, backend)


def scrambled(exchange: Exchange) -> None:
    """A model that answers batches in the wrong order."""
    exchange.reply(200, scripted.predictions(exchange.request, exchange.request.instances[::-1]))


def authorization(token: str) -> str:
    """The header line; its bytes are those of the token in UTF-8, as in the configuration."""
    return f"Authorization: Bearer {token}".encode().decode("latin-1")


def put(endpoint: Endpoint, block: Any, token: str = TOKEN, name: str = "") -> Response:
    lines = (authorization(token), "Content-Type: application/json")
    body = block if isinstance(block, bytes) else json.dumps(block).encode()
    return ask(endpoint.proxy.admin_url, request("PUT", f"/api/v1/endpoints/{name or endpoint.name}", lines, body))


def detail_of(endpoint: Endpoint) -> dict[str, Any]:
    detail: dict[str, Any] = get(endpoint, TOKEN).json()
    return detail


def get(endpoint: Endpoint, token: str) -> Response:
    lines = (authorization(token),)
    return ask(endpoint.proxy.admin_url, request("GET", f"/api/v1/endpoints/{endpoint.name}", lines))


def block_of(endpoint: Endpoint) -> Any:
    return detail_of(endpoint)["configuration"]


def stop_batching(endpoint: Endpoint) -> None:
    endpoint.backend.script = scrambled
    endpoint.ask_as_one_batch(b"1", b"2")
    assert wait_until(lambda: endpoint.metric("unbatched_lanes") == 1, WITHIN_S)


def assert_goes_alone(endpoint: Endpoint) -> None:
    endpoint.backend.requests.clear()
    with endpoint.backend.held() as gate, ExitStack() as stack:
        callers = [stack.enter_context(Caller(endpoint.proxy.url)) for _ in range(3)]
        for caller, instance in zip(callers, (b"0", b"1", b"2"), strict=True):
            caller.send(endpoint.data(instance))
        assert wait_until(lambda: endpoint.queue_depth() == 2, WITHIN_S)
        gate.open()
        for caller, instance in zip(callers, (b"0", b"1", b"2"), strict=True):
            assert_answer(caller.read_response(), instance)
    assert [len(call.instances) for call in endpoint.backend.predictions] == [1, 1, 1]


def test_an_answer_that_is_the_same_changes_nothing(checked: Endpoint) -> None:
    same = checked.metric("verified_total", verdict="same")
    for _ in range(2):
        checked.backend.requests.clear()
        for response, instance in zip(checked.ask_as_one_batch(b"1", b'"b"'), (b"1", b'"b"'), strict=True):
            assert_answer(response, instance)
        assert wait_until(lambda: len(checked.backend.predictions) == 2, WITHIN_S)
        assert checked.backend.predictions[1].instances in ([b"1"], [b'"b"'])
    assert wait_until(lambda: checked.metric("verified_total", verdict="same") == same + 2, WITHIN_S)
    assert checked.metric("unbatched_lanes") == 0


def test_an_answer_that_differs_ends_batching_and_is_told(checked: Endpoint) -> None:
    stop_batching(checked)
    status = detail_of(checked)["status"]
    assert (status["unbatched_lanes"], status["verified"]["different"]) == (1, 1)
    line = "lane stops batching: a request got another answer alone than in its batch endpoint=checked lane="
    assert line in checked.proxy.log_text()
    assert_goes_alone(checked)


def test_the_block_as_it_is_makes_lanes_batch_again(checked: Endpoint) -> None:
    stop_batching(checked)
    checked.backend.forget()
    answer = put(checked, block_of(checked))
    assert answer.status == 200
    assert answer.json() == detail_of(checked)
    assert answer.json()["status"]["unbatched_lanes"] == 0
    checked.ask_as_one_batch(b"1", b"2")


def test_a_check_that_is_not_answered_says_nothing(checked: Endpoint) -> None:
    failed = checked.metric("verified_total", verdict="failed")
    error = scripted.status(500, b"no")
    checked.backend.script = lambda exchange: (echo if len(exchange.request.instances) > 1 else error)(exchange)
    checked.ask_as_one_batch(b"1", b"2")
    assert wait_until(lambda: checked.metric("verified_total", verdict="failed") == failed + 1, WITHIN_S)
    assert checked.metric("unbatched_lanes") == 0


def test_other_blocks_are_refused_with_everything_that_is_wrong(checked: Endpoint) -> None:
    block = block_of(checked)
    invalid = block | {"protocol": "smoke", "batching": {"max_size": 0, "max_sice": 1}, "slo": {"latency": 3}}
    refused = put(checked, invalid)
    assert refused.status == 422
    places = [problem.partition(":")[0] for problem in refused.json()["problems"]]
    assert sorted(places) == ["batching.max_sice", "batching.max_size", "protocol", "slo.latency"]
    assert put(checked, block | {"batching": block["batching"] | {"max_size": 5}}).status == 501
    assert put(checked, []).status == 422
    assert put(checked, b"{").status == 400
    assert put(checked, b'"%b"' % (b" " * 2**20)).status == 413
    assert put(checked, block, name="unknown").status == 404


def test_only_who_has_the_token_writes_and_reads_the_block(checked: Endpoint) -> None:
    for token in ("", "another token", "\xe4"):
        refused = put(checked, block_of(checked), token)
        assert (refused.status, refused.header("www-authenticate")) == (401, "Bearer")
        assert get(checked, token).status == 401
    assert TOKEN not in json.dumps(detail_of(checked), ensure_ascii=False)


def test_a_command_waits_for_the_batchers_successor(checked: Endpoint) -> None:
    stop_batching(checked)
    status = ask(checked.proxy.admin_url, request("GET", "/api/v1/status")).json()
    (pid,) = [process["pid"] for process in status["processes"] if process["name"] == "batcher"]
    block = block_of(checked)
    os.kill(pid, signal.SIGKILL)
    assert put(checked, block).status == 200
    assert checked.metric("unbatched_lanes") == 0
    checked.backend.forget()
    assert_answer(checked.ask(b"3"), b"3")


def ask_at_once(endpoint: Endpoint, *instances: bytes) -> list[Response]:
    """The answers to requests that wait together, behind a call that is not recorded."""
    with endpoint.backend.held() as gate, ExitStack() as stack:
        callers = [stack.enter_context(Caller(endpoint.proxy.url)) for _ in range(len(instances) + 1)]
        callers[0].send(endpoint.data(b'"occupies the slot"'))
        assert wait_until(lambda: len(endpoint.backend.predictions) == 1, WITHIN_S)
        for number, caller in enumerate(callers[1:], start=1):
            caller.send(endpoint.data(instances[number - 1]))
            waiting = len(b",".join(instances[:number]).split(b","))
            assert wait_until(lambda waiting=waiting: endpoint.queue_depth() == waiting, WITHIN_S)  # type: ignore[misc]
        gate.open()
        responses = [caller.read_response() for caller in callers]
    del endpoint.backend.requests[0]
    return responses[1:]


def test_what_is_the_same_is_sent_once_and_answered_to_each(coalescing: Endpoint) -> None:
    instances = [b"1", b"2", b"1", b"3, 4", b"1", b"3, 4"]
    spared = coalescing.metric("coalesced_total")
    responses = ask_at_once(coalescing, *instances)
    for response, instance in zip(responses, instances, strict=True):
        assert_answer(response, instance)
        assert response.header("x-mlproxy-batch-size") == "4"
    assert [call.instances for call in coalescing.backend.predictions] == [[b"1", b"2", b"3", b"4"]]
    assert coalescing.metric("coalesced_total") == spared + 4


def test_a_reply_must_have_as_many_items_as_were_sent(coalescing: Endpoint) -> None:
    coalescing.backend.script = lambda exchange: (
        scripted.with_one_more if exchange.request.instances == [b"1", b"2"] else echo
    )(exchange)
    for response, instance in zip(ask_at_once(coalescing, b"1", b"1", b"2"), (b"1", b"1", b"2"), strict=True):
        assert_answer(response, instance)
    assert len(coalescing.backend.predictions) > 1


def test_poison_that_is_sent_once_fails_for_each_who_sent_it(coalescing: Endpoint) -> None:
    coalescing.backend.script = scripted.poisoned_by(b"6", scripted.status(422, b"its own words"))
    responses = ask_at_once(coalescing, b"6", b"1", b"6", b"2")
    assert [response.status for response in responses] == [422, 200, 422, 200]
    assert responses[0].body == responses[2].body == b"its own words"
    coalescing.backend.requests.clear()
    assert [response.status for response in ask_at_once(coalescing, b"6", b"6", b"3")] == [422, 422, 200]
    calls = [call.instances for call in coalescing.backend.predictions]
    assert sorted(calls) == [[b"3"], [b"6"], [b"6"]]  # it is remembered: nobody is isolated again
