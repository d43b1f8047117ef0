"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import mlproxy
from mlproxy.cli import app

GOOD = """
server: {port: 8090}
endpoints:
  - {name: iris, backend: {urls: ["http://model:9000", "http://[::1]:9000"]}, slo: {latency: 200ms},
     batching: {max_size: 32, max_linger: 5ms}}
  - {name: texts, protocol: json-list, backend: {urls: [http://b]}, batching: {policy: none, max_inflight: 9}}
"""

BAD = """
server: {prot: 8080, workers: many}
limits: {body: 16 megabytes}
endpoints:
  - {name: iris, slo: {latency: 200}, backend: {url: [http://a]}}
  - {name: b/c, backend: {urls: [http://a], tmeout: 5s}, batching: {policy: fast}}
  - {name: d, backend: {urls: ['${MODEL_URL}']}}
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("MLPROXY_")] + ["PORT", "MODEL_URL"]:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def run(*arguments: str, columns: str = "200") -> Result:
    return CliRunner(env={"COLUMNS": columns}).invoke(app, arguments)


def plain(text: str) -> str:
    """Without colours and frames, in one line."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[─-╿]", " ", text).split())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mlproxy.yaml"


def test_the_version_is_the_packages() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"mlproxy {mlproxy.__version__}\n")


def test_without_a_command_the_help_names_them_all() -> None:
    result = run()
    assert result.exit_code == 2
    for command in ("serve", "check", "demo"):
        assert command in plain(result.output)


def test_a_misspelt_command_gets_a_suggestion() -> None:
    result = run("chek")
    assert result.exit_code == 2
    assert "Did you mean 'check'?" in plain(result.stderr)


def test_check_shows_what_a_good_file_configures(file: Path) -> None:
    file.write_text(GOOD)
    result = run("check", str(file))
    assert (result.exit_code, result.stderr) == (0, "")
    shown = plain(result.stdout)
    assert "OK: 0.0.0.0:8090, workers auto" in shown
    for text in ("iris", "http://[::1]:9000", "0.99 within 200ms", "texts", "none, 9 in flight"):
        assert text in shown


def test_check_prints_every_problem_at_once_each_with_its_path_and_a_suggestion(file: Path) -> None:
    file.write_text(BAD)
    result = run("check", str(file))
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert all(line.startswith(f"{file}: ") for line in lines)
    problems = [line.removeprefix(f"{file}: ") for line in lines]
    assert "server.prot: unknown key; did you mean port?" in problems
    assert "server.workers: must be a whole number from 1 to 256 or auto, such as 2, not 'many'" in problems
    assert "endpoints[0].slo.latency: a duration needs a unit: write 200s or 200ms" in problems
    assert "endpoints[0].backend.url: unknown key; did you mean urls?" in problems
    assert "endpoints[1].backend.tmeout: unknown key; did you mean timeout?" in problems
    assert {problem.partition(": ")[0] for problem in problems} == {
        "server.prot", "server.workers", "limits.body", "endpoints[0].slo.latency", "endpoints[0].backend.url",
        "endpoints[0].backend.urls", "endpoints[1].name", "endpoints[1].backend.tmeout",
        "endpoints[1].batching.policy", "endpoints[2].backend.urls[0]",
    }  # fmt: skip
    assert len(problems) == 10


def test_check_knows_the_environment_that_serve_would_have(file: Path, environment: pytest.MonkeyPatch) -> None:
    file.write_text("endpoints: [{name: iris, backend: {urls: ['${MODEL_URL}']}}]\n")
    assert run("check", str(file)).exit_code == 2
    environment.setenv("MODEL_URL", "http://model")
    environment.setenv("PORT", "7777")
    result = run("check", str(file))
    assert result.exit_code == 0
    assert "0.0.0.0:7777" in result.stdout


def test_what_check_prints_into_a_pipe_is_plain_and_whole_a_line_per_endpoint(file: Path) -> None:
    url = f"http://{'long.' * 40}example"
    file.write_text(f"endpoints: [{{name: iris, backend: {{urls: [{url}]}}}}]\n")
    lines = run("check", str(file), columns="40").stdout.splitlines()
    assert lines == [
        "OK: 0.0.0.0:8080, workers auto",
        f"iris\tPOST /v1/models/iris:predict\t{url}\t0.99 within 500ms\tslo, up to 128, 4 in flight",
    ]


def test_check_notes_what_works_but_is_unwise(file: Path) -> None:
    file.write_text("endpoints: [{name: iris, backend: {urls: [http://a], scaling: {slots: 99}}}]\n")
    result = run("check", str(file))
    assert result.exit_code == 0
    assert "note: endpoints[0]: 99 calls in flight, but 64 connections" in result.stdout


@pytest.mark.parametrize(
    ("flag", "value"), [("--port", "abc"), ("--port", "99999"), ("--workers", "0"), ("--max-size", "x"),
                        ("--admin-port", "-1"), ("--log-level", "INFO"), ("--host", "a b"), ("--name", "a/b")]
)  # fmt: skip
def test_a_bad_flag_is_one_line_that_names_the_flag(flag: str, value: str) -> None:
    result = run("serve", "--backend", "http://a", flag, value)
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 2
    assert line.startswith(f"{flag}: ")
    assert value in line


@pytest.mark.parametrize("command", [[], ["serve"], ["check"], ["demo"]])
def test_help_is_plain_text_and_every_parameter_says_what_it_is(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert result.stdout.isascii()
    assert "TEXT" not in result.stdout
    assert result.stdout.count("...") == ("COMMAND [ARGS]..." in result.stdout)  # nothing is cut


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_check_of_what_is_no_file_says_so(tmp_path: Path, name: str) -> None:
    result = run("check", str(tmp_path / name))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "cannot be read" in result.stderr


def test_check_of_a_file_that_cannot_be_understood_prints_one_line(file: Path) -> None:
    file.write_text("endpoints: [\n")
    result = run("check", str(file))
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "is not YAML" in result.stderr


def test_serve_needs_a_file_or_a_backend() -> None:
    result = run("serve")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "mlproxy: give -c FILE, or --backend URL for a single endpoint\n"


def test_serve_refuses_bad_flags_before_anything_is_started() -> None:
    result = run("serve", "--backend", "model:9000", "--slo", "200", "--workers", "many", "--policy", "fast")
    assert (result.exit_code, result.stdout) == (2, "")
    assert [line.partition(": ")[0] for line in result.stderr.splitlines()] == [
        "--workers", "--backend", "--slo", "--policy"
    ]  # fmt: skip


def test_serve_does_not_mix_an_endpoint_by_flags_with_a_file(file: Path) -> None:
    file.write_text(GOOD)
    result = run("serve", "-c", str(file), "--backend", "http://a")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"--backend: not together with the configuration file {file}")


def test_serve_takes_its_file_from_the_environment(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "missing.yaml"
    environment.setenv("MLPROXY_CONFIG", str(missing))
    result = run("serve")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{missing}: cannot be read")
