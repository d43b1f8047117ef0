"""The protocols of the differential test: what callers send, and how a model server reads and writes it. **Pure.**

What all have in common; the kinds are in `differential_json` and `differential_tensors`, listed by the test. Nothing
of the product is imported, so that the two sides do not share their mistakes. A model server writes JSON as the proxy
does, compactly and in one order, so that answers can be compared byte for byte; its prediction has a checksum of the
item's bytes, so that none can be altered on its way.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Message(NamedTuple):
    """A body, and how much of it is JSON where tensors follow in binary; else nothing."""

    json_bytes: str
    body: bytes


class Item(NamedTuple):
    """One instance of one request."""

    request: int
    poison: bool
    content: Any  #: for its protocol


class Kind(Protocol):
    """One protocol, from both sides."""

    name: str  #: of the endpoint, and the path of its backend
    protocol: str
    route: str

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of the endpoint, beside these and its backend."""

    def request(self, rng: random.Random, number: int, poison: bool) -> Message:
        """A caller's request, that nobody else sends."""

    def read(self, call: Message) -> list[Item]:
        """The items of a call. ValueError for anything but a sound one."""

    def write(self, call: Message, items: Sequence[Item]) -> Message:
        """The right reply, if these are the items of ``call``."""


def count_of(rng: random.Random) -> int:
    """How many instances a request has: mostly one, sometimes more than a batch takes."""
    return rng.choice((1, 1, 1, 1, 2, 3, rng.randint(4, 20)))
