"""What a document would be if its broken values were right, to find what else is wrong with it. **Pure.**"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from mlproxy.config.keys import Path


def mended(document: dict[Any, Any], broken: Iterable[Path]) -> dict[Any, Any]:
    """A copy in which every broken value is left out or, where one is required, replaced by one that is right."""
    result = copy.deepcopy(document)
    for path in broken:
        _mend(result, path)
    return result


def placeholder(path: Path) -> Any:
    """A value that is right at ``path``; None where none is required."""
    match path:
        case ("endpoints",):
            return [placeholder(("endpoints", 0))]
        case ("endpoints", int(index)):
            return {key: placeholder(("endpoints", index, key)) for key in ("name", "backend")}
        case ("endpoints", int(index), "name"):
            return f"unknown-{index}"
        case ("endpoints", int(), "backend"):
            return {"urls": placeholder((*path, "urls"))}
        case ("endpoints", int(), "backend", "urls"):
            return [placeholder((*path, 0))]
        case ("endpoints", int(), "backend", "urls", int(index)):
            return f"http://unknown-{index}"
        case ("endpoints", int(), "batching", "lane_headers", int(index)):
            return f"x-unknown-{index}"
    return None


def _mend(at: Any, path: Path) -> None:
    *parents, last = path
    for part in parents:
        at = at.get(part) if isinstance(at, dict) else at[part]
        if not isinstance(at, dict | list):  # already mended further up
            return
    value = placeholder(path)
    if value is not None:
        at[last] = value
    elif isinstance(at, dict):
        at.pop(last, None)


def overlap(paths: Iterable[Path], others: Iterable[Path]) -> bool:
    """Does any of ``paths`` lie at, above or below any of ``others``?"""
    others = list(others)
    return any(path[: len(other)] == other[: len(path)] for path in paths for other in others)
