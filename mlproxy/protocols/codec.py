"""What a protocol must be able to do. **Pure.**"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

import msgspec

#: Text that nobody changes: large ones are views of what the caller sent.
Text: TypeAlias = bytes | memoryview


class ParsedRequest(msgspec.Struct, frozen=True):
    """A request's instances, as the caller wrote them. (A Struct: made per request, in a fifth of a tuple's time.)"""

    items: Text  #: the instances' text, comma-joined: the inside of the array
    instances: int  #: how many, at least 1
    lane_key: bytes  #: equal exactly when requests may share a batch; holds what the batch says beside its instances
    bare: bool  #: one instance without an array around it, to be answered by one bare item


class SplitReply(NamedTuple):
    """A batch's reply, cut into its items; ``prefix`` and ``suffix`` are all that the backend wrote around them."""

    prefix: bytes
    items: list[bytes]
    suffix: bytes


class Codec(Protocol):
    """One protocol."""

    name: str

    def parse_request(self, text: bytes, start: int = 0) -> ParsedRequest:
        """Validate a caller's body, ``text`` from ``start`` on, and find its instances. Raises `BadRequest`."""

    def join(self, lane_key: bytes, items: Sequence[Text]) -> list[Text]:
        """Buffers that together are the body of a batch with these items."""

    def split_items(self, items: Text) -> list[bytes]:
        """The instances of one `ParsedRequest`, one by one."""

    def split_reply(self, body: bytes) -> SplitReply:
        """Cut a batch's reply. Raises `BackendContract`."""

    def render(self, reply: SplitReply, items: Sequence[bytes], bare: bool) -> bytes:
        """The answer of one caller, to whom these ``items`` of ``reply`` belong."""


def codec_for(protocol: str) -> Codec:
    """The codec of a configured protocol."""
    from mlproxy.protocols.json_list import JsonList
    from mlproxy.protocols.kserve_v1 import KServeV1

    codecs: dict[str, type[Codec]] = {"kserve-v1": KServeV1, "json-list": JsonList}
    return codecs[protocol]()
