"""Protocols: request bytes to instances to batch bytes and back, never a socket. **Pure.**

Bodies are spliced, not re-encoded: what a caller's instance looked like in bytes is what the backend gets, and each
prediction comes back byte for byte.
"""

from mlproxy.protocols.codec import (
    JSON_TYPE,
    LEAST_PRIORITY,
    Answer,
    Codec,
    Cut,
    ParsedRequest,
    Reply,
    Text,
    codec_for,
    endpoint_codec,
)  # fmt: skip
from mlproxy.protocols.kserve_v2 import KServeV2
from mlproxy.protocols.lane_headers import LaneHeaders, WithLaneHeaders

__all__ = [
    "JSON_TYPE",
    "LEAST_PRIORITY",
    "Answer",
    "Codec",
    "Cut",
    "KServeV2",
    "LaneHeaders",
    "ParsedRequest",
    "Reply",
    "Text",
    "WithLaneHeaders",
    "codec_for",
    "endpoint_codec",
]
