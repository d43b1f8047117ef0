"""The ASGI application behind the hot path: health, and every path that is not a prediction. **Effects.**"""

from __future__ import annotations

import time
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
        """Readiness: a batcher serves this worker, and nobody is draining. Never tied to the backend."""
        reason = door.why_not_ready(time.monotonic_ns())
        return JSONResponse({"status": reason or "ready"}, status_code=503 if reason else 200)

    passing = PassThrough(door)
    app.mount("/", passing)
    app.router.default = passing  # what does not begin with a slash: OPTIONS *
    return app
