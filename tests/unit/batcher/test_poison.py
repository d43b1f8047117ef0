"""The table of requests that made their batch fail: bounded, forgetful, and blind to whom it belongs to."""

from __future__ import annotations

from workers.batcher.poison import KEEP_NS, MOST, PoisonTable


def test_it_holds_what_was_added_in_its_lane_only() -> None:
    table = PoisonTable()
    table.add(b"lane", b"666", 0)
    assert table.holds(b"lane", b"666")
    assert not table.holds(b"other", b"666")
    assert not table.holds(b"lane", b"667")
    assert not table.holds(b"lane", b"6666")


def test_what_was_answered_leaves_it() -> None:
    table = PoisonTable()
    table.add(b"", b"1", 0)
    table.add(b"", b"2", 0)
    table.discard(b"", b"1")
    table.discard(b"", b"never seen")
    assert not table.holds(b"", b"1")
    assert table.holds(b"", b"2")


def test_it_forgets_each_a_while_after_its_last_failure() -> None:
    table = PoisonTable()
    table.add(b"", b"1", 0)
    table.add(b"", b"2", 10)
    table.add(b"", b"1", 20)
    table.expire(KEEP_NS + 10)
    assert table.holds(b"", b"1")
    assert not table.holds(b"", b"2")
    table.expire(KEEP_NS + 20)
    assert not table
    assert table._lengths == {}


def test_beyond_its_bound_it_forgets_the_oldest() -> None:
    table = PoisonTable()
    for number in range(MOST + 10):
        table.add(b"", b"%06d" % number, number)
    assert len(table) == MOST
    assert not table.holds(b"", b"%06d" % 9)
    assert table.holds(b"", b"%06d" % 10)


def test_a_body_of_another_length_is_not_even_hashed() -> None:
    class Unhashable(bytes):
        __hash__ = None  # type: ignore[assignment]

    table = PoisonTable()
    table.add(b"", b"123", 0)
    assert not table.holds(b"", Unhashable(b"1234"))
