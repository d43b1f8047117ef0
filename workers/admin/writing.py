"""Writes to the admin API, and reads of secrets: who may, and what they do. **Effects**: commands to the batcher."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import orjson
from anyio import to_thread
from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from mlproxy.config import Configuration
from mlproxy.config.load import with_endpoint
from mlproxy.errors import ConfigurationError
from mlproxy.ipc.control import ControlError

#: Gives the batcher a command, blocking.
Command: TypeAlias = Callable[[Mapping[str, Any]], dict[str, Any]]

_Responses: TypeAlias = dict[int | str, dict[str, Any]]

#: What the API may answer besides, for its description. (That of 422 stands in place of FastAPI's own.)
NOT_READ: _Responses = {
    401: {"description": "a token is configured, and this is not it"},
    404: {"description": "no such endpoint"},
    422: {"description": "never"},
}
NOT_WRITTEN: _Responses = {
    400: {"description": "not JSON"},
    401: {"description": "not the token"},
    403: {"description": "no token is configured"},
    404: {"description": "no such endpoint"},
    413: {"description": "more than any block has"},
    422: {"description": "an invalid block; `problems` has all that is wrong with it"},
    501: {"description": "another block than the one that runs"},
    503: {"description": "the batcher does not answer"},
}

#: An endpoint's block is a few hundred bytes.
_MOST_BYTES = 2**20


def check_write(token: str, request: Request) -> None:
    """Whether ``request`` may write. `HTTPException` if not."""
    if not token:
        raise HTTPException(403, "admin.token is not set in the configuration, so nothing can be written")
    check_token(token, request)


def check_token(token: str, request: Request) -> None:
    """Whether ``request`` brings the token. `HTTPException` if not."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Bytes, as they came (Starlette reads headers as Latin-1): `compare_digest` takes no text beyond ASCII.
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), token.encode()):
        raise HTTPException(401, "this needs `Authorization: Bearer` with admin.token", {"WWW-Authenticate": "Bearer"})


def index_of(configuration: Configuration, name: str) -> int:
    """Which endpoint is called ``name``. `HTTPException` if none is."""
    for index, endpoint in enumerate(configuration.endpoints):
        if endpoint.name == name:
            return index
    raise HTTPException(404, f"no endpoint is called {name!r}")


def configured(configuration: Configuration, index: int) -> dict[str, Any]:
    """An endpoint's block, as the configuration spells it."""
    block: dict[str, Any] = json.loads(configuration.to_json())["endpoints"][index]
    return block


async def write_endpoint(configuration: Configuration, index: int, request: Request, command: Command) -> None:
    """Take an endpoint's block. One that changes nothing has its lanes batch again; no other is taken yet."""
    block = await _block_of(request)
    try:
        wanted = with_endpoint(configuration, index, block)
    except ConfigurationError as error:
        raise HTTPException(422, error.problems) from None
    except RecursionError:
        raise HTTPException(422, "the block is nested too deeply") from None
    if wanted != configuration:
        raise HTTPException(
            501, "this version cannot change an endpoint while it runs; change the file and restart. "
            "The block as it is, from GET, is taken: its lanes batch again",
        )  # fmt: skip
    message = {"command": "resume_batching", "endpoint": configuration.endpoints[index].name}
    try:
        await to_thread.run_sync(command, message)
    except ControlError as error:
        raise HTTPException(503, str(error), {"Retry-After": "1"}) from None


async def _block_of(request: Request) -> Any:
    body = b""
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > _MOST_BYTES:
                raise HTTPException(413, f"no endpoint's block has more than {_MOST_BYTES} bytes")
    except ClientDisconnect:
        raise HTTPException(400, "the body is not whole") from None  # for the log: whoever sent it has gone
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from None
