"""The records that travel in the two rings of a channel. **Pure.**

Every header is (length of the body, kind, …). A body too large for one record travels in several, each with the same
header but for its own length, and with `MORE` in the kind of all but the last. All integers are little-endian and
unpadded.
"""

from __future__ import annotations

import struct
from enum import IntEnum


class Kind(IntEnum):
    """What a record is."""

    REQUEST = 1
    CANCEL = 2  #: the caller of this request id went away
    ANSWER = 3
    ERROR = 4  #: body: JSON of (slug, detail, retry_after_s)
    RELAY = 5  #: the backend's own status; body: header lines, NUL, body


#: Added to the kind: the body goes on in the next record.
MORE = 0x80

#: How every header begins.
PIECE_HEADER = struct.Struct("<IB")
#: body bytes, kind, flags, endpoint, lane key bytes, instances, request id, arrived_ns, deadline_ns (0: none).
#: The body is the lane key followed by the items.
REQUEST_HEADER = struct.Struct("<IBBHIIQqq")
#: body bytes, kind, status, batch size, request id, queue_ns, backend_ns.
REPLY_HEADER = struct.Struct("<IBHIQqq")

#: Flag of a request: the caller sent one bare instance and gets one bare item.
BARE = 1
