"""Values that do not go together are refused, those that are only unwise are told, and defaults are neither."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mlproxy.config import Configuration, advice

BACKEND: dict[str, Any] = {"urls": ["http://model:9000"]}


def configuration(*endpoints: dict[str, Any], **sections: Any) -> Configuration:
    given = [{"name": "iris", "backend": BACKEND} | keys for keys in endpoints or ({},)]
    return Configuration.model_validate({"endpoints": given, **sections})


def advised(*endpoints: dict[str, Any], **sections: Any) -> list[str]:
    return [str(one) for one in advice(configuration(*endpoints, **sections))]


@pytest.mark.parametrize(
    "batching",
    [
        {"max_size": 8}, {"max_linger": "1ms"}, {"max_size": 8, "max_linger": "1ms"}, {"verify": 0.1},
        {"coalesce": True},
        {"verify": 0.1, "verify_tolerance": 0.1}, {"verify_tolerance": 0.1},
    ],
)  # fmt: skip
def test_a_batch_key_without_batching_would_be_a_silent_no_op_and_is_refused(batching: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="would do nothing with policy none"):
        configuration({"batching": {"policy": "none", **batching}})


def test_a_linger_as_long_as_the_objective_leaves_nothing_for_the_backend() -> None:
    slo = {"latency": "100ms"}
    with pytest.raises(ValidationError, match=r"leaves nothing of slo\.latency 100ms"):
        configuration({"slo": slo, "batching": {"max_linger": "100ms"}})
    shorter = configuration({"slo": slo, "batching": {"max_linger": "99ms"}})
    assert shorter.endpoints[0].batching.max_linger_ns == 99_000_000


@pytest.mark.parametrize(
    ("second", "what"), [({}, "name iris"), ({"name": "b", "route": "/v1/models/iris:predict"}, "route /v1/models")]
)
def test_two_endpoints_never_share_a_name_or_a_route(second: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=rf"endpoints\[0\] and endpoints\[1\] have the same {what}"):
        configuration({}, second)


def test_many_endpoints_of_one_name_are_one_short_line() -> None:
    with pytest.raises(ValidationError) as caught:
        configuration(*[{}] * 1000)
    (error,) = caught.value.errors()
    assert error["msg"] == "Value error, endpoints[0] and endpoints[1] (and 998 more) have the same name iris"


def test_the_two_ports_differ_unless_the_kernel_chooses_them() -> None:
    with pytest.raises(ValidationError, match="both 9000"):
        configuration(server={"port": 9000}, admin={"port": 9000})
    assert configuration(server={"port": 0}, admin={"port": 0}).server.port == 0


@pytest.mark.parametrize("workers", [1, "auto"])
def test_the_queue_holds_at_least_one_largest_body(workers: object) -> None:
    with pytest.raises(ValidationError, match=r"limits\.queue_bytes 1MiB is less than limits\.body 16MiB, so"):
        configuration(server={"workers": workers}, limits={"queue_bytes": "1MiB"})


def test_every_worker_can_keep_a_largest_body_in_its_share_of_the_queue() -> None:
    assert configuration(server={"workers": 16}).most_workers == 16
    with pytest.raises(ValidationError, match=r"for each of 17 workers.* at least 272MiB would do"):
        configuration(server={"workers": 17})
    assert configuration(server={"workers": 17}, limits={"queue_bytes": "272MiB"}).most_workers == 17


def test_authorities_that_would_not_be_asked_are_refused() -> None:
    with pytest.raises(ValidationError, match="ca_file would do nothing with verify: false"):
        configuration({"backend": {**BACKEND, "tls": {"verify": False, "ca_file": "/ca.pem"}}})


def test_defaults_need_no_advice() -> None:
    assert advised() == []


def test_calls_beyond_the_connections_would_wait_where_nobody_sees_them() -> None:
    backend = {**BACKEND, "max_connections": 2}
    assert advised({"backend": backend})[0].startswith("endpoints[0]: 4 calls in flight, but 2 connections")
    assert advised({"backend": backend, "batching": {"max_inflight": 2}}) == []
    assert advised({"backend": {**backend, "urls": ["http://a", "http://b"]}}) == []


def test_a_batch_size_that_the_queue_can_never_reach_is_told() -> None:
    limits = {"queue_instances": 10}
    assert advised(limits=limits) == [
        "endpoints[0]: batching.max_size 128 is never reached: limits.queue_instances is 10"
    ]
    assert advised({"batching": {"policy": "none"}}, limits=limits) == []
    assert advised({"batching": {"max_size": 10}}, limits=limits) == []


CUSTOM: dict[str, Any] = {
    "protocol": "custom", "route": "/score", "backend": {**BACKEND, "path": "/score"}, "request": {"items": "/a/b"},
    "response": {"items": ""},
}  # fmt: skip


def test_protocol_custom_says_what_it_needs() -> None:
    assert configuration(CUSTOM).endpoints[0].request.items == "/a/b"
    names = r"give it route, backend\.path, request\.items, response\.items"
    with pytest.raises(ValidationError, match=rf"protocol custom has no defaults of its own; {names} \["):
        configuration({"protocol": "custom"})
    for key, name in (("route", "route"), ("request", r"request\.items"), ("response", r"response\.items")):
        rest = {one: value for one, value in CUSTOM.items() if one != key}
        with pytest.raises(ValidationError, match=rf"give it {name} \["):
            configuration(rest)


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"request": {"items": "/a"}}, r"request\.items would do nothing with protocol kserve-v1"),
        ({"response": {"unwrap": True}}, r"response\.unwrap would do nothing with protocol kserve-v1"),
        ({**CUSTOM, "response": {"items": "/a", "unwrap": True}}, r"response\.unwrap needs request\.wrap"),
        ({**CUSTOM, "request": {"items": "", "constants": {"k": 1}}}, "must be a member of another name"),
        ({**CUSTOM, "request": {"items": "/a~1b/c", "constants": {"a/b": 1}}}, "must be a member of another name"),
    ],
)
def test_what_custom_is_told_must_be_able_to_act(keys: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        configuration(keys)


def test_a_second_endpoint_of_embeddings_needs_a_route_of_its_own() -> None:
    first, second = ({"name": name, "protocol": "openai-embeddings"} for name in ("bge", "minilm"))
    what = r"have the same route /v1/embeddings; give one of them a route of its own, such as /minilm/v1/embeddings \["
    with pytest.raises(ValidationError, match=what):
        configuration(first, second)
    both = configuration(first, {**second, "route": "/minilm/v1/embeddings"}).endpoints
    assert [one.prefix for one in both] == ["/v1/embeddings", "/minilm/v1/embeddings"]


def test_a_tolerance_without_checks_would_do_nothing() -> None:
    for batching in ({"verify_tolerance": 0.1}, {"verify_tolerance": 0.1, "verify": 0}):
        with pytest.raises(ValidationError, match="verify_tolerance would do nothing without verify, which is 0"):
            configuration({"batching": batching})
    configuration({"batching": {"verify_tolerance": 0.1, "verify": 0.01}})


def test_what_is_off_goes_with_every_policy() -> None:
    configuration({"batching": {"policy": "none", "verify": 0, "coalesce": False}})
