"""Pydantic's findings as sentences, each with its path. **Pure.**"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mlproxy.config.schema import Configuration
from mlproxy.config.suggest import closest

#: The design's keys and values that this version does not act on. Accepting them would be a silent no-op.
_PLANNED_KEYS = {
    "admin.token", "endpoints.batching.lane_headers", "endpoints.batching.verify", "endpoints.batching.coalesce",
    "endpoints.batching.bill", "endpoints.compat", "endpoints.request", "endpoints.response", "compat",
    "server.state_dir", "endpoints.backend.scaling.target", "endpoints.backend.scaling.utilization",
    "endpoints.backend.scaling.container_concurrency",
}  # fmt: skip
_PLANNED_VALUES = {
    "endpoints.batching.policy": {"slo", "aimd"},
    "endpoints.protocol": {"kserve-v2", "custom"},
    "endpoints.backend.scaling.kind": {"knative"},
}
_PLANNED = "is planned, but this version does not act on it yet"


def problems_of(error: ValidationError, document: dict[str, Any]) -> list[str]:
    """Every finding of ``error`` about ``document`` as one line."""
    details = [detail for detail in error.errors() if not (detail["type"] == "too_short" and detail["input"])]
    choices = {_path(detail, document) for detail in details if detail["type"] == "literal_error"}
    lines = [
        f"{path}: {_sentence(detail)}"
        for detail in details
        # "a number or auto" fails once per alternative: the choice says it all.
        if (path := _path(detail, document)) not in choices or detail["type"] == "literal_error"
    ]
    return list(dict.fromkeys(lines))


def _path(detail: ErrorDetails, document: dict[str, Any]) -> str:
    """``endpoints[0].batching.max_size``. A union's member tags, which are no keys of the file, are left out."""
    text = ""
    at: Any = document
    for part in detail["loc"]:
        if isinstance(part, int):
            text += f"[{part}]"
            at = at[part] if isinstance(at, list | tuple) and part < len(at) else None
        elif isinstance(at, dict):
            text += f".{part}" if text else part
            at = at.get(part)
    return text or "configuration"


def _keys(detail: ErrorDetails) -> str:
    return ".".join(part for part in detail["loc"] if isinstance(part, str))


def _sentence(detail: ErrorDetails) -> str:
    kind, keys, value = detail["type"], _keys(detail), detail["input"]
    if kind == "extra_forbidden":
        if keys in _PLANNED_KEYS:
            return f"this key {_PLANNED}"
        *parents, key = keys.split(".")
        return f"unknown key{closest(key, _known_keys(parents))}"
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        return _choice(keys, value, detail["ctx"]["expected"])
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if value is None:
        return "has no value"
    if kind in ("model_type", "dict_type"):
        return f"must be a mapping, not {value!r}"
    if kind == "too_short":
        return "needs at least one"
    return f"{detail['msg'][0].lower()}{detail['msg'][1:]}, not {value!r}"


def _choice(keys: str, value: object, expected: str) -> str:
    for planned_keys, values in _PLANNED_VALUES.items():
        if keys == planned_keys and value in values:
            return f"{value!r} {_PLANNED}; choose {expected}"
    number = "a number or " if expected == "'auto'" else ""
    return f"{value!r} is not {number}{expected}"


def _known_keys(parents: list[str]) -> list[str]:
    """The keys that the section at ``parents`` has, for suggestions."""
    model: Any = Configuration
    for parent in parents:
        for name, field in model.model_fields.items():
            if parent in (field.alias, name):
                candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
                model = next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None)
                break
        if model is None:
            return []
    return [field.alias or name for name, field in model.model_fields.items()]
