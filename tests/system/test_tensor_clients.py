"""The clients that people have, unchanged: Triton's and KServe's. Skipped, and said so, where they are not installed.

`pip install --editable '.[clients]'` brings Triton's. KServe's asks for a psutil older than the proxy's, so pip refuses
the two together; `pip install --no-deps kserve`, and then what it imports, does.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from bench.processes import Proxy
from tests.system.backends import Backend
from tests.system.conftest import StartProxy
from tests.system.tensors import MODEL, batch_of, serve

CALLERS = 16
ROWS = [np.full((1 + n % 2, 3), n, dtype=np.float32) for n in range(CALLERS)]
WORDS = [np.array([[f"word {n}"]] * len(rows), dtype=np.object_) for n, rows in enumerate(ROWS)]


@pytest.fixture(scope="module")
def proxy(start_proxy: StartProxy, shared_backend: Backend) -> Proxy:
    """One slot and some patience, so that callers at once share batches."""
    batching = {"policy": "static", "max_size": 8, "max_inflight": 1, "max_linger": "20ms"}
    endpoint = {"name": "iris", "protocol": "kserve-v2", "backend": {"urls": [shared_backend.url]}}
    return start_proxy({"endpoints": [endpoint | {"batching": batching}]})


@pytest.fixture
def backend(backend: Backend) -> Backend:
    backend.script = serve
    return backend


# --- Triton's ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def triton() -> Any:
    return pytest.importorskip("tritonclient.http", reason="Triton's client is not installed: pip install '.[clients]'")


def _inputs(triton: Any, number: int, binary: bool) -> list[Any]:
    rows, words = ROWS[number], WORDS[number]
    inputs = [triton.InferInput("x", rows.shape, "FP32"), triton.InferInput("s", words.shape, "BYTES")]
    inputs[0].set_data_from_numpy(rows, binary_data=binary)
    inputs[1].set_data_from_numpy(words, binary_data=binary)
    return inputs


def _assert_own(result: Any, number: int) -> None:
    np.testing.assert_array_equal(result.as_numpy("x_out"), 2 * ROWS[number])
    words = [word.decode() if isinstance(word, bytes) else word for word in result.as_numpy("s_out").reshape(-1)]
    assert words == [f"<word {number}>"] * len(ROWS[number])
    assert result.get_response()["id"] == str(number)


@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("binary_in", [True, False])
def test_tritons_client_gets_its_own_answers_one_after_the_other_and_all_at_once(
    triton: Any, proxy: Proxy, backend: Backend, binary_in: bool, binary_out: bool | None
) -> None:
    names = ("x_out", "s_out")
    outputs = None
    if binary_out is not None:
        outputs = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in names]
    client = triton.InferenceServerClient(urlsplit(proxy.url).netloc, concurrency=CALLERS)
    try:
        for number in range(3):
            inputs = _inputs(triton, number, binary_in)
            _assert_own(client.infer("iris", inputs, outputs=outputs, request_id=str(number)), number)
        one_by_one = len(backend.predictions)
        assert one_by_one == 3
        calls = [
            client.async_infer("iris", _inputs(triton, number, binary_in), outputs=outputs, request_id=str(number))
            for number in range(CALLERS)
        ]
        for number, call in enumerate(calls):
            _assert_own(call.get_result(), number)
        at_once = backend.predictions[one_by_one:]
        assert len(at_once) < CALLERS, "nobody shared a batch"
        assert sum(len(batch_of(call).tensors["x"]) for call in at_once) == sum(len(rows) for rows in ROWS)
    finally:
        client.close()


def test_tritons_client_asks_about_the_server_and_for_versions(triton: Any, proxy: Proxy, backend: Backend) -> None:
    client = triton.InferenceServerClient(urlsplit(proxy.url).netloc)
    try:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("iris")
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        assert client.get_model_metadata("iris")["platform"] == "stub"
        result = client.infer("iris", _inputs(triton, 3, True), model_version="7", request_id="3", timeout=5_000_000)
        _assert_own(result, 3)
        assert backend.predictions[-1].target == f"{MODEL}/versions/7/infer"
        with pytest.raises(Exception, match="first dimension"):
            client.infer("iris", [_inputs(triton, 0, True)[0], _inputs(triton, 1, True)[1]])
    finally:
        client.close()


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_tritons_client_may_compress_its_requests_and_say_how_urgent_they_are(
    triton: Any, proxy: Proxy, backend: Backend, coding: str
) -> None:
    client = triton.InferenceServerClient(urlsplit(proxy.url).netloc)
    try:
        result = client.infer(
            "iris", _inputs(triton, 3, True), request_id="3", priority=1, request_compression_algorithm=coding,
            response_compression_algorithm=coding,
        )  # fmt: skip
        _assert_own(result, 3)
        assert batch_of(backend.predictions[-1]).document["parameters"] == {"binary_data_output": True}
    finally:
        client.close()


def test_tritons_client_for_asyncio_works_too(triton: Any, proxy: Proxy, backend: Backend) -> None:
    aio = pytest.importorskip("tritonclient.http.aio")

    async def call_all() -> list[Any]:
        async with aio.InferenceServerClient(urlsplit(proxy.url).netloc) as client:
            calls = [client.infer("iris", _inputs(aio, n, n % 2 == 0), request_id=str(n)) for n in range(CALLERS)]
            return await asyncio.gather(*calls)

    for number, result in enumerate(asyncio.run(call_all())):
        _assert_own(result, number)
    assert len(backend.predictions) < CALLERS


# --- KServe's ------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # of what it imports
@pytest.mark.parametrize("binary", [True, False])
def test_kserves_client_gets_its_own_answers_all_at_once(proxy: Proxy, backend: Backend, binary: bool) -> None:
    kserve = pytest.importorskip("kserve", reason="KServe's client is not installed: see the head of this file")

    def request(number: int) -> Any:
        x = kserve.InferInput("x", list(ROWS[number].shape), "FP32")
        x.set_data_from_numpy(ROWS[number], binary_data=binary)
        parameters = {"binary_data_output": binary}
        return kserve.InferRequest("iris", [x], request_id=str(number), parameters=parameters)

    async def call_all() -> list[Any]:
        client = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2", timeout=10))
        try:
            assert await client.is_server_live(proxy.url)
            assert await client.is_model_ready(proxy.url, "iris")
            calls = [client.infer(proxy.url, request(number), model_name="iris") for number in range(CALLERS)]
            return await asyncio.gather(*calls)
        finally:
            await client.close()

    for number, result in enumerate(asyncio.run(call_all())):
        np.testing.assert_array_equal(result.outputs[0].as_numpy(), 2 * ROWS[number])
        assert result.id == str(number)
    assert len(backend.predictions) < CALLERS
