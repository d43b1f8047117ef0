"""``mlproxy simulate``: its answers, and how it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mlproxy.cli import app

KEYS = [
    "requests", "answered", "failed", "slo_miss_share", "p50_ms", "p95_ms", "p99_ms", "mean_batch", "backend_calls",
    "mean_ready_pods", "mean_provisioned_pods", "mean_busy_pods", "max_ready_pods", "panic_entries", "cost_usd",
    "cost_usd_with_proxy",
]  # fmt: skip
#: The options that any run needs, and a short one.
SHORT = {"--trace": "poisson:20", "--profile": "toxic", "--policy": "static", "--duration": "60s", "--warmup": "10s"}


def run(*more: str, **changes: str | None) -> Result:
    """A short run, with ``changes`` to `SHORT` (without dashes; None leaves the option out) and ``more``."""
    options = {**SHORT, **{f"--{name.replace('_', '-')}": value for name, value in changes.items()}}
    arguments = [part for option, value in options.items() if value is not None for part in (option, value)]
    return CliRunner(env={"COLUMNS": "100"}).invoke(app, ["simulate", *arguments, *more])


def problems(result: Result) -> list[str]:
    assert (result.exit_code, result.stdout) == (2, "")
    return result.stderr.splitlines()


def test_json_has_exactly_the_documented_keys() -> None:
    result = run("--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert list(report) == KEYS
    assert report["requests"] == report["answered"] == pytest.approx(1000, rel=0.1)
    assert report["cost_usd"] == pytest.approx(report["mean_provisioned_pods"] * 50 * 0.00002)


def test_without_a_policy_it_is_slo() -> None:
    assert (
        run("--json", policy=None).stdout == run("--json", policy="slo").stdout != run("--json", policy="none").stdout
    )


def test_a_comparison_is_a_report_per_policy_on_the_same_arrivals() -> None:
    result = run("--json", "--set", "batching.max_linger=50ms", policy=None, compare="none,static,clipper,bentoml")
    assert result.exit_code == 0, result.output
    reports = json.loads(result.stdout)
    assert list(reports) == ["none", "static", "clipper", "bentoml"]
    assert all(list(report) == KEYS for report in reports.values())
    assert len({report["requests"] for report in reports.values()}) == 1
    assert reports["none"]["mean_batch"] == 1
    assert reports["static"]["mean_batch"] > 1.5


def test_a_table_is_printed_otherwise() -> None:
    result = run(policy=None, compare="none,static")
    assert result.exit_code == 0, result.output
    for text in ("policy", "none", "static", "missed the SLO", "ready pods", "cost with the proxy"):
        assert text in result.stdout


def test_a_trace_file_is_scaled_and_the_run_is_as_long_as_it(tmp_path: Path) -> None:
    trace = tmp_path / "rates.txt"
    trace.write_text("1\n2\n4\n")
    scaled = run("--json", trace=str(trace), max_rps="40", trace_step="20s", duration="10h", warmup="0")
    assert json.loads(scaled.stdout)["requests"] == pytest.approx((10 + 20 + 40) * 20, rel=0.1)
    shorter = run("--json", trace=str(trace), max_rps="40", trace_step="20s", duration="20s", warmup="0")
    assert json.loads(shorter.stdout)["requests"] == pytest.approx(10 * 20, rel=0.3)


def test_a_profile_file_is_read(tmp_path: Path) -> None:
    profile = tmp_path / "model.yaml"
    profile.write_text("1: {mean_ms: 30, p95_ms: 30}\n32: {mean_ms: 61, p95_ms: 61}\n")
    result = run("--json", trace="poisson:0.2", profile=str(profile))
    assert json.loads(result.stdout)["p50_ms"] == pytest.approx(32)


def test_a_run_without_a_request_has_nothing_to_report() -> None:
    report = json.loads(run("--json", trace="poisson:0").stdout)
    assert (report["requests"], report["slo_miss_share"], report["p99_ms"], report["mean_batch"]) == (0, 0, 0, 0)


def test_the_seed_decides() -> None:
    first, same, other = (run("--json", seed=seed).stdout for seed in ("1", "1", "2"))
    assert first == same != other


def test_the_cluster_and_the_faults_are_as_they_are_given() -> None:
    cluster = ("--min-scale", "2", "--max-pods", "3", "--container-concurrency", "0", "--cold-start", "1s")
    result = run("--json", *cluster, "--fault", "drift:3@20s-40s", "--fault", "outliers:0.1,5", trace="poisson:200")
    report = json.loads(result.stdout)
    assert report["max_ready_pods"] == 3
    assert report["p99_ms"] > 200


def test_every_bad_argument_is_named_at_once() -> None:
    found = problems(
        run(
            "--set", "batching.max_sze=5", "--set", "oops", "--fault", "errrs:3", "--min-scale", "-1",
            trace="poison:5", profile="toxi", slo="500", warmup="3", cold_start="5s-2s", max_pods="0",
            utilization="70", policy="fast",
        )
    )  # fmt: skip
    assert {line.partition(": ")[0] for line in found} == {
        "--set", "--fault", "--min-scale", "--trace", "--profile", "--slo", "--policy", "--warmup", "--cold-start",
        "--max-pods", "--utilization", "batching.max_sze",
    }  # fmt: skip
    assert "batching.max_sze: unknown key; did you mean max_size?" in found


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"policy": "fast"}, "--policy: must be slo, aimd, static, none, clipper or bentoml, not 'fast'"),
        ({"policy": None, "compare": "none, fast"}, "--compare: must be slo, aimd, static, none, clipper or bentoml"),
        ({"policy": None, "compare": ","}, "--compare: names no policy; give some of slo, aimd, static"),
        ({"slo": "0s"}, "--slo: must be a duration above 0s"),
        ({"share": "1"}, "--share: must be a number above 0 and below 1"),
        ({"set": "slo.latency=5"}, "slo.latency: a duration needs a unit"),
        ({"warmup": "60s"}, "leaves nothing of a run of 1m"),
        ({"trace": "poisson:100000000"}, "more than 100,000,000 requests"),
        ({"trace": "poisson:ten"}, "write poisson:RATE"),
        ({"profile": "affine:ten"}, "write affine:A_MS,B_MS[,SIGMA]"),
        ({"duration": "0s"}, "no time at all"),
        ({"duration": "1000h"}, "too long"),
        ({"trace_step": "0s"}, "no time at all"),
        ({"max_pods": "99999"}, "not from 1 to 10,000"),
        ({"set": "batching.policy=none"}, "name the policy with --policy"),
        ({"set": "batching.max_size.x=1"}, "batching.max_size"),
        ({"set": "batching=1"}, "batching: must be a mapping"),
        ({"plot": "out.bmp"}, "end it in .png, .svg or .pdf"),
        ({"plot": "/nowhere/out.png"}, "is not there"),
    ],
)
def test_a_bad_argument_gets_a_line_that_helps(changes: dict[str, str | None], hint: str) -> None:
    (line,) = problems(run(**changes))
    assert hint in line


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "is empty"),
        ("1\ntwo\n", "number 2 is 'two'"),
        ("1\n-2\n", "number 2 is '-2'"),
        ("nan\n", "number 1 is 'nan'"),
    ],
)
def test_a_bad_trace_file_says_where(tmp_path: Path, text: str, hint: str) -> None:
    trace = tmp_path / "rates.txt"
    trace.write_text(text)
    (line,) = problems(run(trace=str(trace)))
    assert hint in line


def test_a_bad_profile_file_says_where(tmp_path: Path) -> None:
    profile = tmp_path / "model.yaml"
    profile.write_text("1: {mean: 5}\n")
    (line,) = problems(run(profile=str(profile)))
    assert line == "--profile: 1: unknown key 'mean'; did you mean mean_ms?"


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_picture_is_drawn(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out.{ending}"
    result = run(policy=None, compare="none,static", plot=str(path))
    assert result.exit_code == 0, result.output
    begin = path.read_bytes()[:100]
    assert begin.startswith(b"\x89PNG" if ending == "png" else b"<?xml")


def test_a_picture_needs_matplotlib_and_the_command_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    (line,) = problems(run(plot=str(tmp_path / "out.png")))
    assert "pip install -e '.[plots]' in a clone" in line
