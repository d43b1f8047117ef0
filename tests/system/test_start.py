"""A start that cannot succeed ends at once, with one line that says why and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.processes import PROJECT, Proxy, running_proxy, wait_until
from mlproxy import __version__

WITHIN_S = 20.0
BACKEND = ("--backend", "http://127.0.0.1:9")


def ended(folder: Path, *flags: str) -> tuple[int | None, list[str]]:
    """Its exit code, and every line that it said."""
    proxy = Proxy(*flags, log=folder / "proxy.log")
    try:
        assert wait_until(lambda: proxy.returncode is not None, WITHIN_S), proxy.log_text()
        assert not psutil.pid_exists(proxy.pid)
        return proxy.returncode, proxy.log_text().splitlines()
    finally:
        proxy.stop()


def file(folder: Path, **backend: Any) -> str:
    endpoint = {"name": "m", "backend": {"urls": ["https://127.0.0.1:9"], **backend}}
    path = folder / "mlproxy.yaml"
    path.write_text(json.dumps({"endpoints": [endpoint]}))
    return str(path)


def test_authorities_that_are_not_there_are_no_crash_of_the_batcher(tmp_path: Path) -> None:
    path = file(tmp_path, tls={"ca_file": "/no/such/ca.pem"})
    code, lines = ended(tmp_path, "-c", path)
    text = "endpoints[0].backend.tls.ca_file: /no/such/ca.pem cannot be read: No such file or directory"
    assert (code, lines) == (2, [f"{path}: {text}"])


def test_an_address_of_another_machine_is_one_line(tmp_path: Path) -> None:
    code, lines = ended(tmp_path, *BACKEND, "--host", "192.0.2.1")
    (line,) = lines
    assert code == 1
    assert "error supervisor cannot listen on 192.0.2.1:" in line


@pytest.mark.parametrize(
    ("command", "loaded"),
    [("mlproxy", "typer"), ("bench.model_server", "uvicorn"), ("bench.demo", "rich")],
)  # fmt: skip
def test_ctrl_c_while_a_command_loads_is_no_traceback(tmp_path: Path, command: str, loaded: str) -> None:
    (tmp_path / f"{loaded}.py").write_text("raise KeyboardInterrupt")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", command], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=20,
        check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (130, "")


def test_who_starts_what_is_said_before_it_takes_its_time(tmp_path: Path) -> None:
    with running_proxy(*BACKEND, "--workers", "1", log=tmp_path / "proxy.log") as proxy:
        first = proxy.log_text().splitlines()[0]
    assert first.endswith(f" info supervisor mlproxy {__version__} starts 1 worker, batcher and admin")


def test_what_is_unwise_is_a_warning_and_starts(tmp_path: Path) -> None:
    path = file(tmp_path, scaling={"slots": 65})
    with running_proxy("-c", path, "--workers", "1", log=tmp_path / "proxy.log") as proxy:
        assert "warning supervisor endpoints[0]: 65 calls in flight, but 64 connections" in proxy.log_text()
