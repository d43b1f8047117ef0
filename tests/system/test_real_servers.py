"""Servers that people have, unchanged, behind the proxy: MLServer and BentoML. Skipped, and said so, where they are not
installed (`tests.system.real_servers` says how).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from bench.processes import Proxy
from tests.system import real_servers
from tests.system.conftest import StartProxy
from tests.system.raw_http import Caller, Response, ask, request

CALLERS = 16
MAX_SIZE = 8
#: One slot and some patience, so that callers at once share batches.
BATCHING: dict[str, Any] = {"policy": "static", "max_size": MAX_SIZE, "max_inflight": 1, "max_linger": "20ms"}
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module", params=["mlserver", "bentoml"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    started = getattr(real_servers, request.param)(tmp_path_factory.mktemp(request.param))
    try:
        started.wait_until_ready(real_servers.START_WITHIN_S)
        yield request.param, started.url
    finally:
        started.stop()


@pytest.fixture(scope="module")
def protocol(server: tuple[str, str]) -> str:
    return {"mlserver": "kserve-v2", "bentoml": "json-list"}[server[0]]


@pytest.fixture(scope="module")
def proxy(start_proxy: StartProxy, server: tuple[str, str], protocol: str) -> Proxy:
    endpoint = {"name": "iris", "protocol": protocol, "backend": {"urls": [server[1]]}, "batching": BATCHING}
    return start_proxy({"endpoints": [endpoint]})


def predict(protocol: str, number: int, xs: Sequence[int]) -> bytes:
    headers = ("Content-Type: application/json",)
    if protocol == "json-list":
        return request("POST", "/iris/predict", headers, json.dumps([{"x": x} for x in xs]).encode())
    x = {"name": "x", "datatype": "INT64", "shape": [len(xs), 1], "data": list(xs)}
    body = json.dumps({"id": f"r{number}", "inputs": [x]}).encode()
    return request("POST", "/v2/models/iris/infer", headers, body)


def doubled(protocol: str, number: int, response: Response) -> tuple[list[int], list[int]]:
    """What an answer says: the doubled rows, and with how many rows each was in a call."""
    assert response.status == 200, response
    document = response.json()
    if protocol == "json-list":
        return [item["x"] for item in document], [item["rows"] for item in document]
    outputs = {output["name"]: output["data"] for output in document["outputs"]}
    assert document["id"] == f"r{number}"
    assert document["model_name"] == "iris"
    return outputs["x_out"], outputs["rows"]


def at_once(proxy: Proxy, requests: Sequence[bytes]) -> list[Response]:
    with ExitStack() as stack:
        callers = [stack.enter_context(Caller(proxy.url)) for _ in requests]
        for caller, data in zip(callers, requests, strict=True):
            caller.send(data)
        return [caller.read_response() for caller in callers]


def test_callers_at_once_share_calls_and_each_gets_its_own(proxy: Proxy, protocol: str) -> None:
    rows = [[10 * number + index for index in range(1 + number % 3)] for number in range(CALLERS)]
    responses = at_once(proxy, [predict(protocol, number, xs) for number, xs in enumerate(rows)])
    company = []
    for number, (xs, response) in enumerate(zip(rows, responses, strict=True)):
        answer, together = doubled(protocol, number, response)
        assert answer == [2 * x for x in xs]
        company += together
    assert max(company) > max(len(xs) for xs in rows), "nobody shared a call"


def test_a_request_larger_than_a_batch_comes_back_whole(proxy: Proxy, protocol: str) -> None:
    answer, together = doubled(protocol, 1, ask(proxy.url, predict(protocol, 1, range(30))))
    assert answer == [2 * x for x in range(30)]
    assert max(together) <= MAX_SIZE


def test_what_the_server_refuses_is_one_callers_with_the_servers_own_words(
    proxy: Proxy, server: tuple[str, str], protocol: str
) -> None:
    requests = [predict(protocol, number, [-1 if number == 5 else number]) for number in range(8)]
    responses = at_once(proxy, requests)
    path = {"json-list": b"POST /predict "}.get(protocol)
    alone = ask(server[1], requests[5] if path is None else requests[5].replace(b"POST /iris/predict ", path))
    assert alone.status >= 400
    assert (responses[5].status, responses[5].body) == (alone.status, alone.body)
    for number in set(range(8)) - {5}:
        assert doubled(protocol, number, responses[number])[0] == [2 * number]


def test_what_is_no_prediction_passes_through(proxy: Proxy, server: tuple[str, str], protocol: str) -> None:
    if protocol == "json-list":
        pytest.skip("BentoML has nothing at the endpoint's prefix")
    for path in ("/v2/models/iris", "/v2/models/iris/ready"):
        assert ask(proxy.url, request("GET", path)).body == ask(server[1], request("GET", path)).body
