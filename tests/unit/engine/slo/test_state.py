"""What was learned, written and read again: whole, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlproxy.engine.slo.controller import Controller
from mlproxy.engine.slo.pods import FixedPods
from mlproxy.engine.slo.state import MAX_AGE_S, StateRefused, dump, restore
from mlproxy.units import NS_PER_MS

SAVED_S = 1_790_000_000.0
SLO_NS = 500 * NS_PER_MS


def new(slo_ns: int = SLO_NS, max_size: int = 128) -> Controller:
    return Controller(slo_ns, 0.01, max_size, FixedPods(2))


def learned() -> Controller:
    controller = new()
    for call in range(200):
        size = 2 ** (call % 6)
        controller.service.learn(size, (40 + size) * NS_PER_MS * (1 + 0.1 * (call % 7)), 0.01, 0)
    controller.service.size_cap.seen(32)
    controller.feedback.tolerance, controller.feedback.reserve, controller.demand.peak = 1.25, 0.5, 3.75
    controller.advance(0)
    return controller


def known_by(controller: Controller) -> list[Any]:
    service, sizes = controller.service, (1, 2, 3, 17, 64, 128)
    return [
        *(service.mean_ns(size) for size in sizes), *(service.quantile_ns(size) for size in sizes),
        service.mean.samples, service.size_cap.reach, controller.feedback.exceed_share, controller.feedback.reserve,
        controller.demand.peak,
    ]  # fmt: skip


def test_one_that_was_restored_knows_what_the_first_knew() -> None:
    first, second = learned(), new()
    assert restore(second, dump(first, SAVED_S), SAVED_S + 10) == 200
    assert known_by(second) == known_by(first)
    for controller in (first, second):
        controller.service.learn(8, 55 * NS_PER_MS, 0.01, 0)
    assert known_by(second) == known_by(first)


def test_one_that_has_learned_nothing_can_be_saved_too() -> None:
    controller = new()
    assert restore(controller, dump(new(), SAVED_S), SAVED_S) == 0
    assert known_by(controller) == known_by(new())


def changed(**changes: Any) -> bytes:
    return json.dumps(json.loads(dump(learned(), SAVED_S)) | changes).encode()


def without(key: str) -> bytes:
    fields = json.loads(dump(learned(), SAVED_S))
    del fields[key]
    return json.dumps(fields).encode()


REFUSED = {
    "empty": b"",
    "cut off": dump(learned(), SAVED_S)[:-40],
    "not JSON": b"\x00\xff\xfe learned",
    "not UTF-8": b'{"version": "\xff"}',
    "something else": b"[1, 2, 3]",
    "nested without end": b"[" * 60_000,
    "of no version": without("version"),
    "of another version": changed(version=2),
    "of a version of one's own": changed(version="1"),
    "incomplete": without("sums"),
    "with more than we know": changed(extra=1),
    "not a number": changed(level=float("nan")),
    "infinite": changed(peak=float("inf")),
    "beyond all numbers": dump(learned(), SAVED_S).replace(b'"peak": 3.75', b'"peak": 1e999'),
    "a level of zero": changed(level=0.0),
    "negative times": changed(base_ns=-1.0),
    "calls that take no time": changed(base_ns=0.0, slope_ns=0.0),
    "too few sums": changed(sums=[1.0]),
    "too many factors": changed(factor_logs=[0.5] * 17),
    "a factor out of bounds": changed(factor_logs=[9.0] * 16),
    "text for a number": changed(reserve="all"),
    "a reserve of more than all": changed(reserve=1.5),
    "for another objective": changed(slo_ns=SLO_NS + 1),
    "for another size": changed(max_size=64),
    "an hour old": changed(saved_at_s=SAVED_S - MAX_AGE_S),
    "from the future": changed(saved_at_s=SAVED_S + MAX_AGE_S),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_is_not_to_be_believed_is_refused_whole(data: bytes) -> None:
    controller = new()
    with pytest.raises(StateRefused) as refused:
        restore(controller, data, SAVED_S)
    assert known_by(controller) == known_by(new())
    assert 10 < len(str(refused.value)) < 200


def test_the_reason_names_what_a_reader_can_do_something_about() -> None:
    for data, words in (
        (changed(version=2), "version 2, and this is 1"),
        (changed(slo_ns=7), "another slo.latency or batching.max_size"),
        (changed(saved_at_s=0.0), "older than an hour"),
        (b"{", "damaged"),
    ):
        with pytest.raises(StateRefused, match=words):
            restore(new(), data, SAVED_S)


@given(position=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_state_with_one_byte_changed_is_refused_or_can_be_worked_with(position: int, byte: int) -> None:
    data = bytearray(dump(learned(), SAVED_S))
    data[position % len(data)] = byte
    controller = new()
    _restore_if_believed(controller, bytes(data), restore)
    controller.advance(0)
    for size in (1, 8, 128):
        controller.service.learn(size, 50 * NS_PER_MS, 0.01, 0)
        assert 0 < controller.service.mean_ns(size) <= controller.service.quantile_ns(size) < 1e60
    assert 1 <= controller.size_cap <= 128


def _restore_if_believed(
    controller: Controller, data: bytes, take_over: Callable[[Controller, bytes, float], int]
) -> None:
    try:
        take_over(controller, data, SAVED_S)
    except StateRefused:
        assert known_by(controller) == known_by(new())
