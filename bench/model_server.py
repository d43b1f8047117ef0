"""A real model server on loopback, slow in the way that real ones are. **Effects.**

It speaks KServe v1: ``POST /v1/models/iris:predict`` and ``GET /v1/models/iris``. Calls are served one at a time, in
the order in which they come, and take ``base + per_instance x instances``: most of a call's time is the same for one
flower and for thirty, which is what makes batching pay. The time is slept away, so it costs no CPU.

    python -m bench.model_server [--port 9000] [--base-ms 40] [--per-instance-ms 1]

prints its URL once it listens, and ends on SIGTERM, SIGINT, or with its parent. Port 0 lets the kernel choose.
"""

from __future__ import annotations

import sys

try:
    import argparse
    import asyncio
    import socket
    import time
    from types import FrameType

    import numpy as np
    import orjson
    import uvicorn
    from fastapi import FastAPI, Request, Response
    from numpy.typing import NDArray

    from bench.iris import FEATURES, SPECIES, Classifier, train
    from bench.launch import end_with_parent
except KeyboardInterrupt:  # as in bench/demo.py: these take a good part of a second
    sys.exit(130)

_SHAPE = f"`instances` must be an array of flowers, each [{', '.join(FEATURES)}] in centimetres, 0 to 100"


class BadInput(ValueError):
    """What the caller sent is not a list of flowers."""


def read_flowers(body: bytes) -> NDArray[np.float64]:
    """The instances of a request, a row each."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadInput(f"the body is not JSON: {error}") from None
    instances = request.get("instances") if isinstance(request, dict) else None
    if not isinstance(instances, list) or not instances or not all(_is_flower(instance) for instance in instances):
        raise BadInput(_SHAPE)
    return np.array(instances, dtype=np.float64)


def predictions(classifier: Classifier, flowers: NDArray[np.float64]) -> bytes:
    """The body of the answer."""
    probabilities = classifier.probabilities(flowers)
    rows = [
        {"class": SPECIES[best], "probabilities": row}
        for best, row in zip(probabilities.argmax(axis=1), probabilities.tolist(), strict=True)
    ]
    return orjson.dumps({"predictions": rows})


class OneAtATime:
    """The slot of a server that serves one call after the other, each for its time."""

    def __init__(self, base_s: float, per_instance_s: float) -> None:
        self._base_s = base_s
        self._per_instance_s = per_instance_s
        self._slot = asyncio.Lock()  # fair: first come, first served

    async def predict(self, classifier: Classifier, flowers: NDArray[np.float64]) -> bytes:
        """Wait for the slot, then work until the service time has passed."""
        async with self._slot:
            begun_s = time.monotonic()
            body = predictions(classifier, flowers)
            service_s = self._base_s + self._per_instance_s * len(flowers)
            await asyncio.sleep(begun_s + service_s - time.monotonic())
            return body


def make_app(classifier: Classifier, slot: OneAtATime) -> FastAPI:
    """The HTTP side."""
    app = FastAPI(title="iris", openapi_url=None)

    @app.get("/v1/models/iris")
    def model() -> dict[str, object]:
        return {"name": "iris", "ready": True}

    @app.post("/v1/models/iris:predict")
    async def predict(request: Request) -> Response:
        try:
            flowers = read_flowers(await request.body())
        except BadInput as error:
            return Response(orjson.dumps({"error": str(error)}), status_code=400, media_type="application/json")
        return Response(await slot.predict(classifier, flowers), media_type="application/json")

    return app


class Server(uvicorn.Server):
    """Uvicorn's, which does not raise the signal again that stopped it: a stop that was asked for is no failure."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True


def main() -> int:
    """Train, listen, serve until told to stop."""
    end_with_parent()
    arguments = _arguments()
    classifier = train()
    try:
        listener = socket.create_server(("127.0.0.1", arguments.port), backlog=2048)
    except OSError as error:
        print(f"cannot listen on port {arguments.port}: {error.strerror}", file=sys.stderr)
        return 1
    app = make_app(classifier, OneAtATime(arguments.base_ms / 1e3, arguments.per_instance_ms / 1e3))
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=1
    )
    with listener:
        print(f"softmax regression on iris, {classifier.accuracy():.1%} of the flowers named rightly", file=sys.stderr)
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        Server(config).run(sockets=[listener])
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.model_server", description="An iris model server.")
    parser.add_argument("--port", type=int, default=9000, help="0: the kernel chooses [9000]")
    parser.add_argument("--base-ms", type=float, default=40.0, help="time of a call of no instances [40]")
    parser.add_argument("--per-instance-ms", type=float, default=1.0, help="and for each instance [1]")
    return parser.parse_args()


def _is_flower(instance: object) -> bool:
    return (
        isinstance(instance, list)
        and len(instance) == len(FEATURES)
        and all(type(value) in (int, float) and 0 <= value <= 100 for value in instance)
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before the server handles signals
        sys.exit(130)
