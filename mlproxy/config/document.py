"""The YAML file as a document, with its ``${VARIABLES}`` replaced. **Effects**: reads the file."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from pathlib import Path as FilePath
from typing import Any

import yaml

from mlproxy.config.keys import Path
from mlproxy.config.sources import typed

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class Unreadable(Exception):
    """The file is no document; the message says why."""


def read(path: FilePath) -> dict[Any, Any]:
    """The document in ``path``."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        document = yaml.load(text, _Loader)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise Unreadable(f"line {line}: is not UTF-8: byte {error.object[error.start]:#04x}") from error
    except yaml.YAMLError as error:
        raise Unreadable(_where_and_why(error, text)) from error
    except RecursionError as error:
        raise Unreadable("is nested too deeply") from error
    if not isinstance(document, dict):
        what = "is empty; it" if document is None else "holds a list; it" if isinstance(document, list) else ""
        raise Unreadable(f"{what} must be a mapping with the keys server, admin, limits, logging, endpoints".lstrip())
    return document


class _TwiceError(yaml.MarkedYAMLError):
    """A key stands twice in one mapping."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key that stands twice; YAML forbids it, PyYAML lets the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in lines:
                    text = f"the key {key.value!r} stands twice, first in line {lines[key.value]}"
                    raise _TwiceError(problem=text, problem_mark=key.start_mark)
                lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def _where_and_why(error: yaml.YAMLError, text: str) -> str:
    """``line 7, column 3: is not YAML: …``"""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        why = f"{error.problem} {error.context or ''}".strip()
        if mark is not None:
            what = "" if isinstance(error, _TwiceError) else "is not YAML: "
            return f"line {mark.line + 1}, column {mark.column + 1}: {what}{why}"
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return f"line {line}: is not YAML: the character {chr(error.character)!r} is not allowed"
    return f"is not YAML: {' '.join(str(error).split())}"


def expand(value: Any, environment: Mapping[str, str], unset: dict[Path, str], at: Path = ()) -> Any:
    """Replace ``${NAME}`` and ``${NAME:-default}`` in every text; ``unset`` gets the paths where that failed."""
    if isinstance(value, dict):
        return {key: expand(item, environment, unset, (*at, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, environment, unset, (*at, index)) for index, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if name not in environment and default is None:
            unset[at] = f"${{{name}}} is not set in the environment; set it or write ${{{name}:-default}}"
            return match[0]
        return environment.get(name) or default or ""

    text = _VARIABLE.sub(replace, value)
    # A value that is nothing but a variable is typed as YAML would type it: `port: ${PORT:-8080}` is a number.
    return typed(text, at) if text and _VARIABLE.fullmatch(value) else text
