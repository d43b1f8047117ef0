"""KServe v1, which is also TF-Serving's row format: ``{"instances": […]}`` → ``{"predictions": […]}``. **Pure.**"""

from __future__ import annotations

import re
from collections.abc import Sequence

import orjson

from mlproxy.errors import BackendContract, BadRequest
from mlproxy.protocols.codec import ParsedRequest, SplitReply
from mlproxy.protocols.json_slice import (
    WHITESPACE,
    JsonError,
    Span,
    check_utf8,
    count_elements,
    split_elements,
    split_members,
)  # fmt: skip

_PLAIN_REQUEST = re.compile(rb'[ \t\n\r]*\{[ \t\n\r]*"instances"[ \t\n\r]*:[ \t\n\r]*\[')
_PLAIN_REPLY = re.compile(rb'[ \t\n\r]*\{[ \t\n\r]*"predictions"[ \t\n\r]*:[ \t\n\r]*\[')


def _plain_array(head: re.Pattern[bytes], body: bytes) -> Span | None:
    """The array of an object that looks as if it had only the one member in ``head``.

    If the array from the head's bracket to the last bracket of the body is well-formed by itself, and only a brace
    follows, then the body is exactly that object: no second member and no second key can hide in between.
    """
    match = head.match(body)
    end = body.rfind(b"]") + 1
    if match is None or body[end:].strip(WHITESPACE) != b"}":
        return None
    return Span(match.end() - 1, end)


class KServeV1:
    """Other top-level members (``signature_name``, ``parameters``) are kept, and separate lanes."""

    name = "kserve-v1"

    def parse_request(self, body: bytes) -> ParsedRequest:
        try:
            check_utf8(body)
            span = _plain_array(_PLAIN_REQUEST, body)
            if span is not None:
                try:
                    count = count_elements(memoryview(body)[span.start : span.end])
                except JsonError:
                    pass  # not plain after all, or malformed: the whole walk below tells, and says where
                else:
                    return _request(body, span, count, b"")
            return self._parse_whole(body)
        except JsonError as error:
            raise BadRequest(f"the body is not valid JSON: {error}") from None

    def join(self, lane_key: bytes, items: Sequence[bytes]) -> list[bytes]:
        return [b'{%b"instances": [' % lane_key, b", ".join(items), b"]}"]

    def split_items(self, items: bytes) -> list[bytes]:
        return split_elements(b"[%b]" % items)

    def split_reply(self, body: bytes) -> SplitReply:
        try:
            span = _plain_array(_PLAIN_REPLY, body)
            if span is not None:
                try:
                    return _reply(body, span)
                except JsonError:
                    pass  # as in parse_request
            span = split_members(body).get("predictions")
            if span is None or body[span.start : span.start + 1] != b"[":
                raise BackendContract("the backend's reply has no array `predictions`")
            return _reply(body, span)
        except JsonError as error:
            raise BackendContract(f"the backend's reply is not valid JSON: {error}") from None

    def render(self, reply: SplitReply, items: Sequence[bytes], bare: bool) -> bytes:
        return b"%b%b%b" % (reply.prefix, items[0] if len(items) == 1 else b", ".join(items), reply.suffix)

    def _parse_whole(self, body: bytes) -> ParsedRequest:
        if not body.lstrip(WHITESPACE).startswith(b"{"):
            if not body.strip(WHITESPACE):
                raise BadRequest('the body is empty; send {"instances": [...]}')
            raise BadRequest('the body must be a JSON object: {"instances": [...]}')
        members = split_members(body)
        span = members.pop("instances", None)
        if span is None:
            hint = "; columnar `inputs` are not supported, send rows in `instances`" if "inputs" in members else ""
            raise BadRequest(f"`instances` is missing{hint}")
        if body[span.start : span.start + 1] != b"[":
            raise BadRequest("`instances` must be an array")
        count = count_elements(memoryview(body)[span.start : span.end])
        key = b"".join(
            b"%b: %b, " % (orjson.dumps(name), body[other.start : other.end]) for name, other in sorted(members.items())
        )
        return _request(body, span, count, key)


def _request(body: bytes, array: Span, count: int, lane_key: bytes) -> ParsedRequest:
    if not count:
        raise BadRequest("`instances` is empty; send at least one instance")
    return ParsedRequest(body[array.start + 1 : array.end - 1], count, lane_key, False)


def _reply(body: bytes, array: Span) -> SplitReply:
    items = split_elements(memoryview(body)[array.start : array.end])
    return SplitReply(body[: array.start + 1], items, body[array.end - 1 :])
