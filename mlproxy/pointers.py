"""JSON pointers (RFC 6901) as they are written. **Pure.**"""

from __future__ import annotations


def tokens_of(pointer: str) -> tuple[str, ...]:
    """``/a~1b/0`` → ``a/b``, ``0``; none for the whole text."""
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:])
