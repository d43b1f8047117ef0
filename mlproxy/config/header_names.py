"""Names of request headers, and which of them a batch cannot take along from its members. **Pure.**"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

#: RFC 9110 §7.6.1: about one hop only, so never passed on; with `Expect`, which is answered where it arrives.
HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
    "transfer-encoding", "upgrade", "http2-settings", "expect",
})  # fmt: skip
#: What a call to the backend says about itself.
_WRITTEN = frozenset({
    "host", "content-length", "content-type", "content-encoding", "accept", "accept-encoding", "user-agent",
    "inference-header-content-length", "x-request-timeout-ms", "x-forwarded-for",
})  # fmt: skip
#: What is about one request: with these nothing would ever share a batch, or they are the proxy's to obey.
_PER_REQUEST = frozenset({
    "x-request-id", "traceparent", "tracestate", "x-envoy-expected-rq-timeout-ms", "grpc-timeout", "x-mlproxy-priority",
})  # fmt: skip

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 §5.6.2


def _check_lane_header(name: str) -> str:
    lowered = name.lower()
    if _TOKEN.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not the name of a header, such as authorization")
    if lowered in HOP_BY_HOP:
        raise ValueError(f"{name!r} is about one connection only and cannot be forwarded")
    if lowered in _WRITTEN:
        raise ValueError(f"{name!r} is written by MLProxy itself in every call to the backend")
    if lowered in _PER_REQUEST:
        raise ValueError(f"{name!r} is about one request, so none of them could share a batch")
    return lowered


#: A header that requests of one batch have in common; in lower case.
LaneHeaderName = Annotated[str, AfterValidator(_check_lane_header)]
