"""Embeddings as OpenAI's API has them: ``{"input": …}`` → ``{"data": […], "usage": {…}}``. **Pure.**

text-embeddings-inference, vLLM and llama.cpp speak it. An input is a text or a list of tokens. What the backend says it
used for a batch is divided over its callers in proportion to their inputs, so that their shares are whole numbers and
add up to exactly that.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgspec
import orjson

from mlproxy.errors import BackendContract, BadRequest
from mlproxy.protocols.codec import JSON_HEADERS, Answer, BatchBody, ParsedRequest, Text, no_tensors
from mlproxy.protocols.compare import decoded
from mlproxy.protocols.frame import frame, unframe
from mlproxy.protocols.json_slice import WHITESPACE, JsonError, Span, split_elements, split_members

#: Of one request; OpenAI takes 2,048. Lists of tokens are decoded to be counted: four million took 2.9 s.
_MOST_INPUTS = 65_536
_KINDS = "`input` must be a text, an array of texts, an array of tokens, or an array of arrays of tokens"
#: Begin a lane key: models tokenize texts, and take tokens as they are; an array has either.
_TEXTS, _TOKENS = b"t", b"i"

_texts = msgspec.json.Decoder(list[str]).decode
_tokens = msgspec.json.Decoder(list[int]).decode
_token_lists = msgspec.json.Decoder(list[list[int]]).decode
_integer = msgspec.json.Decoder(int).decode


class EmbeddingReply(msgspec.Struct, frozen=True):
    """A batch's reply: its items, and all that the backend wrote around them, but for the numbers of its usage."""

    items: list[tuple[bytes, bytes]]  #: in the order of the inputs; what stands before and behind each one's index
    around: list[bytes]  #: what stands before, between and behind `holes`
    holes: list[str | None]  #: a member of usage, or None: the items
    usage: dict[str, int]
    weights: Sequence[int]  #: of the first n inputs together, for each n from 0

    @property
    def count(self) -> int:
        """One per input."""
        return len(self.items)

    def share(self, member: str, first: int, count: int) -> int:
        """What so many inputs have used. Whole numbers that differ from the proportion by less than 1, and add up."""
        total, weights = self.usage.get(member, 0), self.weights
        return total * weights[first + count] // weights[-1] - total * weights[first] // weights[-1]


class CutInputs:
    """The inputs of a request with their weights, cut once."""

    __slots__ = ("_inputs", "_weights")

    def __init__(self, weights: memoryview, inputs: list[bytes]) -> None:
        self._weights = weights
        self._inputs = inputs

    def __repr__(self) -> str:
        return f"<{len(self._inputs)} inputs>"

    def part(self, first: int, count: int) -> bytes:
        last = first + count
        return frame(count, [self._weights[4 * first : 4 * last], b", ".join(self._inputs[first:last])])


class OpenAiEmbeddings:
    """Other members (``model``, ``dimensions``, ``encoding_format``, ``user``) are kept, and separate lanes."""

    name = "openai-embeddings"

    def parse_request(self, text: bytes, start: int = 0, json_bytes: int = 0) -> ParsedRequest:
        if json_bytes:
            raise no_tensors()
        body = text[start:].strip(WHITESPACE)
        if not body.startswith(b"{"):
            raise BadRequest('the body must be a JSON object: {"model": "...", "input": ["..."]}')
        try:
            members = split_members(body)
        except JsonError as error:
            raise BadRequest(f"the body is not valid JSON: {error}") from None
        span = members.pop("input", None)
        if span is None:
            raise BadRequest(f"`input` is missing; {_KINDS}")
        rest = [b"%b: %b, " % (orjson.dumps(key), body[one.start : one.end]) for key, one in sorted(members.items())]
        kind, weights, inside = _read(body[span.start : span.end])
        packed = struct.pack(f"<{len(weights)}I", *weights)
        return ParsedRequest(frame(len(weights), [packed, inside]), len(weights), b"".join((kind, *rest)))

    def join(self, lane_key: bytes, items: Sequence[Text]) -> BatchBody:
        buffers: list[Text] = []
        weights: list[int] = []
        for one in items:
            count, (packed, inside) = unframe(one, 2)
            weights += struct.unpack(f"<{count}I", packed)
            buffers += (b", ", inside)
        buffers[0] = b'{%b"input": [' % lane_key[1:]
        buffers.append(b"]}")
        return BatchBody(JSON_HEADERS, buffers, asked=weights)

    def cut(self, lane_key: bytes, items: Text) -> CutInputs:
        _, (packed, inside) = unframe(items, 2)
        return CutInputs(memoryview(packed), split_elements(b"".join((b"[", inside, b"]"))))

    def split_reply(self, headers: bytes, body: bytes, asked: Sequence[int] | None = None) -> EmbeddingReply:
        try:
            members = split_members(body)
            data = members.get("data")
            if data is None or body[data.start : data.start + 1] != b"[":
                raise BackendContract("the backend's reply has no array `data`")
            items = _in_order(split_elements(memoryview(body)[data.start : data.end]))
            usage = _numbers(body, members.get("usage"))
        except JsonError as error:
            raise BackendContract(f"the backend's reply is not valid JSON: {error}") from None
        holes: dict[Span, str | None] = {Span(data.start + 1, data.end - 1): None}
        holes.update({span: member for member, (span, _) in usage.items()})
        around, position = [], 0
        for span in sorted(holes):
            around.append(body[position : span.start])
            position = span.end
        return EmbeddingReply(
            items, [*around, body[position:]], [holes[span] for span in sorted(holes)],
            {member: number for member, (_, number) in usage.items()}, _weights(asked, len(items)),
        )  # fmt: skip

    def render(self, pieces: Sequence[tuple[EmbeddingReply, int, int]], own: bytes) -> Answer:
        reply = pieces[-1][0]
        text = [reply.around[0]]
        for member, behind in zip(reply.holes, reply.around[1:], strict=True):
            text += (_items_of(pieces) if member is None else _used_by(pieces, member), behind)
        return b"", b"".join(text)

    def values(self, pieces: Sequence[tuple[EmbeddingReply, int, int]]) -> Any:
        own = [item for reply, first, count in pieces for item in reply.items[first : first + count]]
        return decoded([b"0".join(around_index) for around_index in own])


