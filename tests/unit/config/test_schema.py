"""What may be configured, what is refused, and that a configuration arrives in a role process as it left."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mlproxy.config import Configuration, Endpoint

BACKEND: dict[str, Any] = {"urls": ["http://model:9000"]}


def endpoint(**keys: Any) -> Endpoint:
    return Endpoint.model_validate({"name": "iris", "backend": BACKEND, **keys})


def configuration(**keys: Any) -> Configuration:
    return Configuration.model_validate({"endpoints": [{"name": "iris", "backend": BACKEND}], **keys})


def test_the_defaults_are_those_that_the_documents_promise() -> None:
    defaults = configuration()
    assert (defaults.server.host, defaults.server.port, defaults.server.workers) == ("0.0.0.0", 8080, "auto")
    assert (defaults.admin.host, defaults.admin.port) == ("127.0.0.1", 8081)
    assert (defaults.limits.body_bytes, defaults.limits.header_bytes) == (16 * 2**20, 32 * 2**10)
    assert (defaults.limits.queue_instances, defaults.limits.queue_bytes) == (10_000, 256 * 2**20)
    assert defaults.logging.access is False
    only = defaults.endpoints[0]
    assert (only.protocol, only.slo.latency_ns, only.slo.share) == ("kserve-v1", 500_000_000, 0.99)
    assert (only.batching.policy, only.batching.max_size, only.batching.max_linger_ns) == ("slo", 128, None)
    assert (only.backend.timeout_ns, only.backend.retry.attempts) == (5_000_000_000, 2)


@pytest.mark.parametrize(
    ("protocol", "predict", "prefix", "backend"),
    [
        ("kserve-v1", "/v1/models/iris:predict", "/v1/models/iris", "/v1/models/iris:predict"),
        ("kserve-v2", "/v2/models/iris/infer", "/v2/models/iris", "/v2/models/iris/infer"),
        ("json-list", "/iris/predict", "/iris", "/predict"),
        ("openai-embeddings", "/v1/embeddings", "/v1/embeddings", "/v1/embeddings"),
    ],
)
def test_a_protocol_brings_its_own_paths(protocol: str, predict: str, prefix: str, backend: str) -> None:
    plain = endpoint(protocol=protocol)
    assert (plain.predict_path, plain.prefix, plain.backend_path) == (predict, prefix, backend)


def test_a_route_and_a_backend_path_replace_the_protocols_own() -> None:
    custom = endpoint(route="/score", backend={**BACKEND, "path": "/v1/models/other:predict"})
    assert (custom.predict_path, custom.backend_path) == ("/score", "/v1/models/other:predict")
    assert custom.prefix == "/v1/models/iris"


def test_a_version_of_the_model_stands_in_the_path_before_its_end() -> None:
    plain = endpoint(protocol="kserve-v2")
    assert plain.names_versions
    assert plain.versioned_backend_path("3") == "/v2/models/iris/versions/3/infer"
    assert plain.versioned_backend_path("") == plain.backend_path
    other = endpoint(protocol="kserve-v2", backend={**BACKEND, "path": "/v2/models/other/infer"})
    assert other.versioned_backend_path("3") == "/v2/models/other/versions/3/infer"


@pytest.mark.parametrize(
    "keys",
    [
        {"protocol": "kserve-v1"},
        {"protocol": "kserve-v2", "route": "/score"},
        {"protocol": "kserve-v2", "backend": {**BACKEND, "path": "/score"}},
        {"protocol": "kserve-v2", "backend": {**BACKEND, "path": "/v2/models/iris/versions/1/infer"}},
    ],
)
def test_where_a_call_cannot_name_a_version_callers_cannot_either(keys: dict[str, Any]) -> None:
    assert not endpoint(**keys).names_versions


@pytest.mark.parametrize("name", ["iris", "Iris2", "a", "a-b_c.d", "0"])
def test_a_name_that_can_stand_in_a_url_is_taken(name: str) -> None:
    assert endpoint(name=name).name == name


@pytest.mark.parametrize("name", ["", "a/b", "a b", "-a", "a-", ".", "..", "ä", "a:b", "a%", "a\n"])
def test_a_name_that_cannot_stand_in_a_url_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="stands in URLs"):
        endpoint(name=name)


@pytest.mark.parametrize("route", ["score", "", "/a b", "/a?b", "/a#b", "/a%20b", "/a\n", "/ä", "/\x00"])
def test_a_route_must_be_a_plain_absolute_path(route: str) -> None:
    with pytest.raises(ValidationError, match="absolute path"):
        endpoint(route=route)
    with pytest.raises(ValidationError, match="absolute path"):
        endpoint(backend={**BACKEND, "path": route})


@pytest.mark.parametrize("route", ["/healthz", "/readyz"])
def test_a_route_must_not_hide_the_proxys_own_health(route: str) -> None:
    with pytest.raises(ValidationError, match="own health route"):
        endpoint(route=route)


@pytest.mark.parametrize(
    "url", ["http://a", "https://a:8443", "http://[::1]:9000", "http://a.b.svc.cluster.local/prefix"]
)
def test_a_backend_is_a_plain_http_url(url: str) -> None:
    assert endpoint(backend={"urls": [url]}).backend.urls == (url,)


@pytest.mark.parametrize(
    "urls",
    [
        [],
        ["model:9000"],
        ["ftp://a"],
        ["http://"],
        ["http://a?x=1"],
        ["http://a#x"],
        ["http://user@a"],
        ["http://a", "http://a"],
        ["http://[x"],
        ["http://a:99999"],
        ["http://a:port"],
        ["http://a b"],
        ["http://:pw@a"],
        ["http://a?"],
        ["http://<model>"],
        ["http://a..b"],
        ["http://ä"],
        ["http://a\r\nhost: b"],
        "http://a",
    ],
)  # fmt: skip
def test_anything_else_is_no_backend(urls: object) -> None:
    with pytest.raises(ValidationError):
        endpoint(backend={"urls": urls})


@pytest.mark.parametrize("url", ["http://user:secret@a", "user:secret@a", "http://a b:secret@c"])
def test_a_password_in_a_url_is_not_written_to_the_log(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        endpoint(backend={"urls": [url]})
    assert "secret" not in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    "keys",
    [
        {"server": {"workers": 0}},
        {"server": {"workers": "three"}},
        {"server": {"workers": True}},
        {"server": {"port": -1}},
        {"server": {"port": 65536}},
        {"server": {"port": "8080"}},
        {"server": {"drain_timeout": "0s"}},
        {"server": {"ring": "64B"}},
        {"server": {"ring": "2GiB"}},
        {"limits": {"body": 0}},
        {"limits": {"queue_instances": 0}},
        {"limits": {"queue_instances": 1.5}},
        {"limits": {"header_timeout": 10}},
        {"logging": {"level": "INFO"}},
        {"logging": {"access": "yes"}},
        {"endpoints": []},
        {"surprise": 1},
    ],
)  # fmt: skip
def test_a_value_out_of_its_range_or_type_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        configuration(**keys)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1", "localhost", "my_host", "a.b-c.example.", "fe80::1%eth0"])
def test_an_address_or_a_host_name_can_be_listened_on(host: str) -> None:
    assert configuration(server={"host": host}, admin={"host": host}).server.host == host


@pytest.mark.parametrize("host", ["", " ", "a b", "a..b", ".", "-a", "a" * 64, "a." * 127, "http://a", "a:1", "[::1]"])
def test_what_no_socket_could_be_bound_to_is_refused_before_anything_is_started(host: str) -> None:
    with pytest.raises(ValidationError, match="neither an IP address nor a host name"):
        configuration(server={"host": host})


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.1])
def test_the_share_of_an_objective_lies_strictly_between_none_and_all(share: float) -> None:
    with pytest.raises(ValidationError):
        endpoint(slo={"share": share})


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(configuration().server, "port", 1)  # noqa: B010 - mypy sees that it is frozen


def test_a_configuration_arrives_in_a_role_process_as_it_left() -> None:
    sent = configuration(
        server={"port": 0, "workers": 3, "drain_timeout": "1.5s", "ring": "64KiB"},
        limits={"body": 12345, "header_timeout": "250ms"},
        logging={"level": "debug", "access": True},
        endpoints=[
            {
                "name": "iris",
                "protocol": "json-list",
                "route": "/score",
                "backend": {
                    "urls": ["http://a", "https://b:8443/x"], "path": "/p", "timeout": "1h", "connect_timeout": "7us",
                    "retry": {"attempts": 0, "resend_on_crash": False}, "scaling": {"kind": "fixed", "slots": 7},
                    "tls": {"verify": False},
                },
                "slo": {"latency": "1234567ns", "share": 0.9},
                "batching": {"policy": "static", "max_size": 3, "max_linger": "1us", "max_inflight": 2},
            },
            {"name": "alone", "backend": BACKEND, "batching": {"policy": "none", "lane_headers": ["X-A"]}},
        ],
    )  # fmt: skip
    assert Configuration.from_json(sent.to_json()) == sent
    assert Configuration.from_json(sent.to_json()).to_json() == sent.to_json()


def test_protocol_custom_travels_to_a_role_process_as_it_was_written() -> None:
    document = {"endpoints": [{
        "name": "a", "protocol": "custom", "route": "/a", "backend": {**BACKEND, "path": "/b"},
        "request": {"items": "", "wrap": True}, "response": {"items": "/x~1y/0", "unwrap": True},
    }, {
        "name": "b", "protocol": "custom", "route": "/b", "backend": {**BACKEND, "path": "/b"},
        "request": {"items": "/a", "constants": {"k": [1.5, None, {"é": True}]}}, "response": {"items": ""},
    }]}  # fmt: skip
    configuration = Configuration.model_validate(document)
    again = Configuration.from_json(configuration.to_json())
    assert again == configuration
    assert again.endpoints[1].request.constants == {"k": [1.5, None, {"é": True}]}
    assert (again.endpoints[0].prefix, again.endpoints[0].backend_path) == ("/a", "/b")
