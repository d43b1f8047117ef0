"""The admin API says what it has, without the internet."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from mlproxy.config import Configuration
from mlproxy.observe import MetricPage, PageLayout
from workers.admin.app import make_app
from workers.admin.reference import reference_page


@contextmanager
def app_of(document: dict[str, Any]) -> Iterator[FastAPI]:
    configuration = Configuration.model_validate(document)
    page = MetricPage.create(PageLayout.of(configuration), "supervisor")
    yield make_app(configuration, {"supervisor": page}, lambda message: {})
    page.words.release()
    os.close(page.fd)


@pytest.fixture
def app() -> Iterator[FastAPI]:
    with app_of({"endpoints": [{"name": "iris", "backend": {"urls": ["http://a"]}}]}) as made:
        yield made


@pytest.fixture
def app_of_two() -> Iterator[FastAPI]:
    block: dict[str, Any] = {"protocol": "openai-embeddings", "backend": {"urls": ["http://a"]}}
    endpoints = [{"name": "a", **block}, {"name": "b", "route": "/b", **block}]
    with app_of({"admin": {"token": "secret"}, "endpoints": endpoints}) as made:
        yield made


def get(app: FastAPI, path: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin") as client:
            return await client.get(path)

    return asyncio.run(ask())


def test_the_root_leads_to_the_page_about_the_api(app: FastAPI) -> None:
    answer = get(app, "/")
    assert (answer.status_code, answer.headers["location"]) == (307, "docs")


def test_the_page_names_every_route_and_what_it_answers(app: FastAPI) -> None:
    answer = get(app, "/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    for path, operations in get(app, "/openapi.json").json()["paths"].items():
        for operation in operations.values():
            assert path in answer.text
            assert operation["summary"] in answer.text
    for text in ("<td>instances that wait now</td>", "EndpointStatus", "heartbeat_age_s", "text/html", "list of <a"):
        assert text in answer.text


def test_the_page_needs_nothing_but_itself(app: FastAPI) -> None:
    text = get(app, "/docs").text
    assert "<script" not in text
    assert "//" not in text.replace("<!DOCTYPE", "")


def test_every_link_leads_somewhere(app: FastAPI) -> None:
    text = get(app, "/docs").text
    links = re.findall(r'href="([^"]*)"', text)
    assert links
    for link in links:
        if link.startswith("#"):
            assert f'id="{link[1:]}"' in text
        elif link != "api/v1/status":  # it asks for processes, which are not there
            assert get(app, f"/{link}").status_code == 200


def test_what_an_api_says_about_itself_is_text_and_not_markup() -> None:
    page = reference_page({
        "info": {"title": "<b>", "version": "1"},
        "paths": {"/<i>": {"put": {"summary": "a & b", "responses": {"200": {}}}}},
    })  # fmt: skip
    assert "&lt;b&gt; 1" in page
    assert "PUT /&lt;i&gt;" in page
    assert "a &amp; b" in page


def test_without_a_token_in_the_configuration_nothing_is_written(app: FastAPI) -> None:
    block = get(app, "/api/v1/endpoints/iris").json()["configuration"]

    async def write() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin") as client:
            return await client.put("/api/v1/endpoints/iris", json=block, headers={"Authorization": "Bearer "})

    refused = asyncio.run(write())
    assert refused.status_code == 403
    assert "admin.token is not set" in refused.json()["error"]


def test_a_block_that_takes_the_route_of_another_endpoint_is_422(app_of_two: FastAPI) -> None:
    async def write() -> httpx.Response:
        transport, headers = httpx.ASGITransport(app_of_two), {"Authorization": "Bearer secret"}
        async with httpx.AsyncClient(transport=transport, base_url="http://admin", headers=headers) as client:
            block = (await client.get("/api/v1/endpoints/b")).json()["configuration"]
            del block["route"]
            return await client.put("/api/v1/endpoints/b", json=block)

    refused = asyncio.run(write())
    assert refused.status_code == 422
    assert "have the same route /v1/embeddings; give one of them" in refused.text
