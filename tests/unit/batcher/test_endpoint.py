"""A defect of a codec costs nobody more than an answer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest

from mlproxy.backend import BackendCall, BackendReply, Balancer
from mlproxy.config import Endpoint
from mlproxy.engine import Engine, QueueBounds, StaticBatching
from mlproxy.errors import ProxyError
from mlproxy.observe import BatcherMetrics, MetricPage, PageLayout
from mlproxy.protocols import Answer, Text
from mlproxy.protocols.codec import BatchBody, Cut
from mlproxy.protocols.kserve_v1 import KServeV1
from workers.batcher.endpoint import EndpointRuntime
from workers.batcher.link import LinkedRequest, WorkerLink

ENDPOINT = Endpoint.model_validate({"name": "m", "backend": {"urls": ["http://127.0.0.1:9"]}})


class Link:
    """Notes what the callers get."""

    def __init__(self) -> None:
        self.answered: dict[int, bytes] = {}
        self.refused: dict[int, str] = {}

    def answer(self, request_ids: Sequence[int], answers: Sequence[Answer], *_: int) -> None:
        self.answered |= {number: body for number, (_, body) in zip(request_ids, answers, strict=True)}

    def reject(self, request: LinkedRequest, error: ProxyError) -> None:
        self.refused[request.id] = error.slug


class EchoBackend:
    """Answers each call with one prediction per instance, when it is asked to."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    def send(self, path: bytes, headers: bytes, body: Sequence[bytes], timeout_ns: int, on_done: Any) -> BackendCall:
        text = b"".join(body).replace(b"instances", b"predictions")
        self.done.append(lambda: on_done(BackendReply(200, b"", text)))
        return BackendCall(body, on_done)


class FaultyCodec(KServeV1):
    """Breaks at a request to be cut, a batch, a reply or an answer with 666 in it."""

    def __init__(self, breaks_at: str) -> None:
        self._breaks_at = breaks_at

    def cut(self, lane_key: bytes, items: Text) -> Cut:
        if self._breaks_at == "cut" and b"666" in bytes(items):
            raise ZeroDivisionError
        return super().cut(lane_key, items)

    def join(self, lane_key: bytes, items: Sequence[Text]) -> BatchBody:
        if self._breaks_at == "batch" and b"666" in items:
            raise ZeroDivisionError
        return super().join(lane_key, items)

    def split_reply(self, headers: bytes, body: bytes, asked: object = None) -> Any:
        if self._breaks_at == "reply" and b"666" in body:
            raise ZeroDivisionError
        return super().split_reply(headers, body, asked)

    def render(self, pieces: Any, own: bytes) -> Answer:
        answer = super().render(pieces, own)
        if self._breaks_at == "answer" and b"666" in answer[1]:
            raise ZeroDivisionError
        return answer


@pytest.fixture
def page() -> Iterator[MetricPage]:
    page = MetricPage.create(PageLayout((("http://a",),)), "batcher")
    yield page
    os.close(page.fd)


@pytest.mark.parametrize("breaks_at", ["cut", "batch", "reply", "answer"])
def test_a_defect_is_refused_to_the_one_who_causes_it(
    breaks_at: str, page: MetricPage, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(StaticBatching(4, 0, 1), QueueBounds(100, 10_000), slo_ns=10**9, retry_attempts=0)
    backend, link = EchoBackend(), Link()
    runtime = EndpointRuntime(
        ENDPOINT, engine, FaultyCodec(breaks_at), cast(Balancer, backend), BatcherMetrics(page, 0), lambda _: None
    )
    large = b"666, 0, 0, 0, 0" if breaks_at == "cut" else b"666"
    for number, items in ((1, b"1"), (2, b"2"), (666, large), (3, b"3")):
        runtime.arrive([
            LinkedRequest(
                number, b"", items.count(b",") + 1, len(items), 0, link=cast(WorkerLink, link), items=items
            )
        ])  # fmt: skip
    runtime.turn(0, set())
    while not engine.idle:
        for done in backend.done:
            done()
        backend.done.clear()
        runtime.turn(0, set())
    assert sorted(link.answered) == [1, 2, 3]
    assert link.answered[2] == b'{"predictions": [2]}'
    assert link.refused == {666: "backend-contract"}
    assert engine.idle
    assert "defect while" in caplog.text
