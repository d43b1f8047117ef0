"""Every promise of docs/promises.md names a test that is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
PROMISES = sorted(set(re.findall(r"(tests/\S+\.py)::(\w+)", PAGE)))


@pytest.mark.parametrize(("file", "name"), PROMISES)
def test_the_test_of_a_promise_is_there(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_promise_has_one() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| fault")]
    assert rows
    assert [row for row in rows if "::" not in row] == []
