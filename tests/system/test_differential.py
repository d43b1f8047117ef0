"""Ten thousand requests of every protocol, 96 at a time: each gets what the backend would have answered to it alone."""

from __future__ import annotations

import os
import random
import socket

import uvloop

from bench.processes import wait_until
from tests.system.conftest import StartProxy
from tests.system.differential import compare
from tests.system.differential_json import Columns, Custom, Embeddings, JsonList, KServeV1
from tests.system.differential_kinds import Kind
from tests.system.differential_tensors import KServeV2, KServeV2Binary

KINDS: tuple[Kind, ...] = (
    KServeV1(), Columns(), JsonList(), KServeV2("v2"), KServeV2Binary("v2-binary"), Embeddings(), Custom(),
)  # fmt: skip
REQUESTS = 10_000
MAX_SIZE = 8


def test_every_answer_is_what_the_backend_says_to_that_request_alone(start_proxy: StartProxy) -> None:
    seed = int(os.environ.get("DIFFERENTIAL_SEED", random.randrange(2**32)))
    print(f"DIFFERENTIAL_SEED={seed}")  # shown when it fails
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        batching = {"policy": "static", "max_size": MAX_SIZE, "max_inflight": 4}
        proxy = start_proxy({
            "endpoints": [
                {
                    "name": kind.name, "protocol": kind.protocol, "batching": batching,
                    "backend": {"urls": [url], "path": f"/{kind.name}", "timeout": "5s"},
                    **kind.settings,
                }
                for kind in KINDS
            ]
        })  # fmt: skip
        double, callers = uvloop.run(compare(KINDS, proxy.url, listening, REQUESTS, seed))
        print(sorted(callers.outcomes.items()), sorted(double.sizes.items()))
        assert callers.wrong == []
        assert double.defects == []
        assert callers.poisonous
        assert callers.poisonous <= set(double.alone) | callers.refused  # each was a call of its own
        assert len(callers.poisonous & set(double.alone)) > len(callers.poisonous) / 2
        assert sum(callers.outcomes.values()) == REQUESTS
        # A call that went wrong is made again, so hardly anybody is told of it: who was alone in it, and it was 500.
        assert sum(count for outcome, count in callers.outcomes.items() if "refused" in outcome) < REQUESTS / 100
        for kind in KINDS:
            assert callers.outcomes[f"{kind.name} 200"] > REQUESTS / len(KINDS) / 2
            assert callers.outcomes[f"{kind.name} 422"] > 0
        assert sum(calls for size, calls in double.sizes.items() if size > 1) > sum(double.sizes.values()) / 3
        assert wait_until(
            lambda: (
                not any(
                    endpoint["queue_depth"] or endpoint["backend_inflight"] for endpoint in proxy.status()["endpoints"]
                )
            ),
            10,
        )
