"""Response bytes, read back by a parser: framed right, with the headers that the contract promises."""

from __future__ import annotations

import json
from typing import Any

import httptools
import pytest

from mlproxy.errors import BadRequest, MethodNotAllowed, Overloaded, ProxyError, error_from_slug
from mlproxy.protocols import JSON_TYPE
from workers.ingress import response

DATE = b"date: Tue, 24 Nov 2026 10:00:00 GMT\r\n"


class Reading:
    """One response, as an HTTP client sees it."""

    def __init__(self, data: bytes) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""
        self.ends = 0
        self.reason = b""
        self.keep_alive = False
        self._parser: Any = httptools.HttpResponseParser(self)
        self._parser.feed_data(data)
        self.status: int = self._parser.get_status_code()

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        assert name.decode() not in self.headers, f"{name!r} stands twice"
        self.headers[name.decode()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ends += 1
        self.keep_alive = self._parser.should_keep_alive()  # known inside this callback only


def answer(body: bytes = b"[1]", queue_ns: int = 0, backend_ns: int = 0, keep_alive: bool = True) -> Reading:
    frame = response.answer_frame(DATE, JSON_TYPE, 32, backend_ns)
    return Reading(response.answer(frame, b"id-7", body, queue_ns, keep_alive))


def error(failure: ProxyError, problem_json: bool = False, keep_alive: bool = True) -> Reading:
    return Reading(response.error(DATE, b"id-7", failure, problem_json=problem_json, keep_alive=keep_alive))


@pytest.mark.parametrize("body", [b"", b"[1]", b"\r\n\r\nHTTP/1.1 200 OK\r\n", bytes(range(256)) * 1000, b"%d %b %%"])
def test_an_answer_is_exactly_its_body_and_ends_there(body: bytes) -> None:
    reading = answer(body)
    assert (reading.status, reading.reason, reading.body, reading.ends) == (200, b"OK", body, 1)


def test_an_answer_may_have_other_headers_about_its_body() -> None:
    headers = b"content-type: application/octet-stream\r\ninference-header-content-length: 2\r\n"
    frame = response.answer_frame(DATE, headers, 1, 0)
    reading = Reading(response.answer(frame, b"id-7", b"{}\x00", 0, True))
    assert reading.headers["content-type"] == "application/octet-stream"
    assert reading.headers["inference-header-content-length"] == "2"
    assert reading.body == b"{}\x00"


def test_an_answer_tells_its_id_its_batch_and_where_the_time_went() -> None:
    assert answer(queue_ns=1_234_567, backend_ns=40_000_999).headers == {
        "date": "Tue, 24 Nov 2026 10:00:00 GMT",
        "content-type": "application/json",
        "content-length": "3",
        "x-request-id": "id-7",
        "server-timing": "queue;dur=1.234, backend;dur=40.000",
        "x-mlproxy-batch-size": "32",
    }


@pytest.mark.parametrize(
    ("duration_ns", "written"),
    [(0, "0.000"), (999, "0.000"), (1_000, "0.001"), (90_000, "0.090"), (5_000_000_000, "5000.000")],
)
def test_a_timing_is_written_in_milliseconds_with_three_digits(duration_ns: int, written: str) -> None:
    timing = answer(queue_ns=duration_ns, backend_ns=duration_ns).headers["server-timing"]
    assert timing == f"queue;dur={written}, backend;dur={written}"


def test_a_connection_is_closed_only_when_the_response_says_so() -> None:
    for keep_alive in (True, False):
        readings = [
            answer(keep_alive=keep_alive),
            error(BadRequest("no"), keep_alive=keep_alive),
            Reading(response.relay(DATE, b"id-7", 500, b"", b"no", keep_alive)),
        ]
        for reading in readings:
            assert reading.keep_alive is keep_alive
            assert ("connection" in reading.headers) is not keep_alive


@pytest.mark.parametrize(
    ("status", "reason"), [(404, b"Not Found"), (500, b"Internal Server Error"), (599, b"Unknown")]
)
def test_the_backends_own_status_and_body_are_relayed_as_they_are(status: int, reason: bytes) -> None:
    reading = Reading(
        response.relay(
            DATE,
            b"id-7",
            status,
            b"content-type: text/plain; charset=x\r\nretry-after: 7\r\n",
            b"shape (3,) is wrong",
            True,
        )
    )
    assert (reading.status, reading.reason, reading.body, reading.ends) == (status, reason, b"shape (3,) is wrong", 1)
    assert reading.headers["content-type"] == "text/plain; charset=x"
    assert reading.headers["x-request-id"] == "id-7"


def test_a_backend_that_named_no_content_type_gets_none_invented() -> None:
    reading = Reading(response.relay(DATE, b"id-7", 500, b"", b"", True))
    assert "content-type" not in reading.headers
    assert (reading.headers["content-length"], reading.ends) == ("0", 1)


def test_an_error_is_a_problem_with_the_text_that_inference_clients_look_for() -> None:
    reading = error(BadRequest("`instances` is missing"))
    assert reading.status == 400
    assert reading.headers["content-type"] == "application/json"
    assert json.loads(reading.body) == {
        "error": "`instances` is missing",
        "type": "urn:mlproxy:error:bad-request",
        "title": "Bad request",
        "status": 400,
        "detail": "`instances` is missing",
        "instance": "urn:request:id-7",
    }


@pytest.mark.parametrize(
    "slug", ["bad-request", "method-not-allowed", "body-too-large", "unsupported-media-type", "header-too-large",
             "overloaded", "draining", "deadline-exceeded", "backend-unavailable", "backend-timeout", "internal-error"],
)  # fmt: skip
def test_every_error_says_the_same_status_in_head_and_body(slug: str) -> None:
    reading = error(error_from_slug(slug, "why"))
    assert json.loads(reading.body)["status"] == reading.status
    assert reading.reason != b"Unknown"
    assert reading.headers["date"]


def test_an_error_is_problem_json_to_whoever_accepts_it_with_the_same_body() -> None:
    plain, problem = error(BadRequest("no")), error(BadRequest("no"), problem_json=True)
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.body == plain.body


def test_an_error_says_when_to_come_back_only_when_that_is_known() -> None:
    assert error(Overloaded("full", retry_after_s=3)).headers["retry-after"] == "3"
    assert "retry-after" not in error(Overloaded("full")).headers


def test_a_method_that_is_not_allowed_is_answered_with_the_one_that_is() -> None:
    assert error(MethodNotAllowed("no")).headers["allow"] == "POST"
    assert "allow" not in error(BadRequest("no")).headers


@pytest.mark.parametrize("detail", ["", 'quote " and \\ and \r\n', "é€😀", "\x00", "\ufffd"])
def test_any_detail_survives_the_way_into_json(detail: str) -> None:
    reading = error(BadRequest(detail))
    assert json.loads(reading.body)["detail"] == detail
    assert reading.ends == 1


def test_the_go_ahead_is_an_interim_response() -> None:
    assert response.CONTINUE == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_responses_that_follow_each_other_on_a_connection_are_told_apart() -> None:
    data = response.answer(response.answer_frame(DATE, JSON_TYPE, 1, 0), b"a", b"[1]", 0, True) + response.error(
        DATE, b"b", BadRequest("no"), problem_json=False, keep_alive=True
    )
    assert Reading(response.CONTINUE + data[: data.index(b"[1]") + 3]).body == b"[1]"
    assert data.count(b"HTTP/1.1 ") == 2
    assert data.index(b"[1]HTTP/1.1 400 Bad Request\r\n") > 0
