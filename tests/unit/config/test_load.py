"""File, environment and flags become one configuration, or one list of everything that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from mlproxy.config import Configuration, load_configuration
from mlproxy.config.load import environment_variables
from mlproxy.errors import ConfigurationError

ENDPOINTS = "endpoints: [{name: iris, backend: {urls: [http://model:9000]}}]\n"


class Loading:
    """Writes a file and loads it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "mlproxy.yaml"

    def load(self, text: str | bytes, environment: Mapping[str, str] | None = None, **flags: object) -> Configuration:
        self.path.write_bytes(text if isinstance(text, bytes) else text.encode())
        overrides = {key.replace("__", "."): value for key, value in flags.items()}
        return load_configuration(self.path, environment or {}, overrides)

    def problems(self, text: str | bytes, environment: Mapping[str, str] | None = None, **flags: object) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            self.load(text, environment, **flags)
        return caught.value.problems


@pytest.fixture
def loading(tmp_path: Path) -> Loading:
    return Loading(tmp_path)


def test_a_file_is_read(loading: Loading) -> None:
    configuration = loading.load(ENDPOINTS + "server: {port: 9090, drain_timeout: 5s}\n")
    assert (configuration.server.port, configuration.server.drain_timeout_ns) == (9090, 5_000_000_000)
    assert configuration.endpoints[0].backend.urls == ("http://model:9000",)


def test_flags_beat_the_environment_and_the_environment_beats_the_file(loading: Loading) -> None:
    text, environment = ENDPOINTS + "server: {port: 1001, host: 1.1.1.1}\n", {"MLPROXY_SERVER_PORT": "1002"}
    assert loading.load(text).server.port == 1001
    assert loading.load(text, environment).server.port == 1002
    assert loading.load(text, environment, server__port=1003).server.port == 1003
    assert loading.load(text, environment, server__port=1003).server.host == "1.1.1.1"


def test_the_platforms_port_beats_file_and_own_variable_but_not_the_flag(loading: Loading) -> None:
    environment = {"PORT": "7000", "MLPROXY_SERVER_PORT": "6000"}
    assert loading.load(ENDPOINTS + "server: {port: 5000}\n", environment).server.port == 7000
    assert loading.load(ENDPOINTS, environment, server__port=4000).server.port == 4000
    assert loading.load(ENDPOINTS, {"PORT": ""}).server.port == 8080


def test_every_section_can_be_set_from_the_environment_with_types_as_in_the_file(loading: Loading) -> None:
    environment = {
        "MLPROXY_SERVER_DRAIN_TIMEOUT": "2s", "MLPROXY_ADMIN_PORT": "9", "MLPROXY_LIMITS_BODY": "1MiB",
        "MLPROXY_LOGGING_ACCESS": "true", "MLPROXY_WORKERS": "3",
    }  # fmt: skip
    configuration = loading.load(ENDPOINTS, environment)
    assert configuration.server.drain_timeout_ns == 2_000_000_000
    assert (configuration.admin.port, configuration.limits.body_bytes) == (9, 2**20)
    assert (configuration.logging.access, configuration.server.workers) == (True, 3)


def test_every_listed_environment_variable_is_named_after_the_key_that_it_sets() -> None:
    known = environment_variables()
    assert known["MLPROXY_LIMITS_HEADER_TIMEOUT"] == "limits.header_timeout"
    assert known["MLPROXY_BACKEND"] == "backend"
    assert all(name.startswith("MLPROXY_") and name == name.upper() for name in known)


def test_an_environment_variable_that_does_not_exist_is_a_problem_with_a_suggestion(loading: Loading) -> None:
    assert loading.problems(ENDPOINTS, {"MLPROXY_SERVR_PORT": "1"}) == [
        "MLPROXY_SERVR_PORT: no such environment variable; did you mean MLPROXY_SERVER_PORT?"
    ]


def test_what_kubernetes_sets_for_a_service_called_mlproxy_is_left_alone(loading: Loading) -> None:
    environment = {
        "MLPROXY_SERVICE_HOST": "10.0.0.1", "MLPROXY_SERVICE_PORT": "80", "MLPROXY_SERVICE_PORT_HTTP": "80",
        "MLPROXY_PORT": "tcp://10.0.0.1:80", "MLPROXY_PORT_80_TCP": "tcp://10.0.0.1:80",
        "MLPROXY_PORT_80_TCP_PROTO": "tcp", "MLPROXY_PORT_80_TCP_ADDR": "10.0.0.1",
    }  # fmt: skip
    assert loading.load(ENDPOINTS, environment).server.port == 8080


