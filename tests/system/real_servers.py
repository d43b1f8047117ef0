"""MLServer and BentoML as child processes, each with a small model. **Effects.**

Both are large, and ask for other versions of what the proxy uses, so each is looked for in a virtual environment of its
own: `$MLSERVER` and `$BENTOML` name the programs, else they are those of the search path.

    python3 -m venv /var/tmp/mlserver && /var/tmp/mlserver/bin/pip install mlserver
    python3 -m venv /var/tmp/bentoml && /var/tmp/bentoml/bin/pip install bentoml
    MLSERVER=/var/tmp/mlserver/bin/mlserver BENTOML=/var/tmp/bentoml/bin/bentoml \\
        .venv/bin/python -m pytest tests/system/test_real_servers.py
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.processes import Process

#: They import for several seconds.
START_WITHIN_S = 50.0

_MLSERVER_MODEL = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceResponse
import numpy as np


class Doubler(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        x = NumpyCodec.decode_input(payload.inputs[0])
        if (x < 0).any():
            raise InferenceError("poison")
        rows = np.full((len(x), 1), len(x))
        outputs = [NumpyCodec.encode_output("x_out", x + x), NumpyCodec.encode_output("rows", rows)]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)
"""

_BENTOML_SERVICE = """
import bentoml
from bentoml.exceptions import InvalidArgument


@bentoml.service
class Doubler:
    @bentoml.api
    def predict(self, items: list[dict], /) -> list[dict]:
        if any(item["x"] < 0 for item in items):
            raise InvalidArgument("poison")
        return [{"x": 2 * item["x"], "rows": len(items)} for item in items]
"""


class RealServer(Process):
    """A server on a port that was free a moment ago."""

    def __init__(self, program: str, *arguments: str, port: int, ready_path: str) -> None:
        self.ready_path = ready_path
        super().__init__([program, *arguments], url=f"http://127.0.0.1:{port}")


def program(variable: str) -> str:
    """Where the server is; the test is skipped, and says so, where it is not."""
    found = os.environ.get(variable) or shutil.which(variable.lower())
    if found is None:
        pytest.skip(f"{variable.lower()} is not installed: see the head of tests/system/real_servers.py")
    return found


def mlserver(folder: Path) -> RealServer:
    """KServe v2, JSON. A row is doubled; the output ``rows`` says in whose company it was."""
    http, grpc, metrics = _free_ports(3)
    settings = {
        "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics, "parallel_workers": 0,
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model.py").write_text(_MLSERVER_MODEL)
    (folder / "model-settings.json").write_text(json.dumps({"name": "iris", "implementation": "model.Doubler"}))
    return RealServer(program("MLSERVER"), "start", str(folder), port=http, ready_path="/v2/models/iris/ready")


def bentoml(folder: Path) -> RealServer:
    """A JSON list, as `mlserver`'s tensors."""
    (port,) = _free_ports(1)
    (folder / "service.py").write_text(_BENTOML_SERVICE)
    arguments = ["serve", "service:Doubler", "--working-dir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    return RealServer(program("BENTOML"), *arguments, port=port, ready_path="/readyz")


def _free_ports(count: int) -> Sequence[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
