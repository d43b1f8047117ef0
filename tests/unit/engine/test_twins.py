"""What is the same is sent once: twins leave together, fail together, and are no more than one in a batch."""

from __future__ import annotations

from collections.abc import Sequence

from mlproxy.engine import (
    Answered,
    Arrived,
    Batch,
    Cancelled,
    Complete,
    Dispatch,
    Engine,
    Failed,
    Failure,
    QueueBounds,
    Relay,
    StaticBatching,
)
from mlproxy.engine.commands import Command
from mlproxy.units import NS_PER_MS, NS_PER_S
from tests.unit.engine.world import Worded


class Coalescing:
    """An engine that coalesces, with one slot and batches of two instances."""

    def __init__(self) -> None:
        self.bounds = QueueBounds(1000, 10**6)
        self.engine = Engine(StaticBatching(2, 0, 1), self.bounds, slo_ns=NS_PER_S, retry_attempts=0, coalesce=True)
        self.now_ns = 0

    def arrive(self, words: str, lane: bytes = b"") -> tuple[list[Worded], list[Batch]]:
        requests = [Worded(number, lane, 1, 1, 0, word=word.encode()) for number, word in enumerate(words)]
        return requests, batches_of(self.handle(Arrived(requests)))

    def handle(self, event: Answered | Arrived | Cancelled | Failed) -> list[Command]:
        self.now_ns += NS_PER_MS
        return self.engine.handle([event], self.now_ns)


def batches_of(commands: Sequence[Command]) -> list[Batch]:
    return [command.batch for command in commands if isinstance(command, Dispatch)]


def words_of(batch: Batch) -> str:
    return "".join(member.twin.decode() for member in batch.members)


def test_all_that_wait_with_the_same_leave_with_the_first_of_them() -> None:
    world = Coalescing()
    _, (first,) = world.arrive("xabacaba")
    assert (words_of(first), first.sent) == ("xaaaa", 2)
    commands = world.handle(Answered(first, first.instances, "reply"))
    assert [len(command.answers) for command in commands if isinstance(command, Complete)] == [5]
    (second,) = batches_of(commands)
    assert (words_of(second), second.sent) == ("bcb", 2)
    assert world.engine.queued_instances == world.bounds.instances == 0


def test_other_lanes_have_no_twins_here() -> None:
    world = Coalescing()
    world.arrive("x", b"busy")
    world.arrive("a", b"one")
    world.arrive("aa", b"other")
    assert world.engine.queued_instances == 3


def test_who_has_left_is_no_twin_of_anybody() -> None:
    world = Coalescing()
    _, (busy,) = world.arrive("x")
    requests, _ = world.arrive("aab")
    world.handle(Cancelled(requests[1]))
    (batch,) = batches_of(world.handle(Answered(busy, 1, "reply")))
    assert batch.members == [requests[0], requests[2]]
    assert not world.engine._queue._twins._waiting  # type: ignore[union-attr]


def test_poison_that_several_sent_is_found_with_the_calls_of_one() -> None:
    world = Coalescing()
    _, (busy,) = world.arrive("x")
    requests, _ = world.arrive("pbppppppp")
    (batch,) = batches_of(world.handle(Answered(busy, 1, "reply")))
    assert batch.sent == 2
    refused, calls, waiting = [], 0, [batch]
    while waiting:
        batch = waiting.pop()
        calls += 1
        poison = b"p" in [member.twin for member in batch.members]
        event = Failed(batch, Failure("status", "", 422)) if poison else Answered(batch, batch.instances, "reply")
        commands = world.handle(event)
        refused += [command.request for command in commands if isinstance(command, Relay)]
        waiting += batches_of(commands)
    assert refused == [request for request in requests if request.word == b"p"]
    assert calls == 3
