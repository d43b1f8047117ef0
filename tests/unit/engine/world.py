"""An engine with a fake clock, and short words for what happens to it. Times are milliseconds unless they say so."""

from __future__ import annotations

from mlproxy.engine import (
    Answered,
    Arrived,
    Batch,
    Command,
    Dispatch,
    Engine,
    Failure,
    Policy,
    QueueBounds,
    Request,
)  # fmt: skip

MS = 1_000_000
SLO_NS = 500 * MS


class Worded(Request, eq=False):
    """A request whose instances are a word."""

    word: bytes = b""

    @property
    def twin(self) -> bytes:
        return self.word


class World:
    """An engine with a clock that only moves when told."""

    def __init__(self, policy: Policy, *, max_queued: int = 1000, max_bytes: int = 10**9, attempts: int = 2) -> None:
        self.engine = Engine(policy, QueueBounds(max_queued, max_bytes), slo_ns=SLO_NS, retry_attempts=attempts)
        self.now_ns = 0
        self.made = 0

    def request(self, count: int = 1, lane: bytes = b"", deadline_ms: int = 0, size_bytes: int = 10) -> Request:
        self.made += 1
        return Request(self.made, lane, count, size_bytes, self.now_ns, deadline_ms * MS)

    def at(self, ms: float, *events: object) -> list[Command]:
        self.now_ns = int(ms * MS)
        return self.engine.handle(events, self.now_ns)  # type: ignore[arg-type]

    def arrive(self, ms: float, *counts: int, lane: bytes = b"") -> tuple[list[Request], list[Command]]:
        self.now_ns = int(ms * MS)
        requests = [self.request(count, lane) for count in counts]
        return requests, self.at(ms, Arrived(requests))


def dispatched(commands: list[Command]) -> list[Batch]:
    return [command.batch for command in commands if isinstance(command, Dispatch)]


def only_batch(commands: list[Command]) -> Batch:
    (batch,) = dispatched(commands)
    return batch


def answer(batch: Batch) -> Answered:
    return Answered(batch, batch.instances, list(range(batch.instances)))


def failure(status: int = 500) -> Failure:
    return Failure("status", "", status, b"text/plain", b"no")
