"""Proxies and scripted backends as real processes and sockets; a module shares one proxy where it can. **Effects.**"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeAlias

import pytest

from bench.processes import Proxy, running_proxy
from tests.system.backends import Backend, running_backend

HEADER_BYTES = 8192
BODY_BYTES = 8 * 2**20

StartProxy: TypeAlias = Callable[[dict[str, Any]], Proxy]


@pytest.fixture(scope="module")
def start_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartProxy]:
    """Starts proxies from a configuration; each ends with the module, cleanly and without having logged a defect."""
    started: list[Proxy] = []

    def start(document: dict[str, Any]) -> Proxy:
        folder = tmp_path_factory.mktemp("proxy")
        file = folder / "mlproxy.yaml"
        server = {"workers": 1, "drain_timeout": "5s", **document.get("server", {})}
        file.write_text(json.dumps(document | {"server": server}))  # YAML contains JSON
        started.append(stack.enter_context(running_proxy("-c", str(file), log=folder / "proxy.log")))
        return started[-1]

    with ExitStack() as stack:
        yield start
        exit_codes = [proxy.stop() for proxy in started]
    logs = "\n".join(proxy.log_text() for proxy in started)
    assert "Traceback" not in logs, logs
    assert set(exit_codes) <= {0}, logs


@pytest.fixture(scope="module")
def shared_backend() -> Iterator[Backend]:
    """The module's backend; tests ask for `backend`."""
    with running_backend() as backend:
        yield backend


@pytest.fixture
def backend(shared_backend: Backend) -> Iterator[Backend]:
    """The module's backend as new; it saw no batch that was none."""
    shared_backend.forget()
    yield shared_backend
    assert shared_backend.defects == []


@pytest.fixture(scope="module")
def proxy(start_proxy: StartProxy, shared_backend: Backend) -> Proxy:
    """One endpoint, iris, one call at a time, small limits; a module with other wishes has a `proxy` of its own."""
    batching = {"policy": "static", "max_size": 64, "max_inflight": 1}
    return start_proxy({
        "limits": {"header": HEADER_BYTES, "body": BODY_BYTES, "header_timeout": "1s"},
        "endpoints": [
            {"name": "iris", "backend": {"urls": [shared_backend.url], "timeout": "20s"}, "batching": batching}
        ],
    })  # fmt: skip
