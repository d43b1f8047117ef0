"""What a caller whose request passes through is told when the backend does not answer."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest

from mlproxy.config.endpoint import Backend
from workers.ingress.pass_failure import error_of

URL = "http://127.0.0.1:9"
CLOSED = "closed the connection before its answer was complete"
BACKEND = Backend.model_validate({"urls": [URL], "timeout": "3s", "connect_timeout": "250ms"})


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (httpx.ConnectTimeout(""), 502, f"no connection to {URL} within 250ms"),
        (httpx.ConnectError("All connection attempts failed"), 502, f"cannot connect to {URL}"),
        (httpx.ReadTimeout(""), 504, f"{URL} did not answer within 3s"),
        (httpx.PoolTimeout(""), 504, f"no connection to {URL} was free within 3s"),
        (httpx.RemoteProtocolError("illegal status line"), 502, f"what {URL} answers is not HTTP"),
        (httpx.RemoteProtocolError("Server disconnected without …"), 502, f"{URL} {CLOSED}"),
        (httpx.ReadError(""), 502, f"{URL} {CLOSED}"),
        (httpx.LocalProtocolError("Illegal header"), 502, f"the call to {URL} failed"),
    ],
)  # fmt: skip
def test_a_call_that_fails_is_told_in_words(error: httpx.HTTPError, status: int, detail: str) -> None:
    told = error_of(error, URL, BACKEND)
    assert (told.status, told.detail) == (status, detail)


def test_why_there_is_no_connection_is_told_in_the_words_of_the_system() -> None:
    async def connect() -> None:
        async with httpx.AsyncHTTPTransport() as transport:
            await transport.handle_async_request(httpx.Request("GET", url))

    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(httpx.ConnectError) as caught:
        asyncio.run(connect())
    assert error_of(caught.value, url, BACKEND).detail == f"cannot connect to {url}: Connection refused"
