"""The records that travel in the two rings of a channel. **Pure.**

Every header is (size, kind, total, …): the record's size, what it is, and the length of the whole body, of which this
record may carry only the beginning; `CHUNK` records carry the rest. All integers are little-endian and unpadded.
"""

from __future__ import annotations

import struct
from enum import IntEnum


class Kind(IntEnum):
    """What a record is."""

    CHUNK = 0  #: the next piece of the body that the record before began
    REQUEST = 1
    CANCEL = 2  #: the caller of this request id went away
    ANSWER = 3
    ERROR = 4  #: body: JSON of (slug, detail, retry_after_s)
    RELAY = 5  #: the backend's own status; body: content type, NUL, body


#: size, kind, total, flags, endpoint, lane key bytes, instances, request id, arrived_ns, deadline_ns (0: none).
#: The body is the lane key followed by the items.
REQUEST_HEADER = struct.Struct("<IBIBHIIQqq")
#: size, kind, total, status, batch size, request id, queue_ns, backend_ns.
REPLY_HEADER = struct.Struct("<IBIHIQqq")

#: Flag of a request: the caller sent one bare instance and gets one bare item.
BARE = 1

#: Fields that a chunk's header leaves empty, after size, kind and total.
REQUEST_PADDING = (0,) * 7
REPLY_PADDING = (0,) * 5
