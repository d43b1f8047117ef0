"""File, environment and flags become one configuration, or one list of everything that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme

from mlproxy.config import Configuration
from mlproxy.config.document import expand
from mlproxy.config.load import load_configuration
from mlproxy.config.sources import FLAGS, environment_variables
from mlproxy.errors import ConfigurationError

ENDPOINTS = "endpoints: [{name: iris, backend: {urls: [http://model:9000]}}]\n"


class Loading:
    """Writes a file and loads it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "mlproxy.yaml"

    def load(self, text: str | bytes, environment: Mapping[str, str] | None = None, **flags: object) -> Configuration:
        self.path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_configuration(self.path, environment or {}, flags)

    def problems(self, text: str | bytes, environment: Mapping[str, str] | None = None, **flags: object) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            self.load(text, environment, **flags)
        return [problem.removeprefix(f"{self.path}: ") for problem in caught.value.problems]


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
    assert loading.load(text, environment, port=1003).server.port == 1003
    assert loading.load(text, environment, port=1003).server.host == "1.1.1.1"


def test_the_platforms_port_beats_file_and_own_variable_but_not_the_flag(loading: Loading) -> None:
    environment = {"PORT": "7000", "MLPROXY_SERVER_PORT": "6000"}
    assert loading.load(ENDPOINTS + "server: {port: 5000}\n", environment).server.port == 7000
    assert loading.load(ENDPOINTS, environment, port=4000).server.port == 4000
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
    assert known["MLPROXY_LIMITS_HEADER_TIMEOUT"] == ("limits", "header_timeout")
    assert known["MLPROXY_BACKEND"] == ("endpoints", 0, "backend", "urls")
    assert all(name.startswith("MLPROXY_") and name == name.upper() for name in known if name != "PORT")


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
        "max_linger": "5ms", "max_inflight": 2, "port": 0,
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
    assert problem == (
        f"--backend, --slo: not together with the configuration file {loading.path}, which describes the endpoints"
    )


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


def test_a_variable_may_say_that_there_is_no_value(loading: Loading) -> None:
    text = "endpoints: [{name: iris, route: '${ROUTE:-null}', backend: {urls: [http://a]}}]\n"
    assert loading.load(text).endpoints[0].route is None
    assert loading.load(text, {"ROUTE": "/score"}).endpoints[0].route == "/score"


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
def test_a_variable_may_hold_any_text(value: str) -> None:
    assert expand({"server": {"host": "${HOST}"}}, {"HOST": value}, {}) == {"server": {"host": value}}


def test_text_that_only_looks_like_a_variable_stays() -> None:
    assert expand(["$HOST ${1} ${}"], {"HOST": "h"}, {}) == ["$HOST ${1} ${}"]


