"""The schema as a list of keys: what may stand at each, in words. **Pure.**

The reference in docs/ and the sentences about bad values are written from here, so they say the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mlproxy.units import format_duration, format_size

#: Where something stands in a configuration: keys and positions in lists.
Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the file that has a value of its own."""

    path: str  #: ``endpoints[].slo.latency``
    kind: str  #: ``whole number from 0 to 65535``
    default: str  #: as it is written; ``required`` if there is none
    meaning: str
    example: str  #: a value that would do

    @property
    def is_choice(self) -> bool:
        """A few words, and nothing else, may stand there."""
        return self.kind.startswith("`")


def format_path(path: Path) -> str:
    """``endpoints[0].batching.max_size``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def schema_path(path: Path) -> str:
    """The path as the list of keys has it: ``endpoints[].batching.max_size``."""
    text = "".join("[]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def keys_of(model: type[BaseModel], above: str = "") -> Iterator[Key]:
    """Every key at and below ``model`` that has a value of its own, in the file's order."""
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        key = field.alias or name
        section = section_of(field)
        if section is not None:
            is_list = properties[key].get("type") == "array"
            yield from keys_of(section, f"{above}{key}{'[]' if is_list else ''}.")
        else:
            kind, default = _kind(name, properties[key]), _default(name, field)
            yield Key(f"{above}{key}", kind, default, field.description or "", _example(default, field))


def names_at(model: type[BaseModel], path: Path) -> list[str]:
    """The keys that may stand in the section at ``path``; none, if there is no section."""
    section: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, str) and section is not None:
            fields = {field.alias or name: field for name, field in section.model_fields.items()}
            section = section_of(fields[part]) if part in fields else None
    return [field.alias or name for name, field in section.model_fields.items()] if section else []


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a nested mapping, or of the items of a list of mappings."""
    candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
    return next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None)


def either(words: Sequence[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _kind(name: str, schema: dict[str, Any]) -> str:
    """What may stand there, in words; durations and sizes are told by the field's unit."""
    if "anyOf" in schema:
        return either([_kind(name, alternative) for alternative in schema["anyOf"]])
    if schema["type"] == "null" or "const" in schema or "enum" in schema:
        return either([f"`{value}`" for value in schema.get("enum", [schema.get("const", "null")])])
    if schema["type"] == "array":
        return f"list of {_kind(name, schema['items'])}"
    if schema["type"] == "integer" and name.endswith(("_ns", "_bytes")):
        return ("duration" if name.endswith("_ns") else "size") + _range(name, schema)
    words = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "string": "text",
             "object": "mapping"}  # fmt: skip
    return words[schema["type"]] + _range(name, schema)


#: JSON schema's word for a bound, pydantic's (which stays behind a validator that runs first), and ours.
_BOUNDS = (("minimum", "ge", "from"), ("exclusiveMinimum", "gt", "above"), ("maximum", "le", "to"),
           ("exclusiveMaximum", "lt", "below"))  # fmt: skip


def _range(name: str, schema: dict[str, Any]) -> str:
    found = {word: schema.get(standard, schema.get(ours)) for standard, ours, word in _BOUNDS}
    if name.endswith(("_ns", "_bytes")) and found["from"] == 0:
        found["from"] = None  # goes without saying
    if found["from"]:
        found["above"] = None
    text = "".join(f" {word} {_spelt(name, bound)}" for word, bound in found.items() if bound is not None)
    return text if found["above"] is None else text.replace(" below ", " and below ")


def _spelt(name: str, value: Any) -> str:
    """``value`` as the file would have it."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, tuple):
        return json.dumps(value)
    if name.endswith("_ns"):
        return format_duration(value)
    if isinstance(value, float):
        return f"{value:g}"  # pydantic 2.9 makes 0.0 of a bound that is 0
    return format_size(value) if name.endswith("_bytes") else str(value)


def _default(name: str, field: FieldInfo) -> str:
    return "required" if field.is_required() else _spelt(name, field.default) or '""'


def _example(default: str, field: FieldInfo) -> str:
    return str(field.examples[0]) if field.examples else default
