"""HTTP/1.1 response bytes of the hot path. **Pure.**"""

from __future__ import annotations

from http import HTTPStatus

import orjson

from mlproxy.errors import ProxyError

_STATUS_LINE = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_CONNECTION_CLOSE = b"connection: close\r\n"

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def status_line(status: int) -> bytes:
    """``HTTP/1.1 200 OK`` and its line end, for any status a backend may invent."""
    return _STATUS_LINE.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status


def answer(
    default_headers: bytes, request_id: bytes, body: bytes, batch_size: int, queue_ns: int, backend_ns: int,
    keep_alive: bool,
) -> bytes:  # fmt: skip
    """A prediction's response. Durations in ``Server-Timing`` are milliseconds, as its specification says."""
    queue_us, backend_us = queue_ns // 1000, backend_ns // 1000
    return (
        b"HTTP/1.1 200 OK\r\n%bcontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n"
        b"server-timing: queue;dur=%d.%03d, backend;dur=%d.%03d\r\nx-mlproxy-batch-size: %d\r\n%b\r\n%b"
    ) % (
        default_headers, len(body), request_id, queue_us // 1000, queue_us % 1000, backend_us // 1000,
        backend_us % 1000, batch_size, b"" if keep_alive else _CONNECTION_CLOSE, body,
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
    if error.status == 405:
        headers["allow"] = "POST"
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
