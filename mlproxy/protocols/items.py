"""Replies that are an array with something around it: what protocols with one item per instance share. **Pure.**"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mlproxy.protocols.codec import JSON_HEADERS, BatchBody, Text
from mlproxy.protocols.json_slice import split_elements


class SplitReply(msgspec.Struct, frozen=True):
    """A batch's reply, cut into its items; ``prefix`` and ``suffix`` are all that the backend wrote around them."""

    prefix: bytes
    items: list[bytes]
    suffix: bytes

    @property
    def count(self) -> int:
        """One per instance."""
        return len(self.items)


class Elements:
    """The elements of an array, cut once."""

    __slots__ = ("_elements",)

    def __init__(self, elements: list[bytes]) -> None:
        self._elements = elements

    def __repr__(self) -> str:
        return f"<{len(self._elements)} elements>"

    def part(self, first: int, count: int) -> bytes:
        return b", ".join(self._elements[first : first + count])


def cut_items(items: Text) -> Elements:
    """The inside of an array, to be taken in parts."""
    return Elements(split_elements(b"".join((b"[", items, b"]"))))


def join_items(prefix: bytes, items: Sequence[Text], suffix: bytes) -> BatchBody:
    """A batch whose body is an array of all items."""
    buffers: list[Text] = [b", "] * (2 * len(items) + 1)
    buffers[0], buffers[-1] = prefix, suffix
    buffers[1::2] = items
    return BatchBody(JSON_HEADERS, buffers)


def own_items(pieces: Sequence[tuple[SplitReply, int, int]]) -> bytes:
    """The text of a caller's items: the inside of its array."""
    reply, first, count = pieces[0]
    if count == 1 and len(pieces) == 1:
        return reply.items[first]
    return b", ".join(list_items(pieces))


def list_items(pieces: Sequence[tuple[SplitReply, int, int]]) -> list[bytes]:
    """A caller's items."""
    return [item for reply, first, count in pieces for item in reply.items[first : first + count]]
