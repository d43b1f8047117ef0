"""What the overhead benchmark compares: nothing in between, nginx, a naive batcher, MLProxy. **Effects.**

All stand in front of the same stub backend, one worker process each where workers are a choice.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import tools
from bench.processes import Process, Proxy, running

PREDICT = "/v1/models/iris:predict"
INFER = "/v2/models/iris-v2/infer"
MAX_SIZE = 32

_NGINX = """
daemon off; master_process on; worker_processes 1; pid {folder}/pid; error_log stderr warn; {user}
events {{ worker_connections 2048; }}
http {{
  access_log off; client_max_body_size 16m; keepalive_requests 1000000000; {extra}
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream backend {{ server {backend}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


class Stub(Process):
    """The C stub backend."""

    listening = re.compile(r"^(\d+)$", re.MULTILINE)
    ready_path = "/v1/models/iris"

    def __init__(self) -> None:
        super().__init__([str(tools.stub_backend())])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{super().url}"


class Nginx(Process):
    """nginx passing through, with keep-alive to the backend. Its folder must outlive it."""

    ready_path = "/v1/models/iris"

    def __init__(self, folder: Path, backend: str, extra: str = "") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        folder.mkdir()
        user = "user root;" if os.geteuid() == 0 else ""
        text = _NGINX.format(folder=folder, backend=backend.removeprefix("http://"), port=port, user=user, extra=extra)
        (folder / "nginx.conf").write_text(text)
        command = [tools.find("nginx") or "nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        super().__init__(command, url=f"http://127.0.0.1:{port}")


class NaiveBatcher(Process):
    """`bench.naive_batcher`."""

    listening = re.compile(r"running on (http://\S+)")
    ready_path = "/readyz"

    def __init__(self, backend: str) -> None:
        super().__init__([sys.executable, "-m", "bench.naive_batcher", backend + PREDICT, str(MAX_SIZE)])


def _mlproxy(folder: Path, backend: str) -> Proxy:
    batching = {"policy": "static", "max_size": MAX_SIZE, "max_inflight": 1}
    endpoints = [
        {"name": name, "protocol": protocol, "backend": {"urls": [backend]}, "batching": batching}
        for name, protocol in (("iris", "kserve-v1"), ("iris-v2", "kserve-v2"))
    ]
    file = folder / "mlproxy.yaml"
    file.write_text(json.dumps({"server": {"workers": 1}, "endpoints": endpoints}))  # YAML contains JSON
    return Proxy("-c", str(file))


@contextmanager
def running_systems() -> Iterator[Mapping[str, Process]]:
    """All of them, ready, by the name that the table shows; stopped at the end."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlproxy-bench-")))

        def start(process: Process) -> Process:
            return stack.enter_context(running(process))

        stub = start(Stub())
        yield {
            "direct": stub,
            "nginx": start(Nginx(folder / "nginx", stub.url)),
            "nginx, bodies in memory": start(Nginx(folder / "tuned", stub.url, "client_body_buffer_size 1m;")),
            "naive batcher": start(NaiveBatcher(stub.url)),
            "MLProxy": start(_mlproxy(folder, stub.url)),
        }
