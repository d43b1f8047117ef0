"""Tables of bench/results that the README quotes, between two marks. **Effects**: reads and writes the README."""

from __future__ import annotations

from pathlib import Path

from bench.processes import PROJECT

RESULTS = PROJECT / "bench" / "results"
README = PROJECT / "README.md"
_END = "<!-- end -->"


def quote(name: str, table: str, readme: Path = README) -> None:
    """Write ``table`` as bench/results/``name``, and where the README quotes that."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_text(table, encoding="utf-8")
    text = readme.read_text(encoding="utf-8")
    begin, end = _between(text, name)
    readme.write_text(f"{text[:begin]}\n{table}{text[end:]}", encoding="utf-8")


def quoted(name: str, readme: Path = README) -> str:
    """What the README has between the marks of ``name``."""
    text = readme.read_text(encoding="utf-8")
    begin, end = _between(text, name)
    return text[begin + 1 : end]


def _between(text: str, name: str) -> tuple[int, int]:
    mark = f"<!-- bench/results/{name} -->"
    if mark not in text or _END not in text[text.index(mark) :]:
        raise ValueError(f"the README has no lines {mark} and {_END}")
    begin = text.index(mark) + len(mark)
    return begin, text.index(_END, begin)
