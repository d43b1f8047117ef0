"""A model server on loopback that echoes, and misbehaves in every way that a backend can. **Effects.**

Prediction i is instance i, byte for byte as JSON has it, so whoever called sees whether the answer is its own. An
instance that says ``"poison"`` fails its whole batch with 400. Apart from that one call in `--trouble` goes wrong:
it is answered 503, short, cut off in the middle, slowly, or not at all.

    python -m bench.erratic_server [--port 9000] [--trouble 50] [--seed 1]

prints its URL once it listens, and ends on SIGTERM, SIGINT, or with its parent. Port 0 lets the kernel choose.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import orjson
import uvicorn

from bench.launch import end_with_parent
from bench.model_server import Server

Send: TypeAlias = "Callable[[dict[str, Any]], Awaitable[None]]"

SERVICE_S = (0.002, 0.02)
STALL_S = 30.0  # longer than any time-out that a soak configures
TRICKLE_PAUSE_S = 0.02
TRICKLED_PIECES = 10


class ErraticServer:
    """The ASGI application."""

    def __init__(self, trouble: int, seed: int) -> None:
        self._trouble = trouble
        self._random = random.Random(seed)

    async def __call__(self, scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Send) -> None:
        body = await _body(receive)
        if scope["method"] != "POST":
            await _reply(send, 200, orjson.dumps({"path": scope["path"]}))
            return
        await asyncio.sleep(self._random.uniform(*SERVICE_S))
        document = orjson.loads(body)
        instances = document["instances"] if isinstance(document, dict) else document
        if any("poison" in instance for instance in instances):
            await _reply(send, 400, b'{"error": "poison"}')
        elif self._trouble and self._random.randrange(self._trouble) == 0:
            await self._random.choice((_busy, _short, _cut_off, _trickle, _stall))(send, document, instances)
        else:
            await _reply(send, 200, _answer(document, instances))


def _answer(document: object, predictions: list[Any]) -> bytes:
    return orjson.dumps(predictions if isinstance(document, list) else {"predictions": predictions})


async def _body(receive: Callable[[], Awaitable[Any]]) -> bytes:
    pieces = []
    while (message := await receive())["type"] == "http.request":
        pieces.append(message["body"])
        if not message.get("more_body"):
            break
    return b"".join(pieces)


async def _start(send: Send, status: int, length: int) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % length)]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _reply(send: Send, status: int, body: bytes) -> None:
    await _start(send, status, len(body))
    await send({"type": "http.response.body", "body": body})


# --- troubles --------------------------------------------------------------------------------------------------


async def _busy(send: Send, document: object, instances: list[Any]) -> None:
    await _reply(send, 503, b'{"error": "busy"}')


async def _short(send: Send, document: object, instances: list[Any]) -> None:
    await _reply(send, 200, _answer(document, instances[:-1]))


async def _cut_off(send: Send, document: object, instances: list[Any]) -> None:
    body = _answer(document, instances)
    await _start(send, 200, len(body))
    await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    # Returning now makes Uvicorn close the connection.


async def _trickle(send: Send, document: object, instances: list[Any]) -> None:
    body = _answer(document, instances)
    await _start(send, 200, len(body))
    step = -(-len(body) // TRICKLED_PIECES)
    for start in range(0, len(body), step):
        await asyncio.sleep(TRICKLE_PAUSE_S)
        await send({"type": "http.response.body", "body": body[start : start + step], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _stall(send: Send, document: object, instances: list[Any]) -> None:
    await asyncio.sleep(STALL_S)
    await _reply(send, 200, _answer(document, instances))


def main() -> int:
    """Listen, serve until told to stop."""
    end_with_parent()
    parser = argparse.ArgumentParser(prog="python -m bench.erratic_server", description="A model server with faults.")
    parser.add_argument("--port", type=int, default=9000, help="0: the kernel chooses [9000]")
    parser.add_argument("--trouble", type=int, default=50, help="one call in so many goes wrong; 0: none [50]")
    parser.add_argument("--seed", type=int, default=1, help="of what goes wrong [1]")
    arguments = parser.parse_args()
    app = ErraticServer(arguments.trouble, arguments.seed)
    logging.getLogger("uvicorn.error").disabled = True  # it would complain of what is cut off on purpose
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none",
                            timeout_graceful_shutdown=1)  # fmt: skip
    with socket.create_server(("127.0.0.1", arguments.port), backlog=2048) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        Server(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