def test_a_name_that_is_nothing_but_a_variable_stays_text_whatever_it_looks_like(loading: Loading) -> None:
    text = "endpoints: [{name: '${N}', backend: {urls: [http://a]}}]\n"
    assert loading.load(text, {"N": "123"}).endpoints[0].name == "123"
    (endpoint,) = load_configuration(None, {"MLPROXY_BACKEND": "http://a", "MLPROXY_NAME": "1e3"}, {}).endpoints
    assert endpoint.name == "1e3"


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
        ("", "is empty; it must be a mapping"),
        ("# only a comment", "is empty; it must be a mapping"),
        ("- a", "holds a list; it must be a mapping"),
        ("text", "must be a mapping"),
        ("a: [", "line 1, column 5: is not YAML: "),
        ("a: 1\nb: c: d", "line 2, column 5: is not YAML: mapping values are not allowed here"),
        ("a:\n\t- b", "line 2, column 1: is not YAML: found character '\\t'"),
        ("a: !!python/object:os.system {}", "line 1, column 4: is not YAML"),
        ("a: 1\nb: \x01", "line 2: is not YAML: the character '\\x01' is not allowed"),
        (b"a: 1\nb: \xff", "line 2: is not UTF-8: byte 0xff"),
        ("[" * 5000, "is nested too deeply"),
        ("server:\n  port: 1\n  host: a\n  port: 2", "line 4, column 3: the key 'port' stands twice, first in line 2"),
        (ENDPOINTS + ENDPOINTS, "line 2, column 1: the key 'endpoints' stands twice, first in line 1"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_understood_says_where_and_why(loading: Loading, text: str | bytes, problem: str) -> None:
    (found,) = loading.problems(text)
    assert found.startswith(problem)
    assert "\n" not in found
    assert "unicode string" not in found


def test_a_byte_order_mark_is_no_part_of_the_file(loading: Loading) -> None:
    assert loading.load(b"\xef\xbb\xbf" + ENDPOINTS.encode()).endpoints[0].name == "iris"


def test_a_thousand_endpoints_are_read_and_checked(loading: Loading) -> None:
    one = "  - {{name: m{0}, backend: {{urls: [http://m{0}]}}}}\n"
    text = "endpoints:\n" + "".join(one.format(index) for index in range(1000))
    assert len(loading.load(text).endpoints) == 1000
    assert len(loading.problems(text.replace("http://", ""))) == 1000


# --- whatever is wrong, at once ------------------------------------------------------------------------------


def test_values_that_clash_are_told_beside_values_that_are_broken(loading: Loading) -> None:
    text = (
        "server: {port: 9000, workers: many}\n"
        "admin: {port: 9000}\n"
        "limits: {body: '${BODY}'}\n"
        "endpoints:\n"
        "  - {name: a, slo: {latency: 1s, share: 2}, batching: {max_linger: 1s}, backend: {urls: [http://a]}}\n"
        "  - {name: a, backend: {urls: [https://a], tls: {ca_file: /no/such/file}}}\n"
    )
    assert loading.problems(text) == [
        "limits.body: ${BODY} is not set in the environment; set it or write ${BODY:-default}",
        "server.workers: must be a whole number from 1 to 256 or auto, such as 2, not 'many'",
        "endpoints[0].slo.share: must be a number above 0 and below 1, such as 0.99, not 2",
        "endpoints[1].backend.tls.ca_file: /no/such/file cannot be read: No such file or directory",
        "server.port and admin.port are both 9000",
        "endpoints[0] and endpoints[1] have the same name a",
        "endpoints[0]: batching.max_linger 1s leaves nothing of slo.latency 1s for the backend",
    ]


def test_what_stands_in_for_a_broken_value_clashes_with_nothing(loading: Loading) -> None:
    (problem,) = loading.problems("server: {port: x}\nadmin: {port: 8080}\n" + ENDPOINTS)
    assert problem.startswith("server.port: must be")


def test_variables_and_flags_are_checked_even_if_the_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(tmp_path / "none", {"PORT": "x", "MLPROXY_X": "1"}, {"workers": "0"})
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [
        "MLPROXY_X", str(tmp_path / "none"), "PORT", "--workers",
    ]  # fmt: skip


def test_without_file_and_backend_the_flags_are_checked_all_the_same() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(None, {}, {"slo": "5", "port": "x"})
    assert [problem.split(": ")[0] for problem in caught.value.problems] == ["mlproxy", "--port", "--slo"]


# --- where it comes from -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "abc"), ("PORT", "99999"), ("MLPROXY_SERVER_PORT", "abc"), ("MLPROXY_WORKERS", "0"),
     ("MLPROXY_LIMITS_BODY", "big"), ("MLPROXY_LOGGING_ACCESS", "maybe"), ("MLPROXY_ADMIN_HOST", "a b")],
)  # fmt: skip
def test_a_bad_variable_is_blamed_and_not_the_file(loading: Loading, name: str, value: str) -> None:
    (problem,) = loading.problems(ENDPOINTS, {name: value})
    assert problem.startswith(f"{name}: ")
    assert value in problem


@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_variable_is_a_problem_that_says_so(loading: Loading, value: str) -> None:
    assert loading.problems(ENDPOINTS, {"MLPROXY_SERVER_PORT": value}) == [
        "MLPROXY_SERVER_PORT: is empty; give it a value or unset it"
    ]


def test_the_stronger_source_is_blamed_and_the_weaker_one_forgotten(loading: Loading) -> None:
    (problem,) = loading.problems(ENDPOINTS + "server: {port: x}\n", {"PORT": "y"}, port="z")
    assert problem.startswith("--port: ")
    assert loading.load(ENDPOINTS + "server: {port: x}\n", {"PORT": "y"}, port="1").server.port == 1


def test_every_source_with_a_share_in_a_clash_is_named_and_defaults_are_not(loading: Loading) -> None:
    text = "server.port and admin.port are both"
    assert loading.problems(ENDPOINTS, {"MLPROXY_ADMIN_PORT": "8080"}) == [f"MLPROXY_ADMIN_PORT: {text} 8080"]
    (mixed,) = loading.problems(ENDPOINTS + "admin: {port: 7}\n", {}, port="7")
    assert mixed == f"--port, {loading.path}: {text} 7"


