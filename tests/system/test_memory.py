"""Memory stays where it is, however many requests pass."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from bench.processes import PROJECT, Proxy, running_proxy
from tests.system.backends import running_backend
from tests.system.raw_http import WITHIN_S, read_metric, request

REQUESTS = 200_000
CONNECTIONS = 128
LARGEST_GROWTH_BYTES = 3 * 2**20
BODY = b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}'
ONE_REQUEST = request("POST", "/v1/models/m:predict", ["Content-Type: application/json"], BODY)


@contextmanager
def model_backend(folder: Path) -> Iterator[str]:
    """The benchmarks' stub in C where there is a compiler, since it leaves the processor to the proxy; else Python."""
    compiler = shutil.which("cc")
    if compiler is None:
        with running_backend() as backend:
            yield backend.url
        return
    program = folder / "stub_backend"
    subprocess.run([compiler, "-O2", "-o", program, PROJECT / "bench" / "stub" / "stub_backend.c"], check=True)
    with subprocess.Popen([program], stdout=subprocess.PIPE, text=True) as stub:
        assert stub.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(stub.stdout.readline())}"
        finally:
            stub.kill()


def proxy_before(url: str, folder: Path) -> AbstractContextManager[Proxy]:
    """With rings that are used to their last byte long before half of the requests: until then their memory grows."""
    file = folder / "mlproxy.yaml"
    endpoint = {"name": "m", "backend": {"urls": [url]}, "batching": {"max_inflight": 2}}
    file.write_text(json.dumps({"server": {"workers": 1, "ring": "1MiB"}, "endpoints": [endpoint]}))
    return running_proxy("-c", str(file), log=folder / "proxy.log")


def pss_bytes(proxy: Proxy, title: str) -> int:
    """What the process takes, with its share of what it shares."""
    [process] = [child for child in psutil.Process(proxy.pid).children() if " ".join(child.cmdline()).strip() == title]
    match = re.search(r"^Pss:\s+(\d+) kB$", Path(f"/proc/{process.pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


def _send(connections: Sequence[socket.socket]) -> None:
    for connection in connections:
        connection.sendall(ONE_REQUEST)


def _receive(connections: Sequence[socket.socket]) -> None:
    for connection in connections:
        answer = connection.recv(4096)
        while not answer.endswith(b"]}"):
            more = connection.recv(4096)
            assert more, f"cut off after {answer!r}"
            answer += more
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer


def drive(connections: Sequence[socket.socket], requests: int) -> None:
    """A closed loop on each connection; one half is being served while the other is being read."""
    half = len(connections) // 2
    ahead, behind = connections[:half], connections[half:]
    _send(ahead)
    for _ in range(requests // half - 1):
        _send(behind)
        _receive(ahead)
        ahead, behind = behind, ahead
    _receive(ahead)


@pytest.mark.timeout(180)
def test_memory_is_flat_over_200_000_requests(tmp_path: Path) -> None:
    with model_backend(tmp_path) as url, ExitStack() as stack:
        proxy = stack.enter_context(proxy_before(url, tmp_path))
        address = urlsplit(proxy.url)
        connections = [
            stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=WITHIN_S))
            for _ in range(CONNECTIONS)
        ]
        taken = []
        for _ in range(2):
            drive(connections, REQUESTS // 2)
            taken.append({role: pss_bytes(proxy, f"mlproxy: {role}") for role in ("ingress 0", "batcher")})
        halfway, end = taken
        growth = {role: end[role] - halfway[role] for role in end}
        assert all(abs(grown) < LARGEST_GROWTH_BYTES for grown in growth.values()), (growth, end)
        answered = read_metric(proxy.admin_url, 'mlproxy_requests_total{code="200",endpoint="m"}')
        assert REQUESTS - 2 * CONNECTIONS < answered <= REQUESTS
