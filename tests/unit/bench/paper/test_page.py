"""The page of results: what it says about the paper's claim, and that it is what was found."""

from __future__ import annotations

from typing import Any

import pytest

from bench.paper import record
from bench.paper.page import page, readme_table
from bench.paper.plan import POLICIES, WORKLOADS
from bench.paper.summary import Readings
from bench.paper.tables import ratios_table
from bench.quotes import RESULTS
from tests.unit.bench.paper.readings import made

DOCUMENT: dict[str, Any] = {
    "made": {
        "date": "2026-01-01", "python": "3.11.0", "cpu_minutes": 1, "plan": "default", "extent": "a little",
        "real_traces": False,
    },
    "traces": {"azf": "generated: spikes"},
}  # fmt: skip
PODS = {"none": 20.0, "aimd": 1.5, "clipper": 10.0, "bentoml": 9.0, "static": 1.0, "slo": 1.0}


def some_readings() -> Readings:
    """fashion reaches 92 %, the others have nothing to save; by the paper's method iris misses nothing at all."""
    return Readings(
        made(
            method=method, workload=workload, policy=policy, seed=seed, setting="5, 20 ms" * (policy == "static"),
            pods=PODS[policy] if workload == "fashion" else 1.0, miss_share=0.02 if policy == "none" else 0.0,
        )
        for method in ("paper", "ours")
        for workload in WORKLOADS
        for policy in POLICIES
        for seed in (1, 2)
    )  # fmt: skip


def test_the_page_says_where_the_papers_numbers_appear_and_where_not() -> None:
    text = page(DOCUMENT, some_readings())
    assert "**92 % fewer pods** than `none`, `aimd` at ×1: 1 of 3 cases: fashion azf." in text
    assert "**99 % fewer misses** than `none`, `slo` at ×1: 3 of 3 cases" in text
    assert "**92 % lower bill** than `none`, `slo` at ×1: nowhere; the most is 0 %" in text
    nothing = page(DOCUMENT, Readings(made(method=m, policy=p) for m in ("paper", "ours") for p in POLICIES))
    assert "`slo` at ×1: nowhere; the most is 0 %, toxic azf." in nothing
    assert "`slo` at ×1: nowhere; there was nothing to improve." in nothing


def test_the_bound_stands_beside_the_policies_where_it_was_reckoned() -> None:
    assert "Bound" not in page(DOCUMENT, some_readings())
    readings = [made(policy=policy, scale=scale) for policy in POLICIES for scale in (1, 10)]
    known = [made(scale=1, pods=1.2, bound_pods=1.0), made(scale=10, pods=3.0, bound_pods=2.0)]
    text = page(DOCUMENT, Readings([*(one for one in readings if one.policy != "slo"), *known, made(method="paper")]))
    assert "| ×1 | 1.20 | 1.00 | 1.20 |\n| ×10 | 3.00 | 2.00 | 1.50 |\n| all | 2.10 | 1.50 | 1.40 |" in text
    assert sum(line.startswith("| azf | bound | ") for line in text.splitlines()) == 2


def test_every_case_and_policy_has_a_line() -> None:
    lines = page(DOCUMENT, some_readings()).splitlines()
    assert sum(line.startswith("| azf | `") for line in lines) == 2 * len(WORKLOADS) * len(POLICIES)
    assert any(line.startswith("| azf | `static` (5, 20 ms) |") for line in lines)


def test_the_small_table_has_a_line_per_policy() -> None:
    table = readme_table(DOCUMENT, some_readings())
    assert [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")] == list(POLICIES)
    assert "`slo` at ×1: pods −86 %, misses −100 %, bill +0 % against no batching; " in table  # 1 for (20 + 1 + 1) / 3
    assert "against the paper's controller" in table


def test_ratios_are_between_means() -> None:
    assert ratios_table(some_readings()).splitlines()[2:4] == [
        "| pods | 0.14 | 0.86 | 0.25 | 0.27 | 1.00 |",
        "| misses | 0.00 | – | – | – | – |",
    ]


def test_page_and_table_are_those_of_the_newest_results() -> None:
    newest = record.newest()
    if newest is None:
        pytest.skip("make paper has not been run")
    document, readings = record.read(newest)
    results, table = page(document, readings), readme_table(document, readings)
    assert results == record.PAGE.read_text()
    assert table == (RESULTS / "paper.md").read_text()
