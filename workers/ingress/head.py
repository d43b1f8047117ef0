"""What the hot path reads from a request's head. **Pure**, but for the cycle it fills in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from mlproxy.errors import BadRequest, BodyTooLarge, HeaderTooLarge, UnsupportedMediaType
from mlproxy.protocols import LEAST_PRIORITY
from mlproxy.units import NS_PER_MS, NS_PER_S, NS_PER_US, format_size
from workers.ingress.coding import known_coding

if TYPE_CHECKING:
    from workers.ingress.cycle import PredictCycle
    from workers.ingress.routes import Route

_UPGRADE_HEADERS = frozenset({b"upgrade", b"http2-settings", b"connection"})

#: What JSON travels as, `curl -d` and callers that say nothing about it included (TF-Serving takes those too).
_JSON_TYPES = frozenset({
    b"application/json", b"text/json", b"text/plain", b"application/x-www-form-urlencoded",
    b"application/octet-stream",
})  # fmt: skip

#: Longest request id taken over from a caller; it is echoed in a response header and written to logs.
MAX_REQUEST_ID_BYTES = 128
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_REQUEST_ID_BYTES)

#: Headers with the caller's time budget; the first present counts.
_BUDGET_HEADERS = (b"x-request-timeout-ms", b"x-envoy-expected-rq-timeout-ms", b"grpc-timeout")
_GRPC_UNIT_NS = {
    b"H": 3600 * NS_PER_S, b"M": 60 * NS_PER_S, b"S": NS_PER_S, b"m": NS_PER_MS, b"u": NS_PER_US, b"n": 1,
}  # fmt: skip
_LONGEST_BUDGET_NS = 100 * 365 * 24 * 3600 * NS_PER_S  # an instant must fit into a record's 63 bits
_GRPC_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_BYTES = re.compile(rb"[1-9]\d{0,11}")
_PRIORITY = re.compile(rb"\d{1,20}")
_MILLISECONDS = re.compile(rb"\d{1,12}(\.\d{1,6})?")

#: Headers that mean something on the hot path. Callers send up to twenty others; one set lookup skips each.
_READ = frozenset({
    b"content-length", b"content-type", b"content-encoding", b"transfer-encoding", b"x-request-id", b"expect",
    b"accept", b"inference-header-content-length", b"x-mlproxy-priority", *_BUDGET_HEADERS,
})  # fmt: skip


def read(cycle: PredictCycle, headers: Sequence[tuple[bytes, bytes]], max_body_bytes: int) -> None:
    """Take over what concerns a prediction. Raises the error that refuses the request before its body is read."""
    found = {name: value for name, value in headers if name in _READ}
    content_type = found.pop(b"content-type", b"application/json")
    size_bytes = int(found.pop(b"content-length", b"0"))
    if found:
        _read_json_bytes(cycle, found, size_bytes)
        _read_priority(cycle, found)
        _read_rest(cycle, found)
    cycle.plain_head = size_bytes > 0 and not found
    if content_type not in _JSON_TYPES:
        _check_type(content_type)
    if size_bytes > max_body_bytes:
        raise body_too_large(max_body_bytes)


def _read_json_bytes(cycle: PredictCycle, found: dict[bytes, bytes], size_bytes: int) -> None:
    """How much of the body is JSON, where tensors follow in binary (the Open Inference Protocol's extension)."""
    value = found.pop(b"inference-header-content-length", None)
    if value is None:
        return
    of_these_bytes = b"content-encoding" not in found  # else of what they will be inflated to
    if _BYTES.fullmatch(value) is None or (of_these_bytes and 0 < size_bytes < int(value)):
        text = value.decode("latin-1")
        raise BadRequest(f"inference-header-content-length: {text!r} is not the length of JSON that begins the body")
    cycle.json_bytes = int(value)


def _read_priority(cycle: PredictCycle, found: dict[bytes, bytes]) -> None:
    value = found.pop(b"x-mlproxy-priority", None)
    if value is None:
        return
    if _PRIORITY.fullmatch(value) is None:
        text = value.decode("latin-1")
        raise BadRequest(f"x-mlproxy-priority: {text!r} is not a whole number from 0: 1 is the most urgent, 0 as usual")
    cycle.priority = min(int(value), LEAST_PRIORITY)
    cycle.priority_stated = True


def _read_rest(cycle: PredictCycle, found: dict[bytes, bytes]) -> None:
    """What only some callers send."""
    request_id = found.get(b"x-request-id")
    if request_id is not None and is_request_id(request_id):
        cycle.request_id = request_id
    if b"accept" in found:
        cycle.problem_json = accepts_problem_json(found[b"accept"])
    if b"expect" in found:
        cycle.expects_continue = found[b"expect"].lower() == b"100-continue"
    if b"transfer-encoding" in found:
        check_transfer_encoding(found[b"transfer-encoding"])
    if b"content-encoding" in found:
        cycle.coding = known_coding(found[b"content-encoding"])
    for name in _BUDGET_HEADERS:
        if name in found:
            budget_ns = _budget_ns(name, found[name])
            cycle.deadline_ns = cycle.arrived_ns + min(budget_ns, _LONGEST_BUDGET_NS) if budget_ns else 0
            cycle.budget_stated = True
            break


def check_transfer_encoding(value: bytes) -> None:
    """`BadRequest` for any but the one that the parser undoes: the others would be taken for the body itself."""
    if value.strip().lower() != b"chunked":
        raise BadRequest(f"transfer-encoding: {value.decode('latin-1')!r} is not supported; send chunked")


def origin_form(target: bytes) -> bytes:
    """A request target as to a server, also if it came as to a forward proxy (RFC 9112 §3.2.2): ``http://host/path``."""
    if target.startswith((b"/", b"*")):
        return target
    parts = urlsplit(target)
    return (parts.path or b"/") + (b"?" + parts.query if parts.query else b"")


def is_request_id(value: bytes) -> bool:
    """Whether a caller's ``X-Request-Id`` is taken over."""
    return _REQUEST_ID.fullmatch(value) is not None


def accepts_problem_json(accept: bytes) -> bool:
    """Whether errors go out as ``application/problem+json``."""
    return b"application/problem+json" in accept.lower()


class Said(NamedTuple):
    """What a head says of each `PredictCycle` that has it."""

    json_bytes: int
    priority: int
    priority_stated: bool
    lane_headers: bytes


class KnownHead(NamedTuple):
    """The head of a connection's last request, to recognise the next one by: see `known_head`."""

    head: bytes
    request_bytes: int
    route: Route
    said: Said

    def begins(self, data: bytes) -> bool:
        """Whether ``data`` is exactly one whole request with this head."""
        return len(data) == self.request_bytes and data.startswith(self.head)


def known_head(cycle: PredictCycle, data: bytes) -> KnownHead | None:
    """What to recognise by that a next request differs from this one in its body only; None when that cannot be.

    A caller without tracing sends the same head over and over; comparing it instead of parsing it saves 4 of 14
    CPU-µs (bench/micro/hot_path.py). The request must have come in one read, alone (no other head's end in it), and
    its length must be the one that the head says.
    """
    size_bytes = len(data) - cycle.received_bytes
    end = data.find(b"\r\n\r\n")
    if not cycle.plain_head or not cycle.keep_alive or end < 0 or end + 4 != size_bytes:
        return None
    priority = cycle.priority if cycle.priority_stated else 0  # else it is what the body says
    said = Said(cycle.json_bytes, priority, cycle.priority_stated, cycle.lane_headers)
    return KnownHead(data[:size_bytes], len(data), cycle.route, said)


def without_upgrade(start: bytes, headers: Sequence[tuple[bytes, bytes]], *, keep_alive: bool) -> bytes:
    """A head that offers an upgrade, written again as plain HTTP/1.1; ``start`` is its first line."""
    lines = [start, *(b": ".join(header) for header in headers if header[0] not in _UPGRADE_HEADERS)]
    if not keep_alive:
        lines.append(b"connection: close")
    return b"\r\n".join([*lines, b"", b""])


def body_too_large(max_body_bytes: int) -> BodyTooLarge:
    """The refusal of a body beyond the limit."""
    return BodyTooLarge(f"the body exceeds limits.body ({format_size(max_body_bytes)})")


def head_too_large(max_header_bytes: int) -> HeaderTooLarge:
    """The refusal of a head beyond the limit."""
    return HeaderTooLarge(f"the head exceeds limits.header ({format_size(max_header_bytes)})")


def _check_type(content_type: bytes) -> None:
    essence = content_type.partition(b";")[0].strip().lower()
    if essence not in _JSON_TYPES and not (essence.startswith(b"application/") and essence.endswith(b"+json")):
        raise UnsupportedMediaType(f"content type {essence.decode('latin-1')!r} is not JSON; send application/json")


def _budget_ns(name: bytes, value: bytes) -> int:
    """The caller's time budget; 0 means none, as Envoy writes it."""
    if name == b"grpc-timeout":
        match = _GRPC_TIMEOUT.fullmatch(value)
        if match is not None:
            return max(1, int(match[1]) * _GRPC_UNIT_NS[match[2]])  # in gRPC 0 means: over already
        raise BadRequest(f"grpc-timeout: {value.decode('latin-1')!r} is not up to 8 digits and one of H M S m u n")
    if _MILLISECONDS.fullmatch(value) is None:
        raise BadRequest(f"{name.decode()}: {value.decode('latin-1')!r} is not a number of milliseconds")
    return int(float(value) * NS_PER_MS)
