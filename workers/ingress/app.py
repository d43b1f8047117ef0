"""The ASGI application behind the hot path: health, and every path that is not a prediction. **Effects.**"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from workers.ingress.passing import PassThrough

if TYPE_CHECKING:
    from workers.ingress.door import Door

_READING = ["GET", "HEAD"]


def make_app(door: Door) -> FastAPI:
    """Health routes, and `PassThrough` for the rest. The data port has no API documentation of its own."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.api_route("/healthz", methods=_READING)
    async def healthz() -> dict[str, str]:
        """Liveness: this worker's loop turns."""
        return {"status": "ok"}

    @app.api_route("/readyz", methods=_READING)
    async def readyz() -> JSONResponse:
        """Readiness: a batcher answers this worker, and nobody is draining. Never tied to the backend."""
        if door.ready:
            return JSONResponse({"status": "ready"})
        reason = "draining" if door.draining else "no batcher yet"
        return JSONResponse({"status": reason}, status_code=503)

    app.mount("/", PassThrough(door))
    return app