def _read(value: bytes) -> tuple[bytes, list[int], bytes]:
    """The kind of an ``input``, the weight of each of its elements, and their text as the inside of an array."""
    inside = value[1:].lstrip(WHITESPACE)
    try:
        if value.startswith(b'"'):
            return _TEXTS, _sizes(_texts(b"[%b]" % value)), value
        if not value.startswith(b"["):
            raise BadRequest(_KINDS)
        if inside.startswith(b"["):
            if inside.count(b"[") > _MOST_INPUTS:
                raise BadRequest(f"more than {_MOST_INPUTS} elements in `input`")
            return _TOKENS, [len(tokens) for tokens in _token_lists(value)], value[1:-1]
        if not inside.startswith((b'"', b"]")):
            return _TOKENS, [len(_tokens(value))], value
        sizes = _sizes(_texts(value))
    except msgspec.DecodeError:
        raise BadRequest(_KINDS) from None
    if not sizes:
        raise BadRequest("`input` is empty; send at least one text")
    if len(sizes) > _MOST_INPUTS:
        raise BadRequest(f"more than {_MOST_INPUTS} elements in `input`")
    return _TEXTS, sizes, value[1:-1]


def _sizes(texts: list[str]) -> list[int]:
    """Bytes in UTF-8, which is nearer to tokens than characters are where scripts differ."""
    return list(map(len, map(str.encode, texts)))


def _weights(sizes: Sequence[int] | None, count: int) -> Sequence[int]:
    """Sums of the first weights; equal ones where nothing else is known, or all are of nothing."""
    if sizes is None or len(sizes) != count or not any(sizes):
        return range(max(count, 1) + 1)
    return [0, *accumulate(sizes)]


#: An index at either end of an item, which is where all servers write it. What ends an object belongs to it, and so
#: does what begins it; only whole keys stand between a comma and a colon.
_FIRST = re.compile(rb'\{\s*(?:"object"\s*:\s*"embedding"\s*,\s*)?"index"\s*:\s*(\d{1,9})\s*[,}]')
_LAST = re.compile(rb'[,{]\s*"index"\s*:\s*(\d{1,9})\s*(?:,\s*"object"\s*:\s*"embedding"\s*)?\}\Z')
_LAST_BYTES = 64


def _in_order(elements: list[bytes]) -> list[tuple[bytes, bytes]]:
    """What stands around the index of each element, in the order of their indexes."""
    found: dict[int, tuple[bytes, bytes]] = {}
    for element in elements:
        span = _index_of(element)
        index = -1 if span is None else _number(element[span.start : span.end])
        if span is None or index is None or not 0 <= index < len(elements) or index in found:
            raise BackendContract("the backend's `data` are not objects with an `index` each, from 0 on")
        found[index] = (element[: span.start], element[span.end :])
    return [found[index] for index in range(len(elements))]


def _index_of(element: bytes) -> Span | None:
    """Where a well-formed element says its index: found at its ends, in a third of the time of a walk over members."""
    if element.count(b'"index"') == 1:
        match = _FIRST.match(element) or _LAST.search(element, max(0, len(element) - _LAST_BYTES))
        if match is not None:
            return Span(*match.span(1))
    return split_members(element).get("index") if element.startswith(b"{") else None


def _numbers(body: bytes, usage: Span | None) -> dict[str, tuple[Span, int]]:
    """The whole numbers of ``usage``, and where they stand."""
    if usage is None or body[usage.start : usage.start + 1] != b"{":
        return {}
    text, numbers = body[usage.start : usage.end], {}
    for member, span in split_members(text).items():
        number = _number(text[span.start : span.end])
        if number is not None:
            numbers[member] = (Span(usage.start + span.start, usage.start + span.end), number)
    return numbers


def _number(text: bytes) -> int | None:
    try:
        return _integer(text)
    except msgspec.DecodeError:
        return None


def _items_of(pieces: Sequence[tuple[EmbeddingReply, int, int]]) -> bytes:
    """A caller's items, numbered from 0."""
    own = [item for reply, first, count in pieces for item in reply.items[first : first + count]]
    return b", ".join([b"%b%d%b" % (before, index, behind) for index, (before, behind) in enumerate(own)])


def _used_by(pieces: Sequence[tuple[EmbeddingReply, int, int]], member: str) -> bytes:
    return b"%d" % sum([reply.share(member, first, count) for reply, first, count in pieces])
