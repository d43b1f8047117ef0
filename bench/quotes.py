"""Tables of bench/results that the README quotes, between two marks. **Effects**: reads and writes the README."""

from __future__ import annotations

from pathlib import Path

from bench.processes import PROJECT

RESULTS = PROJECT / "bench" / "results"
_END = "<!-- end -->"


def quote(name: str, table: str, root: Path = PROJECT) -> None:
    """Write ``table`` as bench/results/``name``, and where the README quotes that."""
    readme, results = root / "README.md", root / "bench" / "results"
    text = readme.read_text(encoding="utf-8")
    begin, end = _between(text, name)
    results.mkdir(parents=True, exist_ok=True)
    (results / name).write_text(table, encoding="utf-8")
    readme.write_text(f"{text[:begin]}\n{table}{text[end:]}", encoding="utf-8")


def quoted(name: str, root: Path = PROJECT) -> str:
    """What the README has between the marks of ``name``."""
    text = (root / "README.md").read_text(encoding="utf-8")
    begin, end = _between(text, name)
    return text[begin + 1 : end]


def _between(text: str, name: str) -> tuple[int, int]:
    mark = f"<!-- bench/results/{name} -->"
    if mark not in text or _END not in text[text.index(mark) :]:
        raise ValueError(f"the README has no lines {mark} and {_END}")
    begin = text.index(mark) + len(mark)
    return begin, text.index(_END, begin)
