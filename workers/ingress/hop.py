"""What changes in the headers of a message that passes through to the backend, or back. **Pure.**"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from mlproxy.config.header_names import HOP_BY_HOP

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

#: Never passed on; nor are those that Knative's own hops use (K-*).
_HOP_BY_HOP = frozenset(name.encode() for name in HOP_BY_HOP)
#: Of a caller's: written anew for the backend.
_OWN = frozenset({b"host", b"x-forwarded-for", b"x-request-id"})
#: Of a backend's: the ingress worker writes its own.
_OWN_BACK = frozenset({b"date", b"x-request-id"})


def forwarded(headers: Headers, caller: str | None, host: bytes, request_id: bytes) -> list[tuple[bytes, bytes]]:
    """A caller's headers (names in lower case) as the backend gets them; ``traceparent`` among them, as it is."""
    nominated = {
        token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")
    }
    dropped = _HOP_BY_HOP | _OWN | nominated
    hops = [value for name, value in headers if name == b"x-forwarded-for"]
    if caller is not None:
        hops.append(caller.encode())
    return [
        *((name, value) for name, value in headers if name not in dropped and name[:2] != b"k-"),
        (b"host", host),
        (b"x-forwarded-for", b", ".join(hops)),
        (b"x-request-id", request_id),
    ]


def passed_back(headers: Headers, request_id: bytes) -> list[tuple[bytes, bytes]]:
    """The backend's headers as the caller gets them."""
    lowered = [(name.lower(), value) for name, value in headers]
    kept = [header for header in lowered if header[0] not in _HOP_BY_HOP and header[0] not in _OWN_BACK]
    return [*kept, (b"x-request-id", request_id)]
