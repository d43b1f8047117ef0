"""A backend of any JSON: JSON pointers say where a body has its instances, and a reply its items. **Pure.**

What a body says around its instances is lane key: that of each object on the way to them in the order of its names,
so that requests that say the same in another order or layout share a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from mlproxy.errors import BackendContract, BadRequest
from mlproxy.pointers import tokens_of
from mlproxy.protocols.codec import Answer, BatchBody, ParsedRequest, Text, no_tensors
from mlproxy.protocols.compare import decoded
from mlproxy.protocols.frame import pack, unpack
from mlproxy.protocols.items import Elements, SplitReply, cut_items, join_items, list_items, own_items
from mlproxy.protocols.json_pointer import locate, step, whole
from mlproxy.protocols.json_slice import (
    JsonError,
    Span,
    count_elements,
    split_elements,
    split_members,
    tolerated,
)  # fmt: skip


class Custom:
    """The codec of one endpoint's ``request`` and ``response``.

    With ``wrap`` callers send one bare instance where the backend takes an array; with ``unwrap`` they get one bare
    item where it gives one. ``constants`` are members of every batch's body.
    """

    name = "custom"

    def __init__(
        self, items: str, reply_items: str, *, wrap: bool = False, unwrap: bool = False,
        constants: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self._items, self._tokens = items, tokens_of(items)
        self._reply_items, self._reply_tokens = reply_items, tokens_of(reply_items)
        self._wrap = wrap
        self._unwrap = unwrap
        self._constants = {key: orjson.dumps(value) for key, value in (constants or {}).items()}

    def parse_request(self, text: bytes, start: int = 0, json_bytes: int = 0) -> ParsedRequest:
        if json_bytes:
            raise no_tensors()
        body = text[start:]
        strict = tolerated(body)
        try:
            before, (first, last), behind = self._cut_out(body, strict)
            value = body[first:last]
            if self._wrap:
                return ParsedRequest(value, 1, pack((before, behind)))
            if not value.startswith(b"["):
                raise BadRequest(f"{self._place} must be an array of instances")
            count = count_elements(strict[first:last])
        except JsonError as error:
            raise BadRequest(f"the body is not valid JSON: {error}") from None
        if not count:
            raise BadRequest(f"{self._place} is empty; send at least one instance")
        return ParsedRequest(value[1:-1], count, pack((before, behind)))

    @property
    def _place(self) -> str:
        return f"`{self._items}`" if self._items else "the body"

    def _cut_out(self, body: bytes, strict: bytes) -> tuple[bytes, Span, bytes]:
        """Where the pointer leads, and what a batch says before and behind it. ``strict``: the body as `tolerated`."""
        start, end = whole(strict)
        if self._constants and strict[start : start + 1] != b"{":
            raise BadRequest("the body must be a JSON object")
        before, behind, constants = [], [], self._constants
        for token in self._tokens:
            text = strict[start:end]
            found = step(text, token)
            if found is None:
                raise BadRequest(f"`{self._items}` is missing")
            if text.startswith(b"{"):
                before.append(b"{%b%b: " % (_others(body[start:end], text, token, constants), orjson.dumps(token)))
                behind.append(b"}")
            else:
                before.append(body[start : start + found.start])
                behind.append(body[start + found.end : end])
            start, end, constants = start + found.start, start + found.end, {}
        return b"".join(before), Span(start, end), b"".join(reversed(behind))

    def join(self, lane_key: bytes, items: Sequence[Text]) -> BatchBody:
        before, behind = unpack(lane_key, 2)
        return join_items(b"".join((before, b"[")), items, b"".join((b"]", behind)))

    def cut(self, lane_key: bytes, items: Text) -> Elements:
        return cut_items(items)

    def split_reply(self, headers: bytes, body: bytes, asked: object = None) -> SplitReply:
        place = f"array at `{self._reply_items}`" if self._reply_items else "array"
        try:
            found = locate(body, self._reply_tokens)
            if found is None or body[found.start : found.start + 1] != b"[":
                raise BackendContract(f"the backend's reply has no {place}")
            start, end = found
            return SplitReply(body[: start + 1], split_elements(memoryview(body)[start:end]), body[end - 1 :])
        except JsonError as error:
            raise BackendContract(f"the backend's reply is not valid JSON: {error}") from None

    def render(self, pieces: Sequence[tuple[SplitReply, int, int]], own: bytes) -> Answer:
        reply = pieces[-1][0]
        if self._unwrap:
            return b"", b"%b%b%b" % (reply.prefix[:-1], own_items(pieces), reply.suffix[1:])
        return b"", b"%b%b%b" % (reply.prefix, own_items(pieces), reply.suffix)

    def values(self, pieces: Sequence[tuple[SplitReply, int, int]]) -> Any:
        return decoded(list_items(pieces))


def _others(text: bytes, strict: bytes, but: str, constants: dict[str, bytes]) -> bytes:
    """The other members of an object, with a comma behind each; a constant stands in for a member of its name."""
    members = {key: text[span.start : span.end] for key, span in split_members(strict).items()} | constants
    return b"".join([b"%b: %b, " % (orjson.dumps(key), value) for key, value in sorted(members.items()) if key != but])
