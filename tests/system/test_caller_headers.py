"""What callers say in headers: what reaches the backend with a batch, and who may share one."""

from __future__ import annotations

import time
from contextlib import ExitStack

import numpy as np
import pytest

from bench.processes import Proxy, wait_until
from tests.system.backends import Backend
from tests.system.conftest import StartProxy
from tests.system.endpoint import Endpoint, assert_error
from tests.system.raw_http import WITHIN_S, Caller, Response, ask, request
from tests.system.tensors import answer_of, batch_of, infer, serve

#: All that a batch says to a backend by itself.
OWN = {"host", "content-type", "accept", "accept-encoding", "user-agent", "content-length"}
TIMEOUT_MS = 5000
#: What a machine that others use too mostly needs to say something; the proxy's own looks are 500 ms apart.
SOON_MS = 50
LANE_HEADERS = ["Authorization", "x-tenant"]


@pytest.fixture(scope="module")
def proxy(start_proxy: StartProxy, shared_backend: Backend) -> Proxy:
    """One slot each, so that a held call makes all others queue."""
    backend = {"urls": [shared_backend.url], "timeout": f"{TIMEOUT_MS}ms", "scaling": {"slots": 1}}
    static = {"policy": "static", "max_size": 8}
    return start_proxy({
        "endpoints": [
            {"name": "plain", "backend": backend, "batching": static},
            {"name": "slo", "backend": backend, "batching": {"policy": "slo"}},
            {"name": "tensors", "protocol": "kserve-v2", "backend": backend, "batching": static},
            {"name": "tenants", "backend": backend, "batching": {**static, "lane_headers": LANE_HEADERS}},
        ],
    })  # fmt: skip


@pytest.fixture
def plain(proxy: Proxy, backend: Backend) -> Endpoint:
    return Endpoint("plain", proxy, backend)


@pytest.fixture
def tenants(proxy: Proxy, backend: Backend) -> Endpoint:
    return Endpoint("tenants", proxy, backend)


def predict(endpoint: Endpoint, instance: bytes, *headers: str) -> bytes:
    body = b'{"instances": [%b]}' % instance
    return request("POST", f"/v1/models/{endpoint.name}:predict", ("Content-Type: application/json", *headers), body)


def ask_together(endpoint: Endpoint, *requests: bytes, first: bytes = b"") -> list[Response]:
    """The answers to requests that were all waiting when the slot became free."""
    backend = endpoint.backend
    with backend.held() as gate, ExitStack() as stack:
        callers = [stack.enter_context(Caller(endpoint.proxy.url)) for _ in range(len(requests) + 1)]
        callers[0].send(first or predict(endpoint, b'"occupies the slot"'))
        assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
        for caller, data in zip(callers[1:], requests, strict=True):
            caller.send(data)
        assert wait_until(lambda: endpoint.queue_depth() == len(requests), WITHIN_S)
        gate.open()
        assert callers[0].read_response().status == 200
        answers = [caller.read_response() for caller in callers[1:]]
    del backend.requests[0]
    return answers


def names(call: object) -> set[str]:
    return {name.lower() for name, _ in getattr(call, "headers")}  # noqa: B009


# --- lane headers ---------------------------------------------------------------------------------------------------


def test_only_requests_of_one_tenant_share_a_batch_and_it_says_whose_it_is(tenants: Endpoint) -> None:
    said = [
        (), ("X-Tenant:",), ("X-Tenant: a",), ("X-TENANT:   a",), ("x-tenant: b",),
        ("X-Tenant: a", "Authorization: Bearer 1"), ("authorization: Bearer 1", "x-tenant: a"),
        ("X-Tenant: a", "X-Tenant: b"), ("X-Tenant: a, b",), (), ("x-tenant: b",),
    ]  # fmt: skip
    answers = ask_together(tenants, *[predict(tenants, b"%d" % n, *headers) for n, headers in enumerate(said)])
    assert [answer.body for answer in answers] == [b'{"predictions": [%d]}' % n for n in range(len(said))]
    batches = {
        tuple(sorted(int(instance) for instance in call.instances)): [
            (name, value) for name, value in call.headers if name in ("x-tenant", "authorization")
        ]
        for call in tenants.backend.predictions
    }
    assert batches == {
        (0, 9): [],
        (1,): [("x-tenant", "")],
        (2, 3): [("x-tenant", "a")],
        (4, 10): [("x-tenant", "b")],
        (5, 6): [("authorization", "Bearer 1"), ("x-tenant", "a")],
        (7,): [("x-tenant", "a"), ("x-tenant", "b")],
        (8,): [("x-tenant", "a, b")],
    }


def test_a_batch_takes_no_other_header_from_any_of_its_members(plain: Endpoint, tenants: Endpoint) -> None:
    for endpoint, lane_headers in ((plain, set()), (tenants, {"x-tenant"})):
        endpoint.backend.forget()
        headers = (
            "X-Tenant: a", "Cookie: c", "traceparent: 00-1-2-01", "X-Forwarded-For: 1.2.3.4", "User-Agent: me",
            "Accept-Language: de", "X-Request-Id: mine",
        )  # fmt: skip
        data = predict(endpoint, b"1", *headers), predict(endpoint, b"2", "X-Tenant: a", "Cookie: d")
        assert [answer.status for answer in ask_together(endpoint, *data)] == [200, 200]
        [call] = endpoint.backend.predictions
        assert names(call) == OWN | lane_headers
        assert call.header("user-agent") != "me"


