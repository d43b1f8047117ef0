"""Broken values are taken out until what is left is right, so that nothing hides behind anything else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mlproxy.config.keys import Path, keys_of
from mlproxy.config.mend import mended, overlap
from mlproxy.config.problems import conflicts_of, findings_of
from mlproxy.config.schema import Configuration

#: What people write where something else belongs.
WRONG: list[Any] = [None, "", "x", -1, 0, 7, 1.5, True, [], [None], ["x"], {}, {"x": 1}, {1: 2}, [[]], "${X}", "static"]
PATHS = [tuple(key.path.replace("[]", ".0").split(".")) for key in keys_of(Configuration)]
SECTIONS = sorted({path[:length] for path in PATHS for length in range(1, len(path) + 1)})


def document(spoilt: dict[tuple[str, ...], Any]) -> dict[Any, Any]:
    """A good document in which the value at each path is replaced."""
    result: dict[Any, Any] = {"endpoints": [{"name": "iris", "backend": {"urls": ["http://a"]}}]}
    for path, value in spoilt.items():
        at: Any = result
        for part in path[:-1]:
            at = at[0] if part == "0" and isinstance(at, list) and at else at
            at = at.setdefault(part, {}) if part != "0" and isinstance(at, dict) else at
        if isinstance(at, dict) and path[-1] != "0":
            at[path[-1]] = copy.deepcopy(value)
    return result


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(SECTIONS), st.sampled_from(WRONG), max_size=6))
def test_whatever_is_broken_can_be_mended_and_is_told_in_one_line_each(spoilt: dict[tuple[str, ...], Any]) -> None:
    current = document(spoilt)
    broken: set[Path] = set()
    for _ in range(5):
        try:
            Configuration.model_validate(current)
            return
        except ValidationError as error:
            found = findings_of(error, current)
            broken |= {finding.path for finding in found}
            broken |= {path for conflict in conflicts_of(error) for path in conflict.paths}
        assert all(finding.text and "\n" not in finding.text for finding in found)
        assert not any(word in finding.text for finding in found for word in ("Input", "input should", "tuple"))
        current = mended(current, broken)
    pytest.fail(f"not mended: {current}")


def test_mending_changes_a_copy() -> None:
    original = document({("server", "port"): "x"})
    assert mended(original, [("server", "port")])["server"] == {}
    assert original["server"] == {"port": "x"}


def test_what_is_required_is_replaced_and_everything_else_is_left_out() -> None:
    result = mended(
        {"endpoints": [{"slo": 5}, 7]}, [("endpoints", 0, "name"), ("endpoints", 0, "slo"), ("endpoints", 1)]
    )
    assert result["endpoints"][0] == {"name": "unknown-0"}
    assert set(result["endpoints"][1]) == {"name", "backend"}


@pytest.mark.parametrize(
    ("path", "other", "expected"),
    [(("a",), ("a", "b"), True), (("a", "b"), ("a",), True), (("a", 0), ("a", 1), False), (("a",), ("b",), False)],
)
def test_paths_overlap_when_one_lies_at_or_below_the_other(path: Path, other: Path, expected: bool) -> None:
    assert overlap([path], [other]) is expected
