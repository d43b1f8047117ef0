"""The rules that are compared with. Times are milliseconds."""

from __future__ import annotations

import pytest

from mlproxy.engine import Answered, Arrived, Batch, Dispatch, Engine, Failure, Policy, QueueBounds, Request
from mlproxy.simulate.rivals import BentoCork, ClipperAimd

MS = 1_000_000


class World:
    """An engine whose clock moves when told, before ``pods`` pods."""

    def __init__(self, policy: Policy) -> None:
        self.engine = Engine(policy, QueueBounds(10_000, 10**9), slo_ns=100 * MS, retry_attempts=0)
        self.made = 0

    def arrive(self, ms: float, count: int = 1) -> list[Batch]:
        now_ns = int(ms * MS)
        requests = [Request(self.made + index, b"", 1, 1, now_ns) for index in range(count)]
        self.made += count
        return self._dispatched(ms, Arrived(requests))

    def answer(self, ms: float, batch: Batch) -> list[Batch]:
        return self._dispatched(ms, Answered(batch, batch.instances))

    def _dispatched(self, ms: float, event: Arrived | Answered) -> list[Batch]:
        commands = self.engine.handle([event], int(ms * MS))
        return [command.batch for command in commands if isinstance(command, Dispatch)]


def test_clippers_batches_grow_by_one_within_the_objective_and_shrink_by_a_tenth_beyond_it() -> None:
    world, at, sizes = World(ClipperAimd(64, 100 * MS, lambda: 1)), 0.0, []
    (batch,) = world.arrive(at, 5000)
    for _ in range(60):
        sizes.append(batch.instances)
        at += 3.0 * batch.instances  # over the objective from 34 on
        (batch,) = world.answer(at, batch)
    assert sizes[:5] == [1, 2, 3, 4, 5]
    assert max(sizes) == 34
    assert sizes[34] == 30
    assert min(sizes[40:]) >= 30


def test_clipper_does_not_grow_on_batches_that_were_not_full() -> None:
    world = World(ClipperAimd(64, 100 * MS, lambda: 1))
    for at in range(0, 1000, 10):
        (batch,) = world.arrive(at)
        assert batch.instances == 1
        world.answer(at + 5, batch)
    assert world.engine.statistics()["size_cap"] == 2


def test_both_send_one_batch_to_each_ready_pod() -> None:
    for rule in (ClipperAimd, BentoCork):
        pods = 2
        world = World(rule(1, 100 * MS, lambda: pods))  # noqa: B023 - read while this rule is asked
        assert len(world.arrive(0, 5)) == 2
        pods = 0
        assert world.engine.statistics()["slots"] == 1  # somebody has to wake the first pod


def test_bentoml_waits_while_a_millisecond_costs_less_than_the_mean_wait() -> None:
    policy = BentoCork(64, 100 * MS, lambda: 1)
    world = World(policy)
    assert world.arrive(0) == []  # 1 + 6.7 ms < 0.95 of the 10 ms that it begins with
    assert world.engine.next_wakeup_ns() == 1 * MS  # it polls
    (batch,) = world.arrive(1)  # two of them wait: 2 x (1 + 6.7) ms
    assert batch.instances == 2


def test_bentoml_fits_a_line_to_its_batches_and_learns_its_mean_wait() -> None:
    policy = BentoCork(64, 1000 * MS, lambda: 1)
    for second in range(60):
        size, arrived_ns = 64 if second % 2 else 32, second * 1000 * MS
        batch = Batch(second, b"", [Request(second, b"", size, 1, arrived_ns)], size, "full")
        batch.dispatched_ns = arrived_ns + 7 * MS
        policy.observe_outcome(batch, None, batch.dispatched_ns + (10 + 2 * size) * MS)
    statistics = policy.statistics()
    assert statistics["per_instance_ns"] == pytest.approx(2 * MS)
    assert statistics["mean_wait_ns"] == pytest.approx(7 * MS)


def test_failed_calls_teach_nothing() -> None:
    for policy in (BentoCork(64, 1000 * MS, lambda: 1), ClipperAimd(64, 1000 * MS, lambda: 1)):
        before = policy.statistics()
        policy.observe_outcome(Batch(1, b"", [], 1, "full"), Failure("reset", "lost"), 5 * MS)
        assert policy.statistics() == before
