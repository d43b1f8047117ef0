"""What the overhead benchmark makes of wrk's words."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench import overhead
from bench.processes import ProcessFailed

SAID = """\
  Latency Distribution
     50%    1.44ms
     75%    1.58ms
     90%    1.81ms
     99%    2.82s
  {requests} requests in 2.00s, 1.00MB read
  Non-2xx or 3xx responses: 3
"""


def run(monkeypatch: pytest.MonkeyPatch, requests: int) -> tuple[int, float, float, float, int]:
    said = subprocess.CompletedProcess([], 0, SAID.format(requests=requests))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: said)
    return overhead.run_wrk("http://127.0.0.1:1/predict", Path("script.lua"), 2)


def test_what_wrk_says_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, 500) == (500, 250.0, 1.44, 2820.0, 3)


def test_a_system_that_answers_nothing_is_named_with_what_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProcessFailed, match=r"http://127.0.0.1:1/predict answered nothing within 2 s.*--seconds"):
        run(monkeypatch, 0)
