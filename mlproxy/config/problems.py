"""Pydantic's findings as sentences for whoever wrote the file, each with its path. **Pure.**"""

from __future__ import annotations

from datetime import date
from functools import cache
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mlproxy.config.conflicts import Conflict, Conflicting
from mlproxy.config.keys import Key, Path, keys_of, names_at, schema_path
from mlproxy.config.mend import placeholder
from mlproxy.config.schema import Configuration
from mlproxy.config.suggest import closest

#: The design's keys and values that this version does not act on. Accepting them would be a silent no-op.
_PLANNED_KEYS = {
    "endpoints[].compat", "compat",
}  # fmt: skip
#: What is not to be seen where problems are.
_SECRETS = {"admin.token"}
_LONGEST_SHOWN = 80
_PLANNED = "is planned, but this version does not act on it yet"


class Finding(NamedTuple):
    """Something wrong with one value."""

    path: Path
    text: str


def findings_of(error: ValidationError, document: dict[Any, Any]) -> list[Finding]:
    """Everything that is wrong with single values of ``document``."""
    # A list that lost all its items to findings of their own is not also too short.
    details = [
        detail
        for detail in error.errors()
        if not (detail["type"] == "too_short" and detail["input"]) and not _conflicts_in(detail)
    ]
    found = (Finding(path_of(detail, document), _sentence(detail, document)) for detail in details)
    # "a number or auto" fails once per alternative, with the same sentence.
    return list(dict.fromkeys(found))


def conflicts_of(error: ValidationError) -> list[Conflict]:
    """The conflicts among values that are right by themselves."""
    return [conflict for detail in error.errors() for conflict in _conflicts_in(detail)]


def _conflicts_in(detail: ErrorDetails) -> list[Conflict]:
    cause = detail.get("ctx", {}).get("error")
    return cause.conflicts if isinstance(cause, Conflicting) else []


def path_of(detail: ErrorDetails, document: Any) -> Path:
    """The path in the file: without a union's member tags, which pydantic puts in between or behind."""
    location = detail["loc"]
    path: Path = ()
    at = document
    for number, part in enumerate(location, start=1):
        if isinstance(at, dict) and schema_path(path) not in _keys():
            if part not in at and number < len(location):
                continue
            at = at.get(part)
        elif isinstance(at, list | tuple) and isinstance(part, int):
            at = at[part] if part < len(at) else None
        else:
            break
        path = (*path, part)
    return path


@cache
def _keys() -> dict[str, Key]:
    return {key.path: key for key in keys_of(Configuration)}


def _sentence(detail: ErrorDetails, document: dict[Any, Any]) -> str:
    kind, value = detail["type"], detail["input"]
    path = path_of(detail, document)
    key = _keys().get(schema_path(path))
    if kind == "extra_forbidden":
        return _unknown(path)
    if kind == "missing":
        return f"is missing{_such_as(path, key)}"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if value is None and placeholder(path) is None:
        return "has no value; leave the key out to have its default"
    if value is None:
        return f"has no value{_such_as(path, key)}"
    if kind == "too_short":
        return "needs at least one" if key is None else f"needs at least one, such as {key.example}"
    if kind == "invalid_key":
        return f"the key {path[-1]!r} is not text; put it in quotes"
    hint = "; put it in quotes" if isinstance(value, int | float | date) and _wants_text(path) else ""
    shown = "this" if schema_path(path) in _SECRETS else _shown(value)
    return f"{_expectation(path, key)}, not {shown}{hint}"


def _wants_text(path: Path) -> bool:
    key = _keys().get(schema_path(path).removesuffix("[]"))
    return key is not None and key.kind.startswith(("text", "list of text"))


def _such_as(path: Path, key: Key | None) -> str:
    return "" if key is None else f"; write for example {path[-1]}: {key.example}"


def _shown(value: object) -> str:
    """A value as its writer may recognise it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | date):
        return str(value)
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _unknown(path: Path) -> str:
    if schema_path(path) in _PLANNED_KEYS:
        return f"this key {_PLANNED}"
    if "${" in str(path[-1]):
        return "unknown key; ${…} is replaced in values, not in keys"
    return f"unknown key{closest(str(path[-1]), names_at(Configuration, path[:-1]))}"


def _expectation(path: Path, key: Key | None) -> str:
    if key is None and _wants_text(path):
        return "must be text"
    if key is None:
        return "must be a list" if path == ("endpoints",) else f"must be a mapping with the keys {_names(path)}"
    kind = key.kind.replace("`", "")
    if key.is_choice:
        return f"must be {kind}"
    return f"must be {'' if kind.startswith('text') else 'a '}{kind}, such as {key.example}"


def _names(path: Path) -> str:
    return ", ".join(names_at(Configuration, path))
