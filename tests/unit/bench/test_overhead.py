"""What the overhead benchmark makes of wrk's words."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bench import overhead
from bench.processes import ProcessFailed, running
from bench.systems import INFER, Stub
from tests.system.raw_http import ask
from tests.system.tensors import answer_of, infer

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


def test_the_tensor_body_says_how_much_of_it_is_json() -> None:
    body = overhead.make_bodies()["150 KiB, v2 binary"]
    text, section = body.data[: (end := int(body.headers["Inference-Header-Content-Length"]))], body.data[end:]
    assert text.endswith(b"}")
    assert len(section) == 153_600


@pytest.mark.skipif(shutil.which("cc") is None, reason="the stub backend needs a C compiler")
def test_the_stub_answers_tensors_in_binary_with_a_row_for_each_that_came() -> None:
    with running(Stub()) as stub:
        for rows in (1, 3, 40):
            x = np.zeros((rows, 5000), dtype=np.float32)
            answer = answer_of(ask(stub.url, infer({"x": x}, binary=True, path=INFER)))
            assert answer.tensors["y"].shape == (rows, 3)
