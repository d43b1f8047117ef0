"""A byte ring of records for one producer and one consumer. **Pure**: it only touches the memory it is given.

Neither side ever reads a cursor of the other. The producer knows how much is free because the consumer *gives back*
what it has copied out (credit); the consumer knows how much to read because it is *told* how many records were
published. How both messages travel (an eventfd each) is `mlproxy.ipc.channel`'s business.

Layout: records follow each other and never wrap. A record begins with a fixed header, a ``struct.Struct`` whose first
field is the record's whole size in bytes; then comes the body. Where the rest of the ring is too short for a record,
a size of 0 (or less than four bytes of room) says: go on at the start. The skipped bytes are freed with the record.
"""

from __future__ import annotations

import mmap
import struct
from typing import Any

_SKIP = struct.Struct("<I")


class RingProducer:
    """The writing end. Invariant: never overwrites a byte that the consumer has not given back."""

    __slots__ = ("_header_bytes", "_memory", "_pack_into", "_position", "_unpublished", "capacity_bytes", "free_bytes")

    def __init__(self, memory: mmap.mmap, header: struct.Struct) -> None:
        self._memory = memory
        self._pack_into = header.pack_into
        self._header_bytes = header.size
        self.capacity_bytes = len(memory)
        self.free_bytes = self.capacity_bytes
        self._position = 0
        self._unpublished = 0

    def __repr__(self) -> str:
        return f"<RingProducer {self.free_bytes}/{self.capacity_bytes} bytes free, {self._unpublished} unpublished>"

    @property
    def max_body_bytes(self) -> int:
        """Largest body of one record. A quarter of the ring: the room lost before a wrap stays below a third."""
        return self.capacity_bytes // 4 - self._header_bytes

    def try_write(self, body: bytes | memoryview, *fields: Any) -> bool:
        """Write one record with ``fields`` after the size in its header, or return False when there is no room."""
        size = self._header_bytes + len(body)
        position = self._position
        needed = size
        to_end = self.capacity_bytes - position
        if size > to_end:
            needed += to_end
        if needed > self.free_bytes:
            return False
        memory = self._memory
        if size > to_end:
            if to_end >= _SKIP.size:
                _SKIP.pack_into(memory, position, 0)
            position = 0
        self._pack_into(memory, position, size, *fields)
        end = position + size
        memory[position + self._header_bytes : end] = body
        self._position = end
        self.free_bytes -= needed
        self._unpublished += 1
        return True

    def take_unpublished(self) -> int:
        """Records written since the last call: the number to publish now."""
        unpublished, self._unpublished = self._unpublished, 0
        return unpublished

    def give_back(self, freed_bytes: int) -> None:
        """Credit from the consumer."""
        self.free_bytes += freed_bytes

    def close(self) -> None:
        """Give up the memory."""
        self._memory.close()


class RingConsumer:
    """The reading end. Reads exactly the records that were published, and counts the bytes they free."""

    __slots__ = ("_freed_bytes", "_header_bytes", "_memory", "_position", "_unpack_from", "capacity_bytes")

    def __init__(self, memory: mmap.mmap, header: struct.Struct) -> None:
        self._memory = memory
        self._unpack_from = header.unpack_from
        self._header_bytes = header.size
        self.capacity_bytes = len(memory)
        self._position = 0
        self._freed_bytes = 0

    def __repr__(self) -> str:
        return f"<RingConsumer at {self._position}/{self.capacity_bytes}, {self._freed_bytes} bytes to give back>"

    def read(self) -> tuple[tuple[Any, ...], bytes]:
        """The next published record: its header's fields (the size first) and its body, copied out."""
        memory, position = self._memory, self._position
        to_end = self.capacity_bytes - position
        if to_end < _SKIP.size or memory[position : position + 4] == b"\0\0\0\0":
            self._freed_bytes += to_end
            position = 0
        fields = self._unpack_from(memory, position)
        size = fields[0]
        end = position + size
        self._position = end
        self._freed_bytes += size
        return fields, memory[position + self._header_bytes : end]

    @property
    def freed_bytes(self) -> int:
        """Bytes read and not yet given back."""
        return self._freed_bytes

    def take_freed(self) -> int:
        """Bytes read since the last call: the credit to give now."""
        freed_bytes, self._freed_bytes = self._freed_bytes, 0
        return freed_bytes

    def close(self) -> None:
        """Give up the memory."""
        self._memory.close()
