"""The admin API: metrics for Prometheus, status for people and scripts. **Effects.**"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from mlproxy import __version__
from mlproxy.config import Configuration
from mlproxy.observe import MetricPage
from mlproxy.observe.prometheus import PageCollector
from workers.admin.reference import reference_page
from workers.admin.status import EndpointStatus, Status, endpoint_status, status


def make_app(configuration: Configuration, pages: Mapping[str, MetricPage]) -> FastAPI:
    """The application over the pages of every process, by its name."""
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

    @app.get("/healthz", summary="The admin process answers")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return app
