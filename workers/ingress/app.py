"""The ASGI application behind the hot path: health, and every path that is not a prediction. **Effects.**

On Starlette alone: two routes without parameters have no use for what FastAPI adds, and loading it would be a fifth
of a worker's start.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from workers.ingress.passing import PassThrough

if TYPE_CHECKING:
    from starlette.requests import Request

    from workers.ingress.door import Door

_READING = ["GET", "HEAD"]


def make_app(door: Door) -> Starlette:
    """Health routes, and `PassThrough` for the rest."""

    async def healthz(_: Request) -> JSONResponse:
        """Liveness: this worker's loop turns."""
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> JSONResponse:
        """Readiness: a batcher serves this worker, and nobody is draining. Never tied to the backend."""
        reason = door.why_not_ready(time.monotonic_ns())
        return JSONResponse({"status": reason or "ready"}, status_code=503 if reason else 200)

    passing = PassThrough(door)
    health = [Route("/healthz", healthz, methods=_READING), Route("/readyz", readyz, methods=_READING)]
    app = Starlette(routes=[*health, Mount("/", passing)])
    app.router.default = passing  # what does not begin with a slash: OPTIONS *
    return app
