"""The admin API: metrics for Prometheus, status for people and scripts. **Effects.**"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from mlproxy import __version__
from mlproxy.config import Configuration
from mlproxy.observe import MetricPage
from mlproxy.observe.prometheus import PageCollector
from workers.admin.reference import reference_page
from workers.admin.status import EndpointDetail, EndpointStatus, Status, endpoint_status, status
from workers.admin.writing import (
    NOT_READ,
    NOT_WRITTEN,
    Command,
    check_token,
    check_write,
    configured,
    index_of,
    write_endpoint,
)  # fmt: skip


def make_app(configuration: Configuration, pages: Mapping[str, MetricPage], command: Command) -> FastAPI:
    """The application over the pages of every process, by its name; ``command`` reaches the batcher."""
    app = FastAPI(title="MLProxy admin", version=__version__, docs_url=None, redoc_url=None)
    registry = CollectorRegistry(auto_describe=False)
    names = [endpoint.name for endpoint in configuration.endpoints]
    registry.register(PageCollector(names, pages))

    @app.get("/", include_in_schema=False)
    def root() -> RedirectResponse:
        return RedirectResponse("docs")

    @app.get("/docs", response_class=HTMLResponse, summary="This page")
    def docs() -> str:
        return reference_page(app.openapi())

    @app.get("/metrics", response_class=Response, summary="Metrics in the Prometheus text format")
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/api/v1/status", summary="Processes and endpoints, as they are now")
    def read_status() -> Status:
        return status(configuration, pages)

    @app.get("/api/v1/endpoints", summary="Every endpoint: what it is and how it does")
    def read_endpoints() -> list[EndpointStatus]:
        return [endpoint_status(configuration, index, list(pages.values())) for index in range(len(names))]

    @app.get(
        "/api/v1/endpoints/{name}",
        summary="One endpoint, with its block of the configuration (needs admin.token, if there is one)",
        responses=NOT_READ,
    )
    def read_endpoint(name: str, request: Request) -> EndpointDetail:
        if configuration.admin.token:  # a block may hold what is secret, as `request.constants`
            check_token(configuration.admin.token, request)
        index = index_of(configuration, name)
        return EndpointDetail(
            configuration=configured(configuration, index),
            status=endpoint_status(configuration, index, list(pages.values())),
        )

    @app.put(
        "/api/v1/endpoints/{name}",
        summary="Take an endpoint block: the one that runs, so that lanes batch again (needs admin.token)",
        responses=NOT_WRITTEN,
        openapi_extra={"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}},
    )
    async def put_endpoint(name: str, request: Request) -> EndpointDetail:
        check_write(configuration.admin.token, request)
        await write_endpoint(configuration, index_of(configuration, name), request, command)
        return read_endpoint(name, request)

    @app.exception_handler(HTTPException)
    def explain(_: Request, error: HTTPException) -> JSONResponse:
        problems = error.detail if isinstance(error.detail, list) else [error.detail]
        content = {"error": "; ".join(problems), "status": error.status_code, "problems": problems}
        return JSONResponse(content, error.status_code, error.headers)

    @app.get("/healthz", summary="The admin process answers")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return app
