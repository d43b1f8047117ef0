"""Where things stand in JSON, by Python's own decoder: it shares no code with the protocols that are tried. **Pure.**

Everything fails with ValueError or AssertionError unless the text is sound.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

_SPACE = " \t\r\n"
_value_at = json.JSONDecoder().raw_decode


def elements(array: str) -> list[str]:
    """The elements of an array, as they stand there."""
    found: list[str] = []

    def element(start: int) -> int:
        _, end = _value_at(array, start)
        found.append(array[start:end])
        return end

    _walk(array, "[]", element)
    return found


def members(text: str) -> dict[str, str]:
    """The values of an object, as they stand there; no key stands twice."""
    found: dict[str, str] = {}

    def member(start: int) -> int:
        key, colon = _value_at(text, start)
        assert isinstance(key, str)
        assert key not in found, "a key stands twice"
        start = _expect(text, colon, ":")
        _, end = _value_at(text, start)
        found[key] = text[start:end]
        return end

    _walk(text, "{}", member)
    return found


def meaning(text: str) -> Any:
    """A value, every number spelt as it was written, and every pair of an object in its place."""
    return json.loads(text, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=tuple)


def _walk(text: str, brackets: str, take: Callable[[int], int]) -> None:
    position = _expect(text, 0, brackets[0])
    if text[position : position + 1] != brackets[1]:
        position = _skip(text, take(position))
        while text[position : position + 1] == ",":
            position = _skip(text, take(_skip(text, position + 1)))
    assert _expect(text, position, brackets[1]) == len(text)


def _expect(text: str, position: int, character: str) -> int:
    """Behind that character, and what white space there is before and behind it."""
    position = _skip(text, position)
    assert text[position : position + 1] == character
    return _skip(text, position + 1)


def _skip(text: str, position: int) -> int:
    while text[position : position + 1] and text[position] in _SPACE:
        position += 1
    return position
