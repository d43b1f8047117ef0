"""The records that travel in the two rings of a channel. **Pure.**

Every header is (length of the body, kind, …). A body too large for one record travels in several, each with the same
header but for its own length, and with `MORE` in the kind of all but the last. All integers are little-endian and
unpadded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import lru_cache


class Kind(IntEnum):
    """What a record is."""

    REQUEST = 1
    CANCEL = 2  #: the caller of this request id went away
    ANSWERS = 3  #: those of one batch, as many as one record holds: `pack_answers`
    ERROR = 4  #: body: JSON of (slug, detail, retry_after_s)
    RELAY = 5  #: the backend's own status; body: header lines, NUL, body
    ENTITIES = 6  #: as `ANSWERS`, of answers with headers of their own; each: header lines, NUL, body


#: Added to the kind: the body goes on in the next record.
MORE = 0x80

#: How every header begins.
PIECE_HEADER = struct.Struct("<IB")
#: body bytes, kind, endpoint, lane key bytes, bytes of the request's own, instances, request id, arrived_ns,
#: deadline_ns (0: none), priority (0: none). The body is the lane key, what is the request's own, and the items.
REQUEST_HEADER = struct.Struct("<IBHIIIQqqB")
#: body bytes, kind, status, batch size, request id (`ANSWERS`, `ENTITIES`: how many), instant of dispatch, backend_ns.
ANSWER_HEADER = struct.Struct("<IBHIQqq")


def pack_answers(request_ids: Sequence[int], bodies: Sequence[bytes]) -> bytes:
    """The body of an `ANSWERS` or `ENTITIES` record. One record for all costs a tenth of a record for each."""
    return b"".join((_index(len(bodies)).pack(*request_ids, *map(len, bodies)), *bodies))


def unpack_answers(count: int, body: bytes) -> Iterator[tuple[int, bytes]]:
    """The other end of `pack_answers`: request id and body of each answer."""
    index = _index(count)
    fields, end = index.unpack_from(body), index.size
    for request_id, length in zip(fields[:count], fields[count:], strict=True):
        start, end = end, end + length
        yield request_id, body[start:end]


@lru_cache(maxsize=256)
def _index(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}Q{count}I")
