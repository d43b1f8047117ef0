"""Durations and sizes: what people write is read exactly, and what is written is read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlproxy.units import NS_PER_MS, NS_PER_S, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "duration_ns"),
    [
        ("0s", 0),
        ("1ns", 1),
        ("7us", 7_000),
        ("7µs", 7_000),
        ("200ms", 200 * NS_PER_MS),
        ("1.5s", 1_500 * NS_PER_MS),
        ("0.1ms", 100_000),
        ("2m", 120 * NS_PER_S),
        ("1h", 3600 * NS_PER_S),
        (" 10 s ", 10 * NS_PER_S),
    ],
)
def test_a_duration_is_a_number_with_its_unit(text: str, duration_ns: int) -> None:
    assert parse_duration(text) == duration_ns


@pytest.mark.parametrize(
    "text", ["", "s", "5", "-1s", "1,5s", "1e3s", "5 parsecs", "5S", "1s2ms", "nan s", None, [], True]
)
def test_what_is_no_duration_is_refused_with_an_example_of_one(text: object) -> None:
    with pytest.raises(ValueError, match="such as 200ms"):
        parse_duration(text)


@pytest.mark.parametrize("number", [0, 5, 0.5])
def test_a_duration_without_a_unit_is_refused_with_both_ways_to_write_it(number: float) -> None:
    with pytest.raises(ValueError, match=f"write {number}s or {number}ms"):
        parse_duration(number)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        (0, 0),
        (4096, 4096),
        ("500", 500),
        ("500B", 500),
        ("1KB", 1000),
        ("1KiB", 1024),
        ("1.5KiB", 1536),
        ("16MiB", 16 * 2**20),
        ("2MB", 2_000_000),
        ("1GiB", 2**30),
        (" 1 GB ", 10**9),
    ],
)
def test_a_size_is_a_number_with_or_without_its_unit(text: object, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "MiB", "-1", -1, 1.5, True, None, "16mib", "16 M", "0x10", "1e6", []])
def test_what_is_no_size_is_refused_with_an_example_of_one(text: object) -> None:
    with pytest.raises(ValueError, match="such as 16MiB"):
        parse_size(text)


@pytest.mark.parametrize("parse", [parse_duration, parse_size])
@pytest.mark.parametrize("unit", ["s", "GiB"])
def test_a_number_beyond_all_bounds_is_refused_and_not_a_crash(parse: object, unit: str) -> None:
    assert callable(parse)
    with pytest.raises(ValueError):
        parse("9" * 400 + unit)


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        (0, "0s"),
        (999, "999ns"),
        (1_500, "1.5us"),
        (200 * NS_PER_MS, "200ms"),
        (1_500 * NS_PER_MS, "1.5s"),
        (1_250 * NS_PER_MS, "1250ms"),
        (90 * NS_PER_S, "1.5m"),
        (3600 * NS_PER_S, "1h"),
    ],
)
def test_a_duration_is_written_as_short_as_it_can_be_without_losing_anything(duration_ns: int, text: str) -> None:
    assert format_duration(duration_ns) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0B"), (500, "500B"), (1024, "1KiB"), (1025, "1025B"), (16 * 2**20, "16MiB"), (3 * 2**30, "3GiB")],
)
def test_a_size_is_written_as_short_as_it_can_be_without_losing_anything(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@given(st.integers(0, 10**15) | st.integers(0, 10**6).map(lambda ms: ms * NS_PER_MS))
def test_every_duration_that_is_written_is_read_back(duration_ns: int) -> None:
    assert parse_duration(format_duration(duration_ns)) == duration_ns


@given(st.integers(0, 2**50) | st.integers(0, 2**20).map(lambda mib: mib * 2**20))
def test_every_size_that_is_written_is_read_back(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes
