"""Deaths at every step: a double that dies at its k-th write, publish or credit, for every k.

A process that is killed stops between two of its effects on the world. The effects on a channel are stores into the
ring's memory and writes to the two eventfds; so the memory and the eventfds here count what one side does, and end it
before its k-th effect. What it has done by then stands, as it would in shared memory.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from mlproxy.ipc.channel import DirectionFds, Receiver, Sender
from mlproxy.ipc.records import ANSWER_HEADER, REQUEST_HEADER, Kind

RING_BYTES = 4096
LARGEST_RECORD_BYTES = RING_BYTES // 4
#: Empty, small, exactly one record, several records, more than the ring holds; together several times round.
SIZES_BYTES = [0, 10, 300, LARGEST_RECORD_BYTES - REQUEST_HEADER.size, 1000, 5, 2500, 700, 9000, 1, 40, 900, 900, 333]


class Died(BaseException):
    """The process is no more. Not an Exception: nothing in it may go on."""


class Fate:
    """Lets one process have so many effects, and no more."""

    def __init__(self, effects: int | None) -> None:
        self.left = effects
        self.spent = 0

    def spend(self) -> None:
        if self.left is not None and self.spent >= self.left:
            raise Died
        self.spent += 1


class MortalMemory:
    """The ring's memory, seen by a process that dies."""

    def __init__(self, memory: mmap.mmap, fate: Fate) -> None:
        self._memory = memory
        self._fate = fate

    def __len__(self) -> int:
        return len(self._memory)

    def __setitem__(self, place: slice, data: bytes) -> None:
        self._fate.spend()
        self._memory[place] = data

    def close(self) -> None:
        self._memory.close()


class MortalFds(DirectionFds):
    """A direction whose producer dies."""

    fates: dict[int, Fate] = {}  # noqa: RUF012 - by memory descriptor: a tuple has no room for more

    def map(self) -> mmap.mmap:
        memory: object = MortalMemory(super().map(), self.fates[self.memory])
        return memory  # type: ignore[return-value]


@contextmanager
def mortal(fate: Fate, *own_fds: int) -> Iterator[None]:
    """Writes to ``own_fds``, the eventfds that the mortal process writes to, are effects of its."""
    write = os.eventfd_write

    def counted(fd: int, value: int) -> None:
        if fd in own_fds:
            fate.spend()
        write(fd, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "eventfd_write", counted)
        yield


def duplicate(fds: DirectionFds) -> DirectionFds:
    """The other process's descriptors of the same direction."""
    return DirectionFds(*map(os.dup, fds))


def body_of(number: int, size_bytes: int) -> bytes:
    return (b"%d." % number * size_bytes)[:size_bytes]


def effects_of(story: Callable[[Fate], object]) -> int:
    """How many effects the mortal side has if it lives."""
    fate = Fate(None)
    story(fate)
    return fate.spent


# --- the producer dies ---------------------------------------------------------------------------------------


def _produce_and_die(fate: Fate) -> tuple[list[tuple[int, bytes]], int]:
    """(what the consumer saw, how many records the producer had published whole) of one producer's life."""
    fds = DirectionFds.create("test", RING_BYTES)
    MortalFds.fates[fds.memory] = fate
    sender, receiver = Sender(MortalFds(*fds), REQUEST_HEADER), Receiver(duplicate(fds), REQUEST_HEADER)
    seen: list[tuple[int, bytes]] = []
    lived = False
    with mortal(fate, fds.data):
        try:
            for number, size_bytes in enumerate(SIZES_BYTES):
                body = body_of(number, size_bytes)
                sender.send(REQUEST_HEADER.pack(size_bytes, Kind.REQUEST, 0, 0, 0, 1, number, 0, 0, 0), body)
                if number % 2:
                    sender.publish()
                if number % 3 == 0:
                    _receive(receiver, seen)
                sender.take_credit()
            while sender.blocked:
                _receive(receiver, seen)
                sender.take_credit()
            sender.publish()
            lived = True
        except Died:
            pass
    _receive(receiver, seen)
    del MortalFds.fates[fds.memory]
    sender.close()
    receiver.close()
    return seen, lived


def _receive(receiver: Receiver, seen: list[tuple[int, bytes]]) -> None:
    for fields, body in receiver.receive():
        seen.append((fields[6], body))


def test_a_producer_that_lives_is_seen_whole() -> None:
    seen, lived = _produce_and_die(Fate(None))
    assert lived
    assert seen == [(number, body_of(number, size)) for number, size in enumerate(SIZES_BYTES)]


def test_of_a_producer_that_dies_at_any_step_only_whole_records_are_seen_in_order() -> None:
    sent = [(number, body_of(number, size)) for number, size in enumerate(SIZES_BYTES)]
    effects = effects_of(_produce_and_die)
    assert effects > 60  # every record is two stores; and there are skips, pieces and publishes
    lengths = []
    for survived in range(effects):
        seen, lived = _produce_and_die(Fate(survived))
        assert not lived
        assert seen == sent[: len(seen)], f"died before effect {survived}"
        lengths.append(len(seen))
    assert lengths == sorted(lengths)
    assert lengths[0] == 0
    assert len(set(lengths)) > 4  # some deaths were in the middle, with a part published


