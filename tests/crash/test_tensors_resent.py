"""The batcher is killed with tensors in flight: rows, ids, lane headers, the form of the answer reach the successor."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from bench.processes import running_proxy, wait_until
from tests.crash.callers import kill_batcher
from tests.system.backends import running_backend
from tests.system.raw_http import WITHIN_S, Caller
from tests.system.tensors import answer_of, batch_of, infer, serve


def test_a_request_with_tensors_is_sent_again_as_it_was(tmp_path: Path) -> None:
    with running_backend(serve) as backend:
        batching = {"policy": "static", "max_size": 4, "max_inflight": 1, "lane_headers": ["x-tenant"]}
        endpoint = {"name": "iris", "protocol": "kserve-v2", "backend": {"urls": [backend.url]}, "batching": batching}
        file = tmp_path / "mlproxy.yaml"
        file.write_text(json.dumps({"server": {"workers": 1}, "endpoints": [endpoint]}))
        arrays = [np.full((1 + n, 2), n, dtype="i8") for n in range(6)]
        with running_proxy("-c", str(file)) as proxy, ExitStack() as stack:
            callers = [stack.enter_context(Caller(proxy.url, within_s=2 * WITHIN_S)) for _ in arrays]
            with backend.held() as gate:
                for n, (caller, array) in enumerate(zip(callers, arrays, strict=True)):
                    wanted = {"binary_data_output": n % 3 == 0}
                    tenant = (f"X-Tenant: {n // 3}",)
                    caller.send(
                        infer({"x": array}, binary=n % 2 == 0, id=f"caller {n}", headers=tenant, parameters=wanted)
                    )
                assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
                kill_batcher(proxy)
                gate.open()
                answers = [answer_of(caller.read_response()) for caller in callers]
            for n, (answer, array) in enumerate(zip(answers, arrays, strict=True)):
                np.testing.assert_array_equal(answer.tensors["x_out"], 2 * array)
                assert answer.document["id"] == f"caller {n}"
                assert ("data" not in answer.document["outputs"][0]) is (n % 3 == 0)
        assert backend.defects == []
        for call in backend.predictions:
            tenants = {int(value) // 3 for value in batch_of(call).tensors["x"].reshape(-1)}
            assert tenants == {int(call.header("x-tenant") or "none")}
