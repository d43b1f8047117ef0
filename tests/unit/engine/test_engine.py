"""The engine's rules, each with a fake clock. Numbers are milliseconds unless they say otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from mlproxy.engine import (
    Abort,
    Answered,
    Arrived,
    Cancelled,
    Command,
    Complete,
    Dispatch,
    Drain,
    Failed,
    Failure,
    NoBatching,
    Reject,
    Relay,
    Request,
    StaticBatching,
)  # fmt: skip
from mlproxy.engine.request import Member
from mlproxy.errors import BackendContract, BackendTimeout, BackendUnavailable, DeadlineExceeded, Overloaded
from tests.unit.engine.world import MS, World, answer, dispatched, failure, only_batch


def test_an_idle_proxy_sends_at_once() -> None:
    world = World(StaticBatching(8, 0, 1))
    _, commands = world.arrive(0, 1)
    assert only_batch(commands).reason == "idle"
    assert world.engine.next_wakeup_ns() is None


def test_batches_grow_while_every_slot_is_busy_and_leave_when_one_is_free() -> None:
    world = World(StaticBatching(8, 0, 1))
    _, commands = world.arrive(0, 1)
    first = only_batch(commands)
    for ms in (1, 2, 3):
        assert world.arrive(ms, 1)[1] == []
    batch = only_batch(world.at(40, answer(first)))
    assert batch.instances == 3
    assert batch.reason == "idle"


def test_linger_counts_from_the_oldest_arrival_and_is_never_rearmed() -> None:
    world = World(StaticBatching(8, 10 * MS, 1))
    assert world.arrive(0, 1)[1] == []
    for ms in (3, 6, 9):
        assert world.arrive(ms, 1)[1] == []
        assert world.engine.next_wakeup_ns() == 10 * MS
    batch = only_batch(world.at(10))
    assert (batch.instances, batch.reason) == (4, "deadline")


def test_a_full_batch_does_not_linger() -> None:
    world = World(StaticBatching(4, 1000 * MS, 1))
    _, commands = world.arrive(0, 1, 2, 1)
    batch = only_batch(commands)
    assert (batch.instances, batch.reason) == (4, "full")


def test_size_counts_instances_and_requests_stay_whole() -> None:
    world = World(StaticBatching(4, 0, 1))
    _, commands = world.arrive(0, 3, 2, 1)
    first = only_batch(commands)
    assert first.instances == 3
    assert only_batch(world.at(1, answer(first))).instances == 3


def test_a_request_larger_than_max_size_is_split_and_rejoined_in_order() -> None:
    world = World(StaticBatching(4, 0, 3))
    (request,), commands = world.arrive(0, 10)
    batches = dispatched(commands)
    assert [batch.instances for batch in batches] == [4, 4, 2]
    assert world.at(1, Answered(batches[2], 2, "c")) == []
    assert world.at(2, Answered(batches[0], 4, "a")) == []
    (complete,) = world.at(3, Answered(batches[1], 4, "b"))
    assert isinstance(complete, Complete)
    assert complete.answers == [(request, [("a", 0, 4), ("b", 0, 4), ("c", 0, 2)])]


def test_one_failed_part_fails_its_request_once_and_frees_the_other_slots() -> None:
    world = World(StaticBatching(4, 0, 3), attempts=0)
    _, commands = world.arrive(0, 10)
    batches = dispatched(commands)
    commands = world.at(1, Failed(batches[0], Failure("timeout", "too slow")))
    assert [type(command) for command in commands] == [Abort, Abort, Reject]
    assert world.engine.idle
    assert world.at(2, answer(batches[1])) == []


class Members(list[Member]):
    """Counts how often somebody looks at them."""

    walks = 0

    def __iter__(self) -> Iterator[Member]:
        Members.walks += 1
        return super().__iter__()

    def __contains__(self, member: object) -> bool:
        Members.walks += 1
        return super().__contains__(member)


def test_one_failed_part_of_many_looks_at_every_call_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Members, "walks", 0)
    world = World(StaticBatching(1, 0, 100))
    _, commands = world.arrive(0, 100)
    first, *others = dispatched(commands)
    for batch in [first, *others]:
        batch.members = Members(batch.members)
    aborted = [command.batch for command in world.at(1, Failed(first, failure(404))) if isinstance(command, Abort)]
    assert len(aborted) == len(others) == 99
    assert Members.walks <= 3 * 100
    assert world.engine.idle


def test_different_lanes_never_share_a_batch() -> None:
    world = World(StaticBatching(8, 0, 9))
    requests = [world.request(lane=lane) for lane in (b"a", b"b", b"a", b"b")]
    batches = dispatched(world.at(0, Arrived(requests)))
    assert [[member.owner.id for member in batch.members] for batch in batches] == [[1, 3], [2, 4]]


def test_a_full_young_lane_goes_ahead_of_an_old_one_that_still_lingers_but_not_of_one_that_is_due() -> None:
    world = World(StaticBatching(2, 10 * MS, 1))
    assert world.arrive(0, 1, lane=b"old")[1] == []
    batch = only_batch(world.arrive(1, 1, 1, lane=b"young")[1])
    assert batch.lane_key == b"young"
    world.arrive(2, 1, 1, 1, 1, lane=b"young")
    assert only_batch(world.at(11, answer(batch))).lane_key == b"old"


def test_a_short_reply_is_an_error_for_everyone_and_never_somebody_elses_answer() -> None:
    world = World(StaticBatching(8, 0, 1))
    world.arrive(0, 1)
    requests, _ = world.arrive(0, 1)
    engine_batch = next(iter(world.engine._in_flight))
    batch = only_batch(world.at(1, answer(engine_batch)))
    assert batch.members == requests
    (rejected,) = world.at(2, Answered(batch, 0, []))
    assert isinstance(rejected, Reject)
    assert isinstance(rejected.error, BackendContract)


def run_with_poison(size: int, poison: set[int]) -> tuple[list[int], list[Command], int]:
    """A batch of ``size`` against a backend that fails whatever holds a poisoned request."""
    world = World(StaticBatching(size, 0, 1))
    calls = 0
    completed: list[int] = []
    ended: list[Command] = []
    pending = world.at(0, Arrived([world.request() for _ in range(size)]))
    while pending:
        command = pending.pop(0)
        if isinstance(command, Complete):
            completed += [request.id for request, _ in command.answers]
            continue
        if not isinstance(command, Dispatch):
            ended.append(command)
            continue
        calls += 1
        members = {member.owner.id for member in command.batch.members}
        outcome = Failed(command.batch, failure()) if members & poison else answer(command.batch)
        pending += world.at(calls, outcome)
    assert world.engine.idle
    return completed, ended, calls


def test_a_whole_request_whose_call_fails_is_not_looked_for_in_all_other_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(NoBatching(10))
    requests, commands = world.arrive(0, 1, 1, 1)
    monkeypatch.setattr(world.engine, "_leave_batches", None)
    (rejected,) = world.at(1, Failed(dispatched(commands)[1], Failure("timeout", "too slow")))
    assert isinstance(rejected, Reject)
    assert rejected.request is requests[1]
    assert world.engine.in_flight == 2


@pytest.mark.parametrize("size", [1, 2, 3, 8, 32, 64])
def test_a_poison_request_fails_alone_with_the_backends_own_status(size: int) -> None:
    completed, (relayed,), calls = run_with_poison(size, {1 + size // 3})
    assert len(set(completed)) == len(completed) == size - 1
    assert isinstance(relayed, Relay)
    assert relayed.request.id == 1 + size // 3
    assert calls - 1 <= 2 * math.log2(size) + 2


def test_a_backend_that_fails_everything_is_not_hammered() -> None:
    world = World(StaticBatching(32, 0, 1))
    first_calls = calls = 0
    for round_number in range(200):
        pending = world.at(round_number, Arrived([world.request() for _ in range(32)]))
        while pending:
            command = pending.pop(0)
            if isinstance(command, Dispatch):
                calls += 1
                first_calls += not command.batch.isolating
                pending += world.at(round_number, Failed(command.batch, failure()))
    assert calls <= 1.2 * first_calls


def test_a_refused_connection_is_tried_again_after_a_pause_then_given_up() -> None:
    world = World(StaticBatching(8, 0, 1), attempts=2)
    _, commands = world.arrive(0, 1)
    down = Failure("connect", "connection refused")
    assert world.at(0, Failed(only_batch(commands), down)) == []
    assert world.engine.next_wakeup_ns() == 25 * MS
    again = only_batch(world.at(25))
    assert (again.attempt, again.cause) == (1, "connect")
    assert world.at(25, Failed(again, down)) == []
    last = only_batch(world.at(125))
    (rejected,) = world.at(125, Failed(last, down))
    assert isinstance(rejected, Reject)
    assert isinstance(rejected.error, BackendUnavailable)


def test_a_timeout_is_not_tried_again() -> None:
    world = World(StaticBatching(8, 0, 1))
    _, commands = world.arrive(0, 1, 1)
    rejected = world.at(5000, Failed(only_batch(commands), Failure("timeout", "no answer within 5s")))
    assert [type(command.error) for command in rejected if isinstance(command, Reject)] == [BackendTimeout] * 2


def test_a_caller_that_leaves_while_queued_is_not_sent() -> None:
    world = World(StaticBatching(8, 0, 1))
    _, commands = world.arrive(0, 1)
    requests, _ = world.arrive(1, 1, 1)
    assert world.at(2, Cancelled(requests[0])) == []
    assert only_batch(world.at(3, answer(only_batch(commands)))).members == [requests[1]]


def test_siblings_never_notice_that_a_caller_left_after_dispatch() -> None:
    world = World(StaticBatching(8, 0, 1))
    requests, commands = world.arrive(0, 1, 1, 1)
    batch = only_batch(commands)
    assert world.at(1, Cancelled(requests[1])) == []
    (complete,) = world.at(2, answer(batch))
    assert isinstance(complete, Complete)
    assert [(request, pieces[0][1]) for request, pieces in complete.answers] == [(requests[0], 0), (requests[2], 2)]


def test_the_call_is_aborted_when_everyone_has_left() -> None:
    world = World(StaticBatching(8, 0, 1))
    requests, commands = world.arrive(0, 1, 1)
    assert world.at(1, Cancelled(requests[0])) == []
    assert world.at(2, Cancelled(requests[1])) == [Abort(only_batch(commands))]
    assert world.engine.idle


def test_a_deadline_that_passes_in_the_queue_answers_at_that_moment() -> None:
    world = World(StaticBatching(8, 0, 1))
    world.arrive(0, 1)
    late = world.request(deadline_ms=30)
    world.at(0, Arrived([late]))
    assert world.engine.next_wakeup_ns() == 30 * MS
    (rejected,) = world.at(30)
    assert isinstance(rejected, Reject)
    assert (rejected.request, type(rejected.error)) == (late, DeadlineExceeded)


def test_deadlines_of_answered_requests_do_not_pile_up_behind_a_waiting_one() -> None:
    world = World(StaticBatching(1, 0, 1))
    blocked = world.request(deadline_ms=1)
    world.at(0, Arrived([world.request()]))
    running = next(iter(world.engine._in_flight))
    for _ in range(5000):
        request = world.request(deadline_ms=3_600_000)
        world.at(0, Arrived([request]))
        world.at(0, Cancelled(request))
    assert len(world.engine._queue.deadlines) <= 1024
    del blocked, running


def test_the_queue_is_bounded_and_says_when_to_come_back() -> None:
    world = World(StaticBatching(1, 0, 1), max_queued=2)
    _, commands = world.arrive(0, 1, 1, 1, 1)
    shed = [command for command in commands if isinstance(command, Reject)]
    assert len(shed) == 2  # nothing is dispatched before all that came at once has been taken in
    error = shed[0].error
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == 1


def test_retry_after_follows_the_measured_drain_rate() -> None:
    world = World(StaticBatching(1, 0, 1), max_queued=100)
    world.arrive(0, *[1] * 100)
    for second in range(1, 30):  # one instance per second leaves
        world.at(1000 * second, answer(next(iter(world.engine._in_flight))), Arrived([world.request()]))
    (command,) = [c for c in world.at(30_000, Arrived([world.request(), world.request()])) if isinstance(c, Reject)][:1]
    assert command.error.retry_after_s == 30  # about 100 s at this rate, capped


def test_after_hours_without_an_answer_retry_after_is_the_longest() -> None:
    world = World(StaticBatching(1, 0, 1), max_queued=1)
    world.arrive(0, 1)
    world.at(1, answer(next(iter(world.engine._in_flight))))
    world.arrive(2, 1)
    _, commands = world.arrive(2 * 3_600_000, 1, 1)  # nothing but a denormal number remains of the rate
    assert [c.error.retry_after_s for c in commands if isinstance(c, Reject)] == [30]


def test_draining_sends_without_waiting_for_company() -> None:
    world = World(StaticBatching(8, 1000 * MS, 1))
    world.arrive(0, 1, 1)
    assert only_batch(world.at(1, Drain())).reason == "drain"


def test_no_batching_sends_every_request_alone_and_whole() -> None:
    world = World(NoBatching(2))
    _, commands = world.arrive(0, 1, 50, 1)
    assert [batch.instances for batch in dispatched(commands)] == [1, 50]


class Carrier(Request, eq=False):
    """A request with something to carry."""

    body: bytes = b"body"

    def release(self) -> None:
        self.body = b""


def test_who_leaves_the_queue_keeps_no_body_in_it_and_who_is_with_the_backend_does() -> None:
    world = World(StaticBatching(8, 0, 1))
    sent, patient, left = (Carrier(number, b"", 1, 10, number * MS) for number in range(3))
    world.at(0, Arrived([sent]))
    world.at(1, Arrived([patient, left]))
    world.at(2, Cancelled(left), Cancelled(sent))
    assert (sent.body, patient.body, left.body) == (b"body", b"body", b"")


def test_a_request_larger_than_the_queue_can_ever_hold_is_refused_for_good() -> None:
    world = World(StaticBatching(4, 0, 1), max_queued=10, max_bytes=1000)
    large, heavy, fine = world.request(11), world.request(1, size_bytes=1001), world.request(10)
    refused = {
        command.request: command.error
        for command in world.at(0, Arrived([large, heavy, fine]))
        if isinstance(command, Reject)
    }
    assert {request: error.status for request, error in refused.items()} == {large: 413, heavy: 413}
    assert "limits.queue_instances" in refused[large].detail


def test_a_caller_with_less_time_than_the_objective_allows_goes_first() -> None:
    world = World(StaticBatching(1, 0, 1))
    world.arrive(0, 1)
    running = next(iter(world.engine._in_flight))
    patient, hurried, generous = world.request(), world.request(deadline_ms=100), world.request(deadline_ms=15_000)
    world.at(1, Arrived([patient, generous]))
    world.at(2, Arrived([hurried]))
    order = []
    for ms in (10, 20, 30):
        running = only_batch(world.at(ms, answer(running)))
        order.append(running.members[0].owner)
    assert order == [hurried, patient, generous]


def test_a_caller_in_a_hurry_lingers_for_that_much_less() -> None:
    world = World(StaticBatching(8, 50 * MS, 1))
    world.at(0, Arrived([world.request()]))
    assert world.engine.next_wakeup_ns() == 50 * MS
    world.at(5, Arrived([world.request(deadline_ms=480)]))
    assert world.engine.next_wakeup_ns() == 30 * MS
    assert only_batch(world.at(30)).instances == 2


def test_lanes_are_served_by_their_most_urgent_member_whatever_leaves_or_comes() -> None:
    world = World(StaticBatching(1, 0, 1))
    world.arrive(0, 1)
    running = next(iter(world.engine._in_flight))
    (first,), _ = world.arrive(1, 1, lane=b"a")
    (second,), _ = world.arrive(2, 1, lane=b"b")
    (third,), _ = world.arrive(3, 1, lane=b"a")
    world.at(4, Cancelled(first))  # lane a is now the younger one
    running = only_batch(world.at(5, answer(running)))
    assert running.members == [second]
    assert only_batch(world.at(6, answer(running))).members == [third]


def test_a_deadline_that_passes_while_another_call_is_due_is_answered_at_that_moment() -> None:
    world = World(StaticBatching(8, 0, 1))
    hurried, patient = world.request(deadline_ms=10), world.request()
    batch = only_batch(world.at(0, Arrived([hurried, patient])))
    assert world.at(1, Failed(batch, Failure("connect", "refused"))) == []
    assert world.engine.next_wakeup_ns() == 10 * MS
    (rejected,) = world.at(10)
    assert isinstance(rejected, Reject)
    assert (rejected.request, type(rejected.error)) == (hurried, DeadlineExceeded)
    assert only_batch(world.at(26)).members == [patient]


@pytest.mark.parametrize("count", [2, 3])
def test_what_is_with_the_backend_is_waited_for_beyond_the_deadline_split_or_whole(count: int) -> None:
    world = World(StaticBatching(2, 0, 2))
    request = world.request(count, deadline_ms=10)
    batches = dispatched(world.at(0, Arrived([request])))
    assert world.at(11) == []
    (complete,) = world.at(20, *(answer(batch) for batch in batches))
    assert isinstance(complete, Complete)
    assert [owner for owner, _ in complete.answers] == [request]


def test_a_part_that_still_waits_at_the_deadline_ends_its_request_and_its_calls() -> None:
    world = World(StaticBatching(2, 0, 1))
    request = world.request(4, deadline_ms=10)
    world.at(0, Arrived([request]))
    abort, rejected = world.at(10)
    assert isinstance(abort, Abort)
    assert isinstance(rejected, Reject)
    assert isinstance(rejected.error, DeadlineExceeded)


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405, 429])
def test_a_status_about_the_call_is_everybodys_at_once(status: int) -> None:
    world = World(StaticBatching(8, 0, 1))
    requests, commands = world.arrive(0, 1, 1, 1)
    relayed = world.at(1, Failed(only_batch(commands), failure(status)))
    assert [command.request for command in relayed if isinstance(command, Relay)] == requests
    assert world.engine.idle


def test_who_leaves_before_the_second_call_is_not_in_it() -> None:
    world = World(StaticBatching(8, 0, 1))
    (left, stays), commands = world.arrive(0, 1, 2)
    world.at(1, Failed(only_batch(commands), Failure("connect", "refused")))
    world.at(2, Cancelled(left))
    again = only_batch(world.at(26))
    assert (again.members, again.instances) == ([stays], 2)
    (complete,) = world.at(30, answer(again))
    assert isinstance(complete, Complete)
    assert complete.answers[0][1][0][1:] == (0, 2)
