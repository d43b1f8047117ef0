"""A JSON array of instances in, an array of predictions out, as BentoML serves: ``[…]`` → ``[…]``. **Pure.**

A bare object is one instance, and its answer is one bare prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlproxy.errors import BackendContract, BadRequest
from mlproxy.protocols.codec import Answer, BatchBody, ParsedRequest, Text, no_tensors
from mlproxy.protocols.compare import decoded
from mlproxy.protocols.items import Elements, SplitReply, cut_items, join_items, list_items, own_items
from mlproxy.protocols.json_slice import (
    WHITESPACE,
    JsonError,
    check_utf8,
    check_value,
    count_elements,
    split_elements,
)  # fmt: skip

#: `ParsedRequest.own`: one instance without an array around it, to be answered by one bare item.
_BARE = b"1"


class JsonList:
    """All requests of an endpoint share one lane."""

    name = "json-list"

    def parse_request(self, text: bytes, start: int = 0, json_bytes: int = 0) -> ParsedRequest:
        if json_bytes:
            raise no_tensors()
        text = text[start:].strip(WHITESPACE)
        try:
            check_utf8(text)
            if text.startswith(b"{"):
                check_value(text)
                return ParsedRequest(text, 1, b"", _BARE)
            if not text.startswith(b"["):
                raise BadRequest("the body must be a JSON array of instances, or one object")
            count = count_elements(text)
        except JsonError as error:
            raise BadRequest(f"the body is not valid JSON: {error}") from None
        if not count:
            raise BadRequest("the array is empty; send at least one instance")
        return ParsedRequest(text[1:-1], count, b"")

    def join(self, lane_key: bytes, items: Sequence[Text]) -> BatchBody:
        return join_items(b"[", items, b"]")

    def cut(self, lane_key: bytes, items: Text) -> Elements:
        return cut_items(items)

    def split_reply(self, headers: bytes, body: bytes, asked: object = None) -> SplitReply:
        text = body.strip(WHITESPACE)
        if not text.startswith(b"["):
            raise BackendContract("the backend's reply is not a JSON array")
        try:
            return SplitReply(b"[", split_elements(text), b"]")
        except JsonError as error:
            raise BackendContract(f"the backend's reply is not valid JSON: {error}") from None

    def render(self, pieces: Sequence[tuple[SplitReply, int, int]], own: bytes) -> Answer:
        items = own_items(pieces)
        return b"", items if own else b"[%b]" % items

    def values(self, pieces: Sequence[tuple[SplitReply, int, int]]) -> Any:
        return decoded(list_items(pieces))
