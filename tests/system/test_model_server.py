"""The model server that a newcomer tries the proxy with (`make model`)."""

from __future__ import annotations

import re
import sys

from bench.processes import Process
from tests.system.raw_http import ask, request

PREDICT = "/v1/models/iris:predict"


class ModelServer(Process):
    """``bench.model_server`` on a port that the kernel chose."""

    listening = re.compile(r"^(http://\S+)$", re.MULTILINE)
    ready_path = "/v1/models/iris"

    def __init__(self) -> None:
        super().__init__([sys.executable, "-m", "bench.model_server", "--port", "0", "--base-ms", "1"])


def test_it_names_flowers_refuses_what_is_none_and_stops_when_told() -> None:
    server = ModelServer()
    try:
        server.wait_until_ready()
        answer = ask(server.url, request("POST", PREDICT, body=b'{"instances": [[5.1, 3.5, 1.4, 0.2], [6, 3, 6, 2]]}'))
        assert [prediction["class"] for prediction in answer.json()["predictions"]] == ["setosa", "virginica"]
        refused = ask(server.url, request("POST", PREDICT, body=b'{"instances": [[1, 2]]}'))
        assert (refused.status, "sepal_length" in refused.json()["error"]) == (400, True)
    finally:
        exit_code = server.stop()
    assert exit_code == 0
