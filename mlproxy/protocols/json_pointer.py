"""Where a JSON pointer leads (`mlproxy.pointers`): the place of one value in a text. **Pure.**

Each token is a pass over the value that the ones before it lead to; how many there may be, the configuration bounds.
"""

from __future__ import annotations

import re

from mlproxy.protocols.json_slice import (
    WHITESPACE,
    Span,
    check_utf8,
    check_value,
    element_span,
    split_members,
    tolerated,
)

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def step(text: bytes, token: str) -> Span | None:
    """Where one token leads in an object or an array; None: nowhere."""
    if text.startswith(b"{"):
        return split_members(text).get(token)
    if text.startswith(b"[") and _INDEX.fullmatch(token):
        return element_span(text, int(token))
    return None


def whole(text: bytes) -> Span:
    """Where a text's only value stands; `JsonError` unless it is one."""
    check_utf8(text)
    check_value(text)
    return Span(len(text) - len(text.lstrip(WHITESPACE)), len(text.rstrip(WHITESPACE)))


def locate(text: bytes, tokens: tuple[str, ...]) -> Span | None:
    """Where a value stands; None: nowhere. `JsonError` unless the text is JSON."""
    strict = tolerated(text)
    start, end = whole(strict)
    for token in tokens:
        found = step(strict[start:end], token)
        if found is None:
            return None
        start, end = start + found.start, start + found.end
    return Span(start, end)
