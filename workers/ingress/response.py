"""HTTP/1.1 response bytes of the hot path. **Pure.**"""

from __future__ import annotations

from http import HTTPStatus

import orjson

from mlproxy.errors import MethodNotAllowed, ProxyError
from workers.ingress.coding import ACCEPTED, UnsupportedCoding

_STATUS_LINE = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_CONNECTION_CLOSE = b"connection: close\r\n"

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def status_line(status: int) -> bytes:
    """``HTTP/1.1 200 OK`` and its line end, for any status a backend may invent."""
    return _STATUS_LINE.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status


def answer_frame(default_headers: bytes, headers: bytes, batch_size: int, backend_ns: int) -> tuple[bytes, bytes]:
    """What all answers of one batch have in common, before and behind the time in the queue.

    ``headers`` are whole lines about the bodies.
    """
    backend_us = backend_ns // 1000
    before = b"HTTP/1.1 200 OK\r\n%b%bserver-timing: queue;dur=" % (default_headers, headers)
    behind = b", backend;dur=%d.%03d\r\nx-mlproxy-batch-size: %d\r\nx-request-id: "
    return before, behind % (backend_us // 1000, backend_us % 1000, batch_size)


def answer(frame: tuple[bytes, bytes], request_id: bytes, body: bytes, queue_ns: int, keep_alive: bool) -> bytes:
    """A prediction's response. Durations in ``Server-Timing`` are milliseconds, as its specification says."""
    before, behind = frame
    queue_us = queue_ns // 1000
    end = b"\r\n" if keep_alive else b"\r\n" + _CONNECTION_CLOSE
    return b"%b%d.%03d%b%b\r\ncontent-length: %d%b\r\n%b" % (
        before, queue_us // 1000, queue_us % 1000, behind, request_id, len(body), end, body,
    )  # fmt: skip


def relay(
    default_headers: bytes, request_id: bytes, status: int, headers: bytes, body: bytes, keep_alive: bool
) -> bytes:
    """The backend's own status, ``headers`` (whole lines) and body."""
    return b"".join((
        status_line(status), default_headers, headers,
        b"content-length: %d\r\nx-request-id: %b\r\n" % (len(body), request_id),
        b"" if keep_alive else _CONNECTION_CLOSE, b"\r\n", body,
    ))  # fmt: skip


def error_headers(error: ProxyError, request_id: str, *, problem_json: bool) -> dict[str, str]:
    """The headers that every error response carries, beside content length and connection."""
    headers = {
        "content-type": "application/problem+json" if problem_json else "application/json",
        "x-request-id": request_id,
    }
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = error.allow
    if isinstance(error, UnsupportedCoding):
        headers["accept-encoding"] = ACCEPTED
    return headers


def error_body(error: ProxyError, request_id: str) -> bytes:
    """The error as JSON: the ``error`` text of every inference protocol inside an RFC 9457 problem."""
    return orjson.dumps(
        {
            "error": error.detail,
            "type": f"urn:mlproxy:error:{error.slug}",
            "title": error.title,
            "status": error.status,
            "detail": error.detail,
            "instance": f"urn:request:{request_id}",
        }
    )


def error(
    default_headers: bytes, request_id: bytes, failure: ProxyError, *, problem_json: bool, keep_alive: bool
) -> bytes:
    """One of the proxy's own errors as a whole response."""
    name = request_id.decode("latin-1")
    body = error_body(failure, name)
    headers = error_headers(failure, name, problem_json=problem_json)
    lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items()).encode("latin-1")
    return b"".join((
        status_line(failure.status), default_headers, lines, b"content-length: %d\r\n" % len(body),
        b"" if keep_alive else _CONNECTION_CLOSE, b"\r\n", body,
    ))  # fmt: skip
