"""What one would write in an afternoon: FastAPI, a list, an asyncio task and httpx. The overhead benchmark's yardstick.

    python -m bench.naive_batcher BACKEND_URL [MAX_SIZE]

It batches rightly while nothing goes wrong; it has no bounds, no deadlines, no retries, no isolation. **Effects.**
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException, Request


class Batcher:
    """Collects instances until ``max_size`` are there or nobody else is waiting, one call at a time."""

    def __init__(self, url: str, max_size: int) -> None:
        self._url = url
        self._max_size = max_size
        self._queue: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()

    async def predict(self, instance: Any) -> Any:
        """The prediction for one instance."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        await self._queue.put((instance, answer))
        return await answer

    async def run(self) -> None:
        """Batch for ever."""
        async with httpx.AsyncClient() as client:
            while True:
                batch = [await self._queue.get()]
                while len(batch) < self._max_size and not self._queue.empty():
                    batch.append(self._queue.get_nowait())
                await self._call(client, batch)

    async def _call(self, client: httpx.AsyncClient, batch: list[tuple[Any, asyncio.Future[Any]]]) -> None:
        response = await client.post(self._url, json={"instances": [instance for instance, _ in batch]})
        predictions = response.json()["predictions"]
        for (_, answer), prediction in zip(batch, predictions, strict=True):
            if not answer.done():
                answer.set_result(prediction)


def make_app(url: str, max_size: int) -> FastAPI:
    """The whole service."""
    batcher = Batcher(url, max_size)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(batcher.run())
        yield
        task.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/models/{name}:predict")
    async def predict(request: Request) -> dict[str, list[Any]]:
        body = await request.json()
        if not isinstance(body, dict) or not isinstance(body.get("instances"), list):
            raise HTTPException(400, "send instances")
        return {"predictions": await asyncio.gather(*(batcher.predict(one) for one in body["instances"]))}

    return app


if __name__ == "__main__":
    uvicorn.run(
        make_app(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 32), port=0, log_level="info", access_log=False
    )