# --- the batcher dies ----------------------------------------------------------------------------------------


class Generation:
    """One channel: the worker's ends, and a batcher that answers with the request's body, reversed."""

    def __init__(self, fate: Fate) -> None:
        requests, answers = DirectionFds.create("q", RING_BYTES), DirectionFds.create("r", RING_BYTES)
        own_requests, own_answers = duplicate(requests), MortalFds(*duplicate(answers))
        MortalFds.fates[own_answers.memory] = fate
        self.to_batcher, self.from_batcher = Sender(requests, REQUEST_HEADER), Receiver(answers, ANSWER_HEADER)
        self._requests, self._answers = Receiver(own_requests, REQUEST_HEADER), Sender(own_answers, ANSWER_HEADER)
        self._own_fds = own_requests.credit, own_answers.data
        self._fate = fate

    def batcher_turn(self) -> None:
        with mortal(self._fate, *self._own_fds):
            for fields, body in self._requests.receive():
                header = ANSWER_HEADER.pack(len(body), Kind.ANSWERS, 200, 1, fields[6], 0, 0)
                self._answers.send(header, body[::-1])
            self._answers.publish()
            if self._answers.blocked:
                self._answers.take_credit()

    def close(self) -> None:
        del MortalFds.fates[self._answers.fds.memory]
        for end in (self.to_batcher, self.from_batcher, self._requests, self._answers):
            end.close()


class Worker:
    """Keeps what is unanswered, and sends it again to the next batcher, as `BatcherClient` does."""

    def __init__(self) -> None:
        self.unanswered: dict[int, bytes] = {}
        self.answers: list[tuple[int, bytes]] = []
        self.generations = 0

    def live_with(self, fate: Fate, arriving: deque[tuple[int, bytes]]) -> None:
        """One batcher's life, from its welcome to its death or until nothing is left to do."""
        generation = Generation(fate)
        self.generations += 1
        for number, body in self.unanswered.items():
            self._send(generation, number, body)
        try:
            while arriving or self.unanswered:
                if arriving:
                    number, body = arriving.popleft()
                    self.unanswered[number] = body
                    self._send(generation, number, body)
                generation.to_batcher.take_credit()
                generation.batcher_turn()
                self._take_answers(generation)
        except Died:
            self._take_answers(generation)  # whole answers that it published before it died
        generation.close()

    def _send(self, generation: Generation, number: int, body: bytes) -> None:
        header = REQUEST_HEADER.pack(len(body), Kind.REQUEST, 0, 0, 0, 1, number, 0, 0, 0)
        generation.to_batcher.send(header, body)

    def _take_answers(self, generation: Generation) -> None:
        for fields, body in generation.from_batcher.receive():
            if self.unanswered.pop(fields[4], None) is not None:
                self.answers.append((fields[4], body))


def _serve_through_deaths(*fates: Fate) -> Worker:
    worker = Worker()
    arriving = deque((number, body_of(number, size)) for number, size in enumerate(SIZES_BYTES))
    for fate in fates:
        worker.live_with(fate, arriving)
    return worker


def _assert_each_has_its_own_answer_once(worker: Worker) -> None:
    expected = [(number, body_of(number, size)[::-1]) for number, size in enumerate(SIZES_BYTES)]
    assert sorted(worker.answers) == expected
    assert worker.unanswered == {}


def test_a_batcher_that_dies_at_any_step_costs_nobody_an_answer_and_gives_nobody_two() -> None:
    effects = effects_of(_serve_through_deaths)
    assert effects > 60
    for survived in range(effects):
        _assert_each_has_its_own_answer_once(_serve_through_deaths(Fate(survived), Fate(None)))


def test_nor_does_a_successor_that_dies_at_any_step_of_its_own() -> None:
    for first in (3, 17, 40):
        for second in range(0, 60, 3):
            worker = _serve_through_deaths(Fate(first), Fate(second), Fate(None))
            assert worker.generations == 3
            _assert_each_has_its_own_answer_once(worker)


def test_a_death_in_the_middle_of_a_store_is_not_seen_either() -> None:
    """A store of many bytes is not one instruction: half a record may stand in the ring, unpublished."""
    fds = DirectionFds.create("test", RING_BYTES)
    sender, receiver = Sender(fds, REQUEST_HEADER), Receiver(duplicate(fds), REQUEST_HEADER)
    sender.send(REQUEST_HEADER.pack(3, Kind.REQUEST, 0, 0, 0, 1, 7, 0, 0, 0), b"abc")
    sender.publish()
    with fds.map() as memory:
        torn = struct.pack("<I", LARGEST_RECORD_BYTES)
        memory[REQUEST_HEADER.size + 3 : REQUEST_HEADER.size + 3 + len(torn)] = torn
    assert [body for _, body in receiver.receive()] == [b"abc"]
    assert receiver.receive() == []
    sender.close()
    receiver.close()
