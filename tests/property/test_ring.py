"""The ring against a bounded deque: whatever the order of writes, publishes, reads and credits."""

from __future__ import annotations

import mmap
import os
import struct
from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mlproxy.ipc.channel import DirectionFds, Receiver, Sender
from mlproxy.ipc.records import ANSWER_HEADER, Kind
from mlproxy.ipc.ring import RingConsumer, RingProducer

HEADER = struct.Struct("<IBI")


class RingMachine(RuleBasedStateMachine):
    """One producer, one consumer, and a deque that says what the consumer must see."""

    def __init__(self) -> None:
        super().__init__()
        memory = mmap.mmap(-1, 4096)
        self.producer = RingProducer(memory, HEADER.size)
        self.consumer = RingConsumer(memory, HEADER)
        self.written: deque[tuple[int, bytes]] = deque()
        self.published = 0
        self.count = 0

    @rule(size=st.integers(0, 1015), fill=st.integers(0, 255))
    def write(self, size: int, fill: int) -> None:
        body = bytes([fill]) * size
        if self.producer.try_write(HEADER.pack(size, 7, self.count), body):
            self.written.append((self.count, body))
            self.count += 1
        else:
            assert self.producer.free_bytes < 2 * (size + HEADER.size)

    @rule()
    def publish(self) -> None:
        self.published += self.producer.take_unpublished()

    @rule(most=st.integers(1, 5))
    def read(self, most: int) -> None:
        if count := min(most, self.published):
            for (_, kind, number), body in self.consumer.read(count):
                assert kind == 7
                assert (number, body) == self.written.popleft()
            self.published -= count

    @rule()
    def credit(self) -> None:
        self.producer.give_back(self.consumer.take_freed())

    @invariant()
    def nothing_is_lost_or_invented(self) -> None:
        assert 0 <= self.producer.free_bytes <= self.producer.capacity_bytes
        assert self.published <= len(self.written)


class DirectionMachine(RuleBasedStateMachine):
    """A whole direction with real eventfds: bodies larger than the ring, a backlog, credit in portions."""

    def __init__(self) -> None:
        super().__init__()
        fds = DirectionFds.create("test", 4096)
        self.sender = Sender(fds, ANSWER_HEADER)
        self.receiver = Receiver(DirectionFds(*(os.dup(fd) for fd in fds)), ANSWER_HEADER)
        self.sent: deque[tuple[int, bytes]] = deque()
        self.count = 0

    @rule(size=st.one_of(st.integers(0, 200), st.integers(0, 20_000)))
    def send(self, size: int) -> None:
        body = self.count.to_bytes(4, "little") * (size // 4 + 1)
        self.sender.send(ANSWER_HEADER.pack(len(body), Kind.ANSWERS, 200, 1, self.count, 0, 0), body)
        self.sent.append((self.count, body))
        self.count += 1

    @rule()
    def publish(self) -> None:
        self.sender.publish()

    @rule()
    def receive(self) -> None:
        self._check_received()

    @rule()
    def take_credit(self) -> None:
        self.sender.take_credit()

    def _check_received(self) -> None:
        for fields, body in self.receiver.receive():
            assert (fields[4], body) == self.sent.popleft()

    def teardown(self) -> None:
        for _ in range(1000):  # each round frees at least an eighth of the ring
            if not self.sent:
                break
            self.sender.take_credit()
            self._check_received()
        assert not self.sent
        assert not self.sender.blocked
        assert self.sender.backlog_bytes == 0
        self.sender.close()
        self.receiver.close()


TestRing = RingMachine.TestCase
TestRing.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestDirection = DirectionMachine.TestCase
TestDirection.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
