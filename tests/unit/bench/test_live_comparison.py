"""When a live run and its simulation agree."""

from __future__ import annotations

import io
from typing import Any, cast

from rich.console import Console

from bench.live.comparison import Pair, table
from mlproxy.simulate import Report

NOTHING: dict[str, Any] = dict.fromkeys(Report.__dataclass_fields__, 0)


def pair(live: dict[str, float], simulated: dict[str, float]) -> Pair:
    return Pair(Report(**NOTHING | live), Report(**NOTHING | simulated))


def test_a_fifth_more_or_fewer_pods_and_a_point_of_misses_agree() -> None:
    assert not list(pair({"mean_ready_pods": 1.2}, {"mean_ready_pods": 1.0}).disagreements())
    assert not list(pair({"mean_ready_pods": 8.0}, {"mean_ready_pods": 10.0}).disagreements())
    assert not list(pair({"slo_miss_share": 0.0}, {"slo_miss_share": 0.01}).disagreements())


def test_more_than_that_is_told_with_both_numbers() -> None:
    apart = pair({"mean_ready_pods": 1.3, "slo_miss_share": 0.03}, {"mean_ready_pods": 1.0, "slo_miss_share": 0.005})
    assert list(apart.disagreements()) == [
        "ready pods 1.30 live, 1.00 simulated",
        "misses 3.00% live, 0.50% simulated",
    ]


def test_the_table_has_every_number_of_the_report_and_the_difference() -> None:
    console = Console(width=100, file=io.StringIO())
    console.print(table(pair({"requests": 1010, "p50_ms": 52.34}, {"requests": 1000, "p50_ms": 50.0}), "slo"))
    text = cast(io.StringIO, console.file).getvalue()
    assert all(name in text for name in NOTHING)
    assert " ".join(text.split()).count("1,010 │ 1,000 │ +10") == 1
    assert " ".join(text.split()).count("52.3 │ 50.0 │ +2.3") == 1
