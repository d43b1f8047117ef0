"""Identical requests of one batch share one place in its call. **Pure.**"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mlproxy.engine import Batch, Member, Piece
from mlproxy.protocols import Text


class Coalesced(NamedTuple):
    """A reply with fewer items than its batch has instances."""

    reply: Any
    places: dict[int, int]  #: index of a member's first item in it, by the index that it would have otherwise


def coalesce(batch: Batch, items: Sequence[Text]) -> tuple[list[Text], dict[int, int]]:
    """What to send of a batch with these items, ``batch.sent`` instances, and the places of `Coalesced`.

    What the same is, the engine was told by their twins, and counts by.
    """
    seen: dict[bytes | Member, int] = {}
    sent: list[Text] = []
    places: dict[int, int] = {}
    first = count = 0
    for member, text in zip(batch.members, items, strict=True):
        place = seen.setdefault(member.twin or member, count)
        if place == count:
            sent.append(text)
            count += member.count
        places[first] = place
        first += member.count
    return sent, places


def own_pieces(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces of an answer, where they are in the replies as they came."""
    return [
        (whole.reply, whole.places[first], count) if isinstance(whole, Coalesced) else (whole, first, count)
        for whole, first, count in pieces
    ]
