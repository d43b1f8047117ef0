"""Profiles: the distributions that they promise, between, at and beyond their points."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from mlproxy.simulate.faults import parse_fault
from mlproxy.simulate.model import Model
from mlproxy.simulate.profiles import BUILT_IN, Affine, Point, Profile, Table, parse_profile, table_from
from mlproxy.units import NS_PER_MS, NS_PER_S

FILE = {1: {"mean_ms": 10, "p95_ms": 15}, 11: {"mean_ms": 20, "p95_ms": 25}, 21: {"mean_ms": 40, "p95_ms": 60}}


def drawn_ms(
    profile: Profile, instances: int, *faults: str, at_s: int = 0, slow_pod: bool = False
) -> npt.NDArray[np.float64]:
    model = Model(profile, [parse_fault(fault) for fault in faults], np.random.default_rng(3))
    durations = [model.duration_ns(instances, slow_pod, at_s * NS_PER_S) for _ in range(20_000)]
    return np.array(durations) / NS_PER_MS


@pytest.mark.parametrize(
    ("instances", "mean_ms", "p95_ms"), [(1, 10, 15), (6, 15, 20), (11, 20, 25), (16, 30, 42.5), (31, 60, 95)]
)
def test_a_table_is_interpolated_and_extrapolated_by_its_last_slope(
    instances: int, mean_ms: float, p95_ms: float
) -> None:
    times_ms = drawn_ms(table_from(FILE), instances)
    assert times_ms.mean() == pytest.approx(mean_ms, rel=0.02)
    assert np.percentile(times_ms, 95) == pytest.approx(p95_ms, rel=0.02)


def test_below_the_smallest_size_of_a_table_nothing_is_gained() -> None:
    table = Table((Point(4, 10, 10), Point(8, 20, 20)))
    assert drawn_ms(table, 1)[0] == drawn_ms(table, 4)[0] == pytest.approx(10)
    assert drawn_ms(Table((Point(4, 10, 10),)), 9)[0] == pytest.approx(10)


def test_affine_is_constant_without_a_spread() -> None:
    assert set(drawn_ms(Affine(40, 1.5), 10)) == {55.0}
    spread = drawn_ms(Affine(40, 1.5, 0.3), 10)
    assert spread.mean() == pytest.approx(55, rel=0.02)
    assert np.log(spread).std() == pytest.approx(0.3, rel=0.03)


@pytest.mark.parametrize(
    ("name", "base_ms", "slope_ms"), [("toxic", 39.5, 1.0), ("iris", 8.6, 0.015), ("fashion", 120.0, 2.6)]
)
def test_the_papers_models_are_affine_within_a_few_percent(name: str, base_ms: float, slope_ms: float) -> None:
    for size, mean_ms, _ in BUILT_IN[name].points:
        assert mean_ms == pytest.approx(base_ms + slope_ms * size, rel=0.08)


def test_the_papers_models_have_rare_outliers() -> None:
    times_ms = drawn_ms(BUILT_IN["toxic"], 1)
    assert (times_ms > 65).mean() == pytest.approx(0.002, abs=0.0015)


def test_profiles_are_written_as_names_or_as_a_line() -> None:
    assert parse_profile("iris") is BUILT_IN["iris"]
    assert parse_profile("affine:40,1,0.1") == Affine(40, 1, 0.1)
    assert parse_profile("profile.yaml") is None


@pytest.mark.parametrize(
    "text",
    [
        "affine:",
        "affine:1",
        "affine:1,2,3,4",
        "affine:a,b",
        "affine:0,0",
        "affine:-1,2",
        "affine:9999999,1",
        "affine:1,1,2",
    ],
)
def test_an_affine_profile_that_cannot_be_read_says_how_to_write_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"affine:A_MS,B_MS\[,SIGMA\]|must take some time|SIGMA is"):
        parse_profile(text)


@pytest.mark.parametrize(
    ("document", "hint"),
    [
        ([], "a line per batch size"),
        ({}, "a line per batch size"),
        ({"a": {}}, "'a' is not a batch size"),
        ({0: {}}, "0 is not a batch size"),
        ({1: 5}, "write {mean_ms: 11, p95_ms: 12}"),
        ({1: {"mean_ms": 5, "p59_ms": 6}}, "unknown key 'p59_ms'; did you mean p95_ms?"),
        ({1: {"mean_ms": 5}}, "p95_ms must be a number above 0"),
        ({1: {"mean_ms": 5, "p95_ms": 4}}, "p95_ms must be 1 to 3.9 times mean_ms"),
        ({1: {"mean_ms": 5, "p95_ms": 20}}, "p95_ms must be 1 to 3.9 times mean_ms"),
    ],
)
def test_a_file_that_is_no_profile_says_which_line(document: object, hint: str) -> None:
    with pytest.raises(ValueError) as raised:
        table_from(document)
    assert hint in str(raised.value)


def test_faults_change_the_times_while_they_last() -> None:
    steady = Affine(10, 0)
    assert set(drawn_ms(steady, 1, "drift:2@10s-20s", at_s=10)) == {20.0}
    assert set(drawn_ms(steady, 1, "drift:2@10s-20s", at_s=20)) == {10.0}
    assert set(drawn_ms(steady, 1, "drift:2@0-20s", "slowpod:4@0-20s", slow_pod=True)) == {80.0}
    assert set(drawn_ms(steady, 1, "slowpod:4@0-20s")) == {10.0}
    outliers = drawn_ms(steady, 1, "outliers:0.02,5")
    assert set(outliers) == {10.0, 50.0}
    assert (outliers == 50).mean() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize(
    "text",
    ["drift:2", "drift:x@1m-2m", "drift:2,3@1m-2m", "outliers:0.02", "errors:0.3", "slowpod:4@25m", "drift:2@20-30"],
)
def test_a_fault_that_cannot_be_read_says_how_to_write_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|needs a unit|not a duration"):
        parse_fault(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [("errrs:1", "did you mean errors"), ("errors:2@1m-2m", "at most 1"), ("drift:2@2m-1m", "ends before it begins")],
)
def test_a_fault_that_makes_no_sense_says_why(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_fault(text)