def test_a_connection_that_changes_its_tenant_is_not_taken_for_the_one_before(tenants: Endpoint) -> None:
    said = ["a", "a", "b", "b", "b", "a"]
    with Caller(tenants.proxy.url) as caller:
        for tenant in said:
            assert caller.call(predict(tenants, b"1", f"X-Tenant: {tenant}")).status == 200
    assert [call.header("x-tenant") for call in tenants.backend.predictions] == said


# --- priority -------------------------------------------------------------------------------------------------------


def test_who_has_a_priority_stands_before_who_came_earlier(plain: Endpoint) -> None:
    said = [(), (), ("X-MLProxy-Priority: 2",), ("x-mlproxy-priority: 1",), ("X-MLProxy-Priority: 0",)]
    answers = ask_together(plain, *[predict(plain, b"%d" % n, *headers) for n, headers in enumerate(said)])
    assert [answer.body for answer in answers] == [b'{"predictions": [%d]}' % n for n in range(len(said))]
    [call] = plain.backend.predictions
    assert call.instances[:2] == [b"3", b"2"]
    assert sorted(call.instances[2:]) == [b"0", b"1", b"4"]
    assert "x-mlproxy-priority" not in names(call)


def test_the_priority_in_a_body_counts_where_no_header_states_one(proxy: Proxy, backend: Backend) -> None:
    backend.script = serve
    endpoint = Endpoint("tensors", proxy, backend)
    said: list[tuple[int | None, tuple[str, ...]]] = [
        (None, ()), (1, ("X-MLProxy-Priority: 0",)), (2, ()), (255, ("X-MLProxy-Priority: 1",)),
    ]  # fmt: skip
    requests = [
        infer({"x": np.array([n])}, path="/v2/models/tensors/infer", headers=headers, parameters={"priority": priority})
        for n, (priority, headers) in enumerate(said)
    ]
    answers = ask_together(endpoint, *requests, first=infer({"x": np.array([9])}, path="/v2/models/tensors/infer"))
    assert [answer_of(answer).tensors["x_out"].tolist() for answer in answers] == [[2 * n] for n in range(len(said))]
    [call] = backend.predictions
    assert batch_of(call).tensors["x"].tolist()[:2] == [3, 2]
    assert "parameters" not in batch_of(call).document


def test_a_bad_priority_is_refused_with_what_would_do(plain: Endpoint) -> None:
    response = ask(plain.proxy.url, predict(plain, b"1", "X-MLProxy-Priority: high"))
    assert_error(response, 400, "bad-request")
    assert "1 is the most urgent" in response.json()["error"]


# --- the time that is left ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budgets_ms", "least", "most"),
    [([2000, 4999], 2000, 4998), ([100_000, 3000], TIMEOUT_MS, TIMEOUT_MS), ([3000, 0], None, None)],
    ids=["as long as the most patient waits", "at most as long as the proxy waits", "one has no deadline"],
)
def test_the_backend_is_told_how_long_somebody_waits_for_it(
    plain: Endpoint, budgets_ms: list[int], least: int | None, most: int | None
) -> None:
    requests = [predict(plain, b"1", f"X-Request-Timeout-Ms: {budget_ms}") for budget_ms in budgets_ms]
    assert [answer.status for answer in ask_together(plain, *requests)] == [200] * len(budgets_ms)
    [call] = plain.backend.predictions
    told = call.header("x-request-timeout-ms")
    if least is None or most is None:
        assert told is None
    else:
        assert least <= int(told or 0) <= most


# --- when the time is over ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "slo"], ids=["static", "slo"])
def test_who_waits_for_a_slot_is_told_at_the_moment_when_its_time_is_over(
    proxy: Proxy, backend: Backend, name: str
) -> None:
    endpoint = Endpoint(name, proxy, backend)
    budgets_ms = [450, 200, 380, 270, 330]  # most of the later ones are over first
    with backend.held() as gate, ExitStack() as stack:
        first, patient, *callers = [stack.enter_context(Caller(proxy.url)) for _ in range(2 + len(budgets_ms))]
        first.send(predict(endpoint, b'"occupies the slot"'))
        assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
        patient.send(predict(endpoint, b'"patient"'))
        sent_s, over_ms = [], []
        for caller, budget_ms in zip(callers, budgets_ms, strict=True):
            sent_s.append(time.monotonic())
            caller.send(predict(endpoint, b'"hasty"', f"X-Request-Timeout-Ms: {budget_ms}"))
        for index in sorted(range(len(budgets_ms)), key=lambda index: sent_s[index] + budgets_ms[index] / 1000):
            assert_error(callers[index].read_response(), 504, "deadline-exceeded")
            over_ms.append((time.monotonic() - sent_s[index]) * 1000 - budgets_ms[index])
        assert min(over_ms) >= 0
        assert sorted(over_ms)[len(over_ms) // 2] < SOON_MS, f"milliseconds after the deadlines: {over_ms}"
        gate.open()
        assert first.read_response().status == patient.read_response().status == 200
    assert sum(call.instances.count(b'"hasty"') for call in backend.predictions) == 0
