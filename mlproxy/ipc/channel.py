"""One direction of a channel: a ring in anonymous shared memory, and the two eventfds that drive it. **Effects.**

The producer writes whole records, then adds their number to the *data* eventfd, once per loop turn; the consumer reads
the eventfd and consumes exactly that many. The kernel's counter is the publish cursor, and the system calls order
memory on every CPU. The consumer adds the bytes it has copied out to the *credit* eventfd; the producer reads that one
only when its own count of free bytes runs low. No shared word is written by two sides; none is shared at all.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections import deque
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

from mlproxy.ipc.records import MORE, PIECE_HEADER
from mlproxy.ipc.ring import RingConsumer, RingProducer


class DirectionFds(NamedTuple):
    """The three descriptors that make up one direction."""

    memory: int
    data: int
    credit: int

    @classmethod
    def create(cls, name: str, ring_bytes: int) -> DirectionFds:
        """New, empty. A memfd: nothing in /dev/shm (64 MiB in containers), nothing to unlink after a crash."""
        flags = os.EFD_CLOEXEC | os.EFD_NONBLOCK
        with ExitStack() as undo:
            fds = []
            for make in (partial(os.memfd_create, name, os.MFD_CLOEXEC), *2 * (partial(os.eventfd, 0, flags),)):
                fds.append(make())
                undo.callback(os.close, fds[-1])
            os.ftruncate(fds[0], ring_bytes)
            undo.pop_all()
        return cls(*fds)

    def close(self) -> None:
        """Give all three back."""
        for fd in self:
            os.close(fd)

    def map(self) -> mmap.mmap:
        """The ring's memory."""
        return mmap.mmap(self.memory, os.fstat(self.memory).st_size)


class Sender:
    """The producing end of one direction, with a backlog for what the ring has no room for."""

    def __init__(self, fds: DirectionFds, header: struct.Struct) -> None:
        self.fds = fds
        self._ring = RingProducer(fds.map(), header.size)
        self._max_body_bytes = self._ring.max_body_bytes
        self._backlog: deque[tuple[bytes, bytes | memoryview]] = deque()
        self.backlog_bytes = 0
        self.backlog_end = 0  #: pieces that ever went into the backlog: the place of the next one

    def __repr__(self) -> str:
        return f"<Sender {self._ring!r}, backlog {len(self._backlog)} records, {self.backlog_bytes} bytes>"

    def send(self, header: bytes, body: bytes | memoryview) -> None:
        """Write a record, in several pieces when the body is large; what does not fit now waits in the backlog.

        The caller bounds the backlog by `backlog_bytes`, and calls `publish` once per loop turn.
        """
        if self._backlog or len(body) > self._max_body_bytes or not self._ring.try_write(header, body):
            self._send_in_pieces(header, body)

    def publish(self) -> None:
        """Tell the consumer about every record written since the last time."""
        records = self._ring.take_unpublished()
        if records:
            os.eventfd_write(self.fds.data, records)

    def take_credit(self) -> None:
        """The credit eventfd is readable, or room is short: take the freed bytes, and write what waited."""
        self._read_credit()
        self._write_backlog()
        self.publish()

    @property
    def backlog_start(self) -> int:
        """The place of the piece that leaves the backlog next; every earlier one is in the ring."""
        return self.backlog_end - len(self._backlog)

    @property
    def blocked(self) -> bool:
        """Records wait for credit: watch the credit eventfd."""
        return bool(self._backlog)

    def close(self) -> None:
        """Give up the memory and the descriptors."""
        self._ring.close()
        self.fds.close()

    def _send_in_pieces(self, header: bytes, body: bytes | memoryview) -> None:
        _, kind = PIECE_HEADER.unpack_from(header)
        view, step, rest = memoryview(body), self._max_body_bytes, header[PIECE_HEADER.size :]
        for start in range(0, max(1, len(body)), step):
            piece = view[start : start + step]
            more = MORE if start + step < len(body) else 0
            self._backlog.append((PIECE_HEADER.pack(len(piece), kind | more) + rest, piece))
            self.backlog_end += 1
        self.backlog_bytes += len(body)
        self._write_backlog()

    def _write_backlog(self) -> None:
        backlog, ring, credited = self._backlog, self._ring, False
        while backlog:
            header, body = backlog[0]
            if ring.try_write(header, body):
                backlog.popleft()
                self.backlog_bytes -= len(body)
            elif credited:
                return
            else:
                self._read_credit()
                credited = True

    def _read_credit(self) -> None:
        try:
            self._ring.give_back(os.eventfd_read(self.fds.credit))
        except BlockingIOError:
            return  # nothing freed since the last look


class Receiver:
    """The consuming end of one direction; puts bodies together that came in several records."""

    def __init__(self, fds: DirectionFds, header: struct.Struct) -> None:
        self.fds = fds
        self._ring = RingConsumer(fds.map(), header)
        # Credit is given in portions: one system call per eighth of the ring instead of one per loop turn. The
        # producer can always go on, because no record is larger than a quarter.
        self._credit_portion_bytes = self._ring.capacity_bytes // 8
        self._pieces: list[bytes] = []

    def __repr__(self) -> str:
        return f"<Receiver {self._ring!r}>"

    def receive(self) -> list[tuple[tuple[Any, ...], bytes]]:
        """Every body that is whole since the last call: (header fields of its last record, body)."""
        try:
            published = os.eventfd_read(self.fds.data)
        except BlockingIOError:
            return []
        ring = self._ring
        freed_before = ring.freed_bytes
        records = ring.read(published)
        # Only a record of the largest size can have a continuation: mostly none of this burst can, and none is asked.
        may_continue = ring.freed_bytes - freed_before >= ring.max_body_bytes
        if ring.freed_bytes >= self._credit_portion_bytes:
            os.eventfd_write(self.fds.credit, ring.take_freed())
        return self._put_together(records) if self._pieces or may_continue else records

    def close(self) -> None:
        """Give up the memory and the descriptors."""
        self._ring.close()
        self.fds.close()

    def _put_together(self, records: list[tuple[tuple[Any, ...], bytes]]) -> list[tuple[tuple[Any, ...], bytes]]:
        whole = []
        for fields, body in records:
            if fields[1] & MORE:
                self._pieces.append(body)
            elif self._pieces:
                whole.append((fields, b"".join([*self._pieces, body])))
                self._pieces = []
            else:
                whole.append((fields, body))
        return whole
