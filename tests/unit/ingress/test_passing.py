"""What a caller whose request passes through is told when the backend does not answer."""

from __future__ import annotations

import httpx
import pytest

from mlproxy.config.schema import Backend
from workers.ingress.passing import error_of

BACKEND = Backend.model_validate({"urls": ["http://127.0.0.1:9"], "timeout": "3s", "connect_timeout": "250ms"})


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (httpx.ConnectTimeout(""), 502, "cannot connect to the backend within 250ms"),
        (httpx.ConnectError("refused"), 502, "cannot connect to the backend: refused"),
        (httpx.ReadTimeout(""), 504, "the backend did not answer within 3s"),
        (httpx.PoolTimeout(""), 504, "the backend did not answer within 3s"),
        (httpx.RemoteProtocolError("illegal status line"), 502, "the backend call failed: illegal status line"),
        (httpx.ReadError(""), 502, "the backend call failed: ReadError"),
    ],
)  # fmt: skip
def test_a_call_that_fails_is_told_in_words(error: httpx.HTTPError, status: int, detail: str) -> None:
    told = error_of(error, BACKEND)
    assert (told.status, told.detail) == (status, detail)