@pytest.mark.parametrize("name", ["MLPROXY_SERVER_PORT", "PORT", "MLPROXY_SLO"])
@pytest.mark.parametrize("value", ["{", "[", "a: b: c", "@x", "'"])
def test_an_environment_variable_that_is_not_yaml_is_a_problem_and_not_a_traceback(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(None, {"MLPROXY_BACKEND": "http://a", name: value}, {})
    assert caught.value.problems


def test_flags_alone_make_one_endpoint() -> None:
    flags: dict[str, object] = {
        "backend": ["http://a", "http://b"], "name": "iris", "protocol": "json-list", "slo": "200ms", "max_size": 8,
        "max_linger": "5ms", "max_inflight": 2, "server.port": 0,
    }  # fmt: skip
    configuration = load_configuration(None, {}, flags)
    (endpoint,) = configuration.endpoints
    assert (endpoint.name, endpoint.protocol, endpoint.backend.urls) == ("iris", "json-list", ("http://a", "http://b"))
    assert (endpoint.slo.latency_ns, endpoint.batching.max_linger_ns) == (200_000_000, 5_000_000)
    assert (endpoint.batching.max_size, endpoint.batching.max_inflight) == (8, 2)
    assert configuration.server.port == 0


def test_a_backend_alone_is_enough() -> None:
    configuration = load_configuration(None, {}, {"backend": ["http://a"]})
    assert configuration.endpoints[0].name == "model"
    assert configuration.endpoints[0].predict_path == "/v1/models/model:predict"


def test_the_environment_alone_makes_one_endpoint() -> None:
    environment = {"MLPROXY_BACKEND": "http://a,http://b", "MLPROXY_NAME": "iris", "MLPROXY_POLICY": "none"}
    (endpoint,) = load_configuration(None, environment, {}).endpoints
    assert (endpoint.name, endpoint.backend.urls, endpoint.batching.policy) == (
        "iris",
        ("http://a", "http://b"),
        "none",
    )


def test_an_endpoint_by_flags_and_a_file_are_not_mixed(loading: Loading) -> None:
    (problem,) = loading.problems(ENDPOINTS, {}, backend=["http://b"], slo="1s")
    assert problem == "backend, slo: not together with a configuration file"


def test_variables_are_expanded_with_defaults_and_inside_text(loading: Loading) -> None:
    text = (
        "server: {host: '${HOST:-127.0.0.1}'}\n"
        "endpoints: [{name: iris, backend: {urls: ['http://${NAME}.${SPACE:-default}:${P}']}}]\n"
    )
    configuration = loading.load(text, {"NAME": "iris", "P": "81", "SPACE": "ml"})
    assert configuration.endpoints[0].backend.urls == ("http://iris.ml:81",)
    assert configuration.server.host == "127.0.0.1"
    assert loading.load(text, {"NAME": "iris", "P": "81"}).endpoints[0].backend.urls == ("http://iris.default:81",)


def test_a_value_that_is_nothing_but_a_variable_is_typed_as_in_the_file(loading: Loading) -> None:
    text = ENDPOINTS + "server: {port: '${P:-8088}'}\nlogging: {access: '${ACCESS}'}\n"
    configuration = loading.load(text, {"ACCESS": "true"})
    assert (configuration.server.port, configuration.logging.access) == (8088, True)


def test_an_empty_variable_counts_as_unset_where_there_is_a_default(loading: Loading) -> None:
    assert loading.load(ENDPOINTS + "server: {port: '${P:-8088}'}\n", {"P": ""}).server.port == 8088


def test_every_unset_variable_is_one_problem_whatever_type_belongs_there(loading: Loading) -> None:
    text = ENDPOINTS + "server: {port: '${P}', host: '${HOST}'}\nlimits: {body: '${BODY}'}\n"
    assert loading.problems(text) == [
        "server.port: ${P} is not set in the environment; set it or write ${P:-default}",
        "server.host: ${HOST} is not set in the environment; set it or write ${HOST:-default}",
        "limits.body: ${BODY} is not set in the environment; set it or write ${BODY:-default}",
    ]


@pytest.mark.parametrize("value", ["@x", "a: b: c", "{", "%", "*x", "'"])
def test_a_variable_may_hold_any_text(loading: Loading, value: str) -> None:
    assert loading.load(ENDPOINTS + "server: {host: '${HOST}'}\n", {"HOST": value}).server.host == value


def test_text_that_only_looks_like_a_variable_stays(loading: Loading) -> None:
    assert loading.load(ENDPOINTS + "server: {host: '$HOST ${1} ${}'}\n").server.host == "$HOST ${1} ${}"


def test_everything_wrong_is_found_at_once(loading: Loading) -> None:
    text = (
        "server: {prot: 8080, workers: many, drain_timeout: 5}\n"
        "limits: {body: '${BODY}'}\n"
        "endpoints: [{name: iris, slo: {latency: soon}, backend: {url: [http://a]}}]\n"
    )
    found = loading.problems(text, {"MLPROXY_PROT": "1"})
    paths = {problem.partition(":")[0] for problem in found}
    assert paths == {
        "server.prot", "server.workers", "server.drain_timeout", "limits.body", "endpoints[0].slo.latency",
        "endpoints[0].backend.url", "endpoints[0].backend.urls", "MLPROXY_PROT",
    }  # fmt: skip


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            load_configuration(path, {}, {})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "must be a mapping"),
        ("- a", "must be a mapping"),
        ("text", "must be a mapping"),
        ("a: [", "is not YAML"),
        ("a: b: c", "is not YAML"),
        ("a: !!python/object:os.system {}", "is not YAML"),
        (b"a: \xff", "is not UTF-8"),
        ("server: {port: 1, port: 2}\n" + ENDPOINTS, "the key 'port' stands twice"),
        (ENDPOINTS + ENDPOINTS, "the key 'endpoints' stands twice"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_understood_says_why(loading: Loading, text: str | bytes, problem: str) -> None:
    (found,) = loading.problems(text)
    assert problem in found
    assert "\n" not in found


def test_a_file_that_contains_itself_is_a_problem_and_not_a_traceback(loading: Loading) -> None:
    assert loading.problems("a: &a [*a]\n" + ENDPOINTS)


@pytest.mark.parametrize("text", ["1: 2\n", "server: {2: 1}\n", "true: 1\n"])
def test_a_key_that_is_no_text_is_a_problem(loading: Loading, text: str) -> None:
    (found,) = loading.problems(text + ENDPOINTS)
    assert "keys should be strings" in found


def test_an_override_below_something_that_is_no_section_still_reports_the_section(loading: Loading) -> None:
    (found,) = loading.problems("server: 5\n" + ENDPOINTS, {}, server__port=1)
    assert found.startswith("server: ")
