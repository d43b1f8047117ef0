"""The traffic: stand-ins have the shape of what they stand in for, and slices hold the ascent to the peak."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from bench.paper.shapes import Alternating, Lines, bursts, shapes

STAND_INS = shapes(Path("nowhere"))


def relative(lines: tuple[float, ...]) -> list[float]:
    return [line / max(lines) for line in lines]


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("wcslow", 0.85, 0.95), ("wcswing", 0.3, 0.45), ("azf", 0.25, 0.45), ("tw517", 0.2, 0.3)],
)
def test_stand_ins_last_an_hour_and_have_the_mean_of_the_real_trace_relative_to_its_peak(
    name: str, least: float, most: float
) -> None:
    shape = STAND_INS[name]
    assert isinstance(shape, Lines)
    assert shape.duration_s == 3600
    assert least < fmean(relative(shape.lines)) < most
    assert min(shape.lines) >= 0
    assert shape.source.startswith("generated")


def test_a_real_trace_is_taken_where_it_is_and_only_the_hour_that_is_meant(tmp_path: Path) -> None:
    lines = list(range(1, 121))
    (tmp_path / "wc98_1998-06-30_2h_max-swing_permin.txt").write_text("\n".join(map(str, lines)))
    found = shapes(tmp_path)
    swing = found["wcswing"]
    assert isinstance(swing, Lines)
    assert swing.lines == tuple(range(21, 81))
    assert found["wcslow"] == STAND_INS["wcslow"]


def test_the_jump_is_at_minute_32_for_six_minutes() -> None:
    jump = STAND_INS["tw517"]
    assert isinstance(jump, Lines)
    levels = relative(jump.lines)
    minutes = [fmean(levels[60 * minute : 60 * minute + 60]) for minute in range(60)]
    assert [minute for minute, level in enumerate(minutes) if level > 0.5] == list(range(32, 38))


def test_a_slice_around_the_peak_has_the_ascent_after_the_warm_up() -> None:
    jump = STAND_INS["tw517"].around_peak(900)
    assert isinstance(jump, Lines)
    assert jump.duration_s == 900
    high = next(index for index, line in enumerate(relative(jump.lines)) if line > 0.5)
    assert 300 < high < 600
    falling = Lines("", (1.0, *(0.1 for _ in range(59)))).around_peak(900)
    assert falling.lines[0] == 1.0
    late = Lines("", (*(0.1 for _ in range(59)), 1.0)).around_peak(900)
    assert (len(late.lines), late.lines[-1]) == (15, 1.0)


def test_alternating_traffic_is_only_made_shorter() -> None:
    shape = STAND_INS["mmpp"]
    assert isinstance(shape, Alternating)
    assert shape.around_peak(900).duration_s == 900
    assert shape.scaled(50).peak_per_second == 50


def test_bursts_are_ten_seconds_long_and_come_about_every_minute() -> None:
    lines = bursts().lines
    assert lines.count(1.0) % 10 == 0
    assert 50 <= lines.count(1.0) // 10 <= 72