def test_an_endpoint_of_flags_is_blamed_by_its_flags_and_not_by_paths_of_a_file() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(
            None, {"MLPROXY_SLO": "1s"}, {"backend": ["http://a", "model:9000"], "max_linger": "2s", "name": "a/b"}
        )
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [
        "--name", "--backend", "--max-linger, MLPROXY_SLO",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "cannot be read: No such file or directory"), (b"", "holds no certificates in PEM form"),
     (b"no pem", "holds no certificates in PEM form")],
)  # fmt: skip
def test_a_file_of_authorities_that_cannot_be_used_is_found_before_anything_is_started(
    loading: Loading, tmp_path: Path, content: bytes | None, problem: str
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    text = f"endpoints: [{{name: iris, backend: {{urls: [https://a], tls: {{ca_file: {file}}}}}}}]\n"
    assert loading.problems(text) == [f"endpoints[0].backend.tls.ca_file: {file} {problem}"]


def test_a_file_of_authorities_may_be_given(loading: Loading, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    loading.load(f"endpoints: [{{name: iris, backend: {{urls: [https://a], tls: {{ca_file: {file}}}}}}}]\n")


def test_every_flag_has_a_key_of_its_own() -> None:
    assert len(set(FLAGS.values())) == len(FLAGS)


def test_a_file_that_contains_itself_is_a_problem_and_not_a_traceback(loading: Loading) -> None:
    assert loading.problems("a: &a [*a]\n" + ENDPOINTS)


@pytest.mark.parametrize("text", ["1: 2\n", "server: {2: 1}\n", "true: 1\n"])
def test_a_key_that_is_no_text_is_a_problem(loading: Loading, text: str) -> None:
    (found,) = loading.problems(text + ENDPOINTS)
    assert "is not text; put it in quotes" in found


def test_an_override_below_something_that_is_no_section_still_reports_the_section(loading: Loading) -> None:
    (found,) = loading.problems("server: 5\n" + ENDPOINTS, {}, port=1)
    assert found.startswith("server: ")


def test_a_state_folder_that_cannot_be_written_to_is_found_before_anything_is_started(
    loading: Loading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def problems(folder: Path) -> list[str]:
        return loading.problems(ENDPOINTS + f"server: {{state_dir: {folder}}}\n")

    missing = tmp_path / "missing"
    assert problems(missing) == [f"server.state_dir: {missing} is not a folder; make it"]
    missing.write_text("a file")
    assert problems(missing) == [f"server.state_dir: {missing} is not a folder; make it"]
    assert loading.load(ENDPOINTS + f"server: {{state_dir: {tmp_path}}}\n").server.state_dir == str(tmp_path)
    monkeypatch.setattr("os.access", lambda *_: False)  # whoever runs the tests may be allowed everything
    assert problems(tmp_path) == [f"server.state_dir: {tmp_path} cannot be written to"]
    assert loading.problems(ENDPOINTS + "server: {state_dir: ''}\n")[0].startswith("server.state_dir: ")


def test_what_custom_lacks_because_it_is_broken_is_told_once(loading: Loading) -> None:
    text = """
endpoints:
  - name: a
    protocol: custom
    route: /a
    backend: {urls: [http://a], path: /a}
    request: {items: /x, constants: {x: 1}}
    response: {items: y}
"""
    assert loading.problems(text) == [
        "endpoints[0].response.items: 'y' is not a JSON pointer (RFC 6901) such as /data/rows or /results/0/scores",
        "endpoints[0]: request.constants are members beside request.items, which must be a member of another name",
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [("", ""), ("", "route: /v1/embeddings, "), ("route: /v1/embeddings, ", ""), ("route: null, ", "")],
)
def test_a_route_that_comes_from_the_protocol_is_told_beside_all_else(
    loading: Loading, first: str, second: str
) -> None:
    text = f"""
server: {{port: 70000}}
endpoints:
  - {{name: e1, protocol: openai-embeddings, {first}backend: {{urls: [http://a]}}}}
  - {{name: e2, protocol: openai-embeddings, {second}backend: {{urls: [http://b]}}, slo: {{latency: 5}}}}
"""
    *others, last = loading.problems(text)
    assert [other.split(":")[0] for other in others] == ["server.port", "endpoints[1].slo.latency"]
    assert last == (
        "endpoints[0] and endpoints[1] have the same route /v1/embeddings; "
        "give one of them a route of its own, such as /e2/v1/embeddings"
    )


def test_of_three_endpoints_with_one_route_two_need_their_own(loading: Loading) -> None:
    blocks = [f"{{name: e{number}, protocol: openai-embeddings, backend: {{urls: [http://a]}}}}" for number in range(3)]
    (problem,) = loading.problems(f"endpoints: [{', '.join(blocks)}]\n")
    assert problem == (
        "endpoints[0] and endpoints[1] (and 1 more) have the same route /v1/embeddings; "
        "give all but one of them a route of their own, such as /e1/v1/embeddings"
    )


def test_protocol_custom_cannot_do_without_a_file() -> None:
    needs = "needs a configuration file: it has no defaults for route, backend.path, request.items, response.items"
    from_variable: tuple[dict[str, str], dict[str, Any]] = ({"MLPROXY_PROTOCOL": "custom"}, {})
    from_flag: tuple[dict[str, str], dict[str, Any]] = ({}, {"protocol": "custom"})
    for (environment, flags), source in ((from_variable, "MLPROXY_PROTOCOL"), (from_flag, "--protocol")):
        with pytest.raises(ConfigurationError) as caught:
            load_configuration(None, environment, {"backend": ["http://a"], **flags})
        assert caught.value.problems == [f"{source}: protocol custom {needs}"]
