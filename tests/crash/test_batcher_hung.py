"""A batcher whose loop does not turn: new callers had better go elsewhere; who waits is served when it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import psutil

from bench.processes import running_proxy, wait_until
from tests.crash.callers import pid_of
from tests.system.backends import running_backend
from tests.system.raw_http import WITHIN_S, Caller, Response, ask, request


def test_a_worker_is_not_ready_while_its_batcher_hangs(tmp_path: Path) -> None:
    with (
        running_backend() as backend,
        running_proxy("--backend", backend.url, "--name", "m", "--workers", "1", log=tmp_path / "log") as proxy,
        Caller(proxy.url) as caller,
    ):
        batcher = psutil.Process(pid_of(proxy, "batcher"))

        def readiness() -> Response:
            return ask(proxy.url, request("GET", "/readyz"))

        batcher.suspend()
        caller.send(request("POST", "/v1/models/m:predict", (), b'{"instances": ["waits"]}'))
        assert wait_until(lambda: readiness().status == 503, WITHIN_S)
        assert json.loads(readiness().body) == {"status": "the batcher does not turn its loop"}
        assert ask(proxy.url, request("GET", "/healthz")).status == 200
        batcher.resume()
        assert caller.read_response().body == b'{"predictions": ["waits"]}'
        assert wait_until(lambda: readiness().status == 200, WITHIN_S)
