"""The tree and its documents keep their promises."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from bench.quotes import RESULTS, quoted

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("mlproxy", "workers", "bench")
TOP_LEVEL = {
    "mlproxy", "workers", "bench", "tests", "docs", "deploy", "Containerfile", "pyproject.toml", "README.md",
    "CHANGELOG.md", "LICENSE", "Makefile", ".ci", ".gitignore", ".dockerignore",
}  # fmt: skip
LONGEST_FILE_LINES = 400


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not listed:
        pytest.skip("not a git clone")
    return [Path(line) for line in listed.splitlines() if (ROOT / line).exists()]


def modules(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_nothing_else_stands_at_the_top() -> None:
    assert {path.parts[0] for path in tracked()} <= TOP_LEVEL


@pytest.mark.parametrize("path", modules(*PRODUCT), ids=name)
def test_every_module_says_what_it_is_and_is_short(path: Path) -> None:
    text = path.read_text()
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring
    assert len(text.splitlines()) <= LONGEST_FILE_LINES
    if path.parts[-1] not in ("__init__.py", "__main__.py") and "bench" not in path.relative_to(ROOT).parts:
        assert "**Pure" in docstring or "**Effects" in docstring


@pytest.mark.parametrize("path", modules("mlproxy", "workers"), ids=name)
def test_every_public_class_and_function_is_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_every_path_that_the_documents_name_exists() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = document.read_text()
        named = re.findall(r"`((?:mlproxy|workers|bench|tests|deploy|docs)/[\w./-]+)`", text)
        linked = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
        missing = [path for path in named if not (ROOT / path).exists()]
        missing += [link for link in linked if not (document.parent / link).exists()]
        assert not missing, f"{document.name} names what is not there"


@pytest.mark.parametrize("name", ["overhead.md", "paper.md"])
def test_the_readme_quotes_the_table_that_was_measured_and_nothing_where_nothing_was(name: str) -> None:
    table = RESULTS / name
    assert quoted(name) == (table.read_text() if table.exists() else "")


def test_every_make_target_that_the_readme_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z]+)|`make ([a-z]+)`", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert {first or second for first, second in named} <= targets
