"""Predictions to the endpoint iris, as bytes, and what comes back. **Pure.**"""

from __future__ import annotations

from collections.abc import Sequence

from tests.system.raw_http import Response, chunked, request

IRIS = "/v1/models/iris:predict"
JSON = "Content-Type: application/json"


def body_of(instance: bytes) -> bytes:
    return b'{"instances": [' + instance + b"]}"


def answer_to(instance: bytes) -> bytes:
    return b'{"predictions": [' + instance + b"]}"


def predict(instance: bytes, *headers: str) -> bytes:
    return request("POST", IRIS, (JSON, *headers), body_of(instance))


def predict_in_chunks(pieces: Sequence[bytes], *headers: str) -> bytes:
    return request("POST", IRIS, (JSON, "Transfer-Encoding: chunked", *headers)) + chunked(pieces)


def assert_error(response: Response, status: int, slug: str) -> None:
    """A whole error document of docs/http.md."""
    assert response.status == status
    document = response.json()
    assert document["status"] == status
    assert document["type"] == f"urn:mlproxy:error:{slug}"
    assert document["error"] == document["detail"] != ""
    assert document["title"]
    assert document["instance"] == f"urn:request:{response.header('x-request-id')}"
