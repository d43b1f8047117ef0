"""A byte ring of records for one producer and one consumer. **Pure**: it only touches the memory it is given.

Neither side ever reads a cursor of the other. The producer knows how much is free because the consumer *gives back*
what it has copied out (credit); the consumer knows how much to read because it is *told* how many records were
published. How both messages travel (an eventfd each) is `mlproxy.ipc.channel`'s business.

Layout: records follow each other and never wrap. A record is a fixed header, a ``struct.Struct`` whose first field is
the length of the body, and the body. Where the rest of the ring is too short for the next record, a length of `SKIP`
(or a rest shorter than a header) says: go on at the start. The skipped bytes are freed with the record.
"""

from __future__ import annotations

import mmap
import struct
from typing import Any

SKIP = 0xFFFF_FFFF
_SKIP_BYTES = struct.pack("<I", SKIP)


def max_body_bytes(capacity_bytes: int, header_bytes: int) -> int:
    """Largest body of one record. A quarter of the ring: the room lost before a wrap stays below a third."""
    return capacity_bytes // 4 - header_bytes


class RingProducer:
    """The writing end. Invariant: never overwrites a byte that the consumer has not given back."""

    __slots__ = (
        "_header_bytes",
        "_memory",
        "_position",
        "_unpublished",
        "capacity_bytes",
        "free_bytes",
        "max_body_bytes",
    )

    def __init__(self, memory: mmap.mmap, header_bytes: int) -> None:
        self._memory = memory
        self._header_bytes = header_bytes
        self.capacity_bytes = len(memory)
        self.free_bytes = self.capacity_bytes
        self.max_body_bytes = max_body_bytes(self.capacity_bytes, header_bytes)
        self._position = 0
        self._unpublished = 0

    def __repr__(self) -> str:
        return f"<RingProducer {self.free_bytes}/{self.capacity_bytes} bytes free, {self._unpublished} unpublished>"

    def try_write(self, header: bytes, body: bytes | memoryview) -> bool:
        """Write one record, or return False when there is no room. ``header`` begins with the body's length."""
        memory, position, header_bytes = self._memory, self._position, self._header_bytes
        needed = size = header_bytes + len(body)
        to_end = self.capacity_bytes - position
        if size > to_end:
            needed += to_end
        if needed > self.free_bytes:
            return False
        if size > to_end:
            if to_end >= header_bytes:
                memory[position : position + 4] = _SKIP_BYTES
            position = 0
        body_at = position + header_bytes
        memory[position:body_at] = header
        self._position = end = position + size
        memory[body_at:end] = body
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

    __slots__ = (
        "_header_bytes", "_memory", "_position", "_unpack_from", "capacity_bytes", "freed_bytes", "max_body_bytes",
    )  # fmt: skip

    def __init__(self, memory: mmap.mmap, header: struct.Struct) -> None:
        self._memory = memory
        self._unpack_from = header.unpack_from
        self._header_bytes = header.size
        self.capacity_bytes = len(memory)
        self.max_body_bytes = max_body_bytes(self.capacity_bytes, header.size)
        self._position = 0
        self.freed_bytes = 0  #: read and not yet given back

    def __repr__(self) -> str:
        return f"<RingConsumer at {self._position}/{self.capacity_bytes}, {self.freed_bytes} bytes to give back>"

    def read(self, count: int) -> list[tuple[tuple[Any, ...], bytes]]:
        """The next ``count`` records, which must have been published: (header's fields, body copied out) of each."""
        memory, unpack_from, header_bytes = self._memory, self._unpack_from, self._header_bytes
        position, last_header = self._position, self.capacity_bytes - header_bytes
        records = []
        for _ in range(count):
            if position > last_header or (fields := unpack_from(memory, position))[0] == SKIP:
                self.freed_bytes += self.capacity_bytes - position
                position = 0
                fields = unpack_from(memory, 0)
            body_at = position + header_bytes
            end = body_at + fields[0]
            records.append((fields, memory[body_at:end]))
            self.freed_bytes += end - position
            position = end
        self._position = position
        return records

    def take_freed(self) -> int:
        """Bytes read since the last call: the credit to give now."""
        freed_bytes, self.freed_bytes = self.freed_bytes, 0
        return freed_bytes

    def close(self) -> None:
        """Give up the memory."""
        self._memory.close()
