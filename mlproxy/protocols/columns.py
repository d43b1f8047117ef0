"""TF-Serving's column format: ``{"inputs": …}`` → ``{"outputs": …}``, an array for each name. **Pure.**

The batch is the first dimension of every array, so each name is a column of rows: batches join them name by name, and
each caller gets its rows of every output. A bare array in place of the object is one column without a name. Nothing
but the outermost brackets of a column is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from mlproxy.errors import BackendContract, BadRequest
from mlproxy.protocols.codec import JSON_HEADERS, BatchBody, ParsedRequest, Text
from mlproxy.protocols.compare import decoded
from mlproxy.protocols.frame import frame, unframe
from mlproxy.protocols.json_slice import Span, count_elements, split_elements, split_members, tolerated

#: Begins the lane key of columns; that of rows is empty, or begins with a quotation mark.
MARK = b"\0"


class _Lane(msgspec.Struct, frozen=True, array_like=True):
    """What all requests of a batch have said alike."""

    rest: bytes  #: other members of the request, as JSON with a comma behind each
    names: tuple[str, ...]  #: in the order of the alphabet, not in the caller's
    bare: bool  #: one column without a name


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Lane).decode


class ColumnReply(msgspec.Struct, frozen=True):
    """A batch's reply, each of its outputs cut into rows; ``around`` is what stands before, between and behind them."""

    names: tuple[str, ...]
    columns: list[list[bytes]]
    around: list[bytes]

    @property
    def count(self) -> int:
        """Rows of every output."""
        return len(self.columns[0])


class CutColumns:
    """The rows of a request's columns, cut once."""

    __slots__ = ("_columns",)

    def __init__(self, columns: list[list[bytes]]) -> None:
        self._columns = columns

    def __repr__(self) -> str:
        return f"<{len(self._columns)} columns of {len(self._columns[0])} rows>"

    def part(self, first: int, count: int) -> bytes:
        return frame(count, [b", ".join(column[first : first + count]) for column in self._columns])


def parse_columns(body: bytes, strict: bytes, inputs: Span, rest: bytes) -> ParsedRequest:
    """A request whose member ``inputs`` stands there, and which says ``rest`` beside it.

    ``strict`` is the body as `tolerated`. `JsonError` for a name that stands twice.
    """
    start, text = inputs.start, strict[inputs.start : inputs.end]
    if text.startswith(b"["):
        spans = [("", Span(0, len(text)))]
    elif text.startswith(b"{"):
        spans = sorted(split_members(text).items())
    else:
        raise BadRequest("`inputs` must be an array, or an object of named arrays")
    counts = {_count(name, text[span.start : span.end]) for name, span in spans}
    if len(counts) != 1 or 0 in counts:
        raise BadRequest(_why_not(counts))
    lane = _Lane(rest, tuple([name for name, _ in spans]), text.startswith(b"["))
    [count] = counts
    insides = [body[start + span.start + 1 : start + span.end - 1] for _, span in spans]
    return ParsedRequest(frame(count, insides), count, MARK + _encode(lane))


def _count(name: str, array: bytes) -> int:
    if not array.startswith(b"["):
        raise BadRequest(f"`inputs`: {name[:64]!r} must be an array, with the batch as its first dimension")
    return count_elements(array)


def _why_not(counts: set[int]) -> str:
    if len(counts) > 1:
        what = f"{min(counts)} and {max(counts)}"
        return f"all `inputs` must have the same first dimension, which is what is batched, not {what}"
    return "`inputs` is empty; send at least one row"


def join_columns(lane_key: bytes, items: Sequence[Text]) -> BatchBody:
    """A batch of requests with the same names; its reply is one with columns too."""
    lane = _decode(lane_key[1:])
    columns: list[list[Text]] = [[] for _ in lane.names]
    for one in items:
        for column, piece in zip(columns, unframe(one, len(columns))[1], strict=True):
            column.extend((b", ", piece))
    buffers: list[Text] = [b'{%b"inputs": ' % lane.rest, b"" if lane.bare else b"{"]
    for name, column in zip(lane.names, columns, strict=True):
        column[0] = b"[" if lane.bare else orjson.dumps(name) + b": ["
        buffers += column
        buffers.append(b"], ")
    buffers[-1] = b"]}" if lane.bare else b"]}}"
    return BatchBody(JSON_HEADERS, buffers, asked=True)


def cut_columns(lane_key: bytes, items: Text) -> CutColumns:
    """A request's rows, to be taken in parts."""
    _, columns = unframe(items, len(_decode(lane_key[1:]).names))
    return CutColumns([split_elements(b"".join((b"[", column, b"]"))) for column in columns])


def split_column_reply(body: bytes) -> ColumnReply:
    """Cut the reply to a batch of columns. `JsonError` where it is no JSON."""
    strict = tolerated(body)
    outputs = split_members(strict).get("outputs")
    text = b"" if outputs is None else strict[outputs.start : outputs.end]
    if outputs is None or not text.startswith((b"[", b"{")):
        raise BackendContract("the backend's reply has no `outputs` that are an array, or an object of named arrays")
    spans = {"": Span(0, len(text))} if text.startswith(b"[") else split_members(text)
    columns: list[list[bytes]] = []
    around, position = [], 0
    for name, span in spans.items():
        start, end = outputs.start + span.start, outputs.start + span.end
        if body[start : start + 1] != b"[":
            raise BackendContract(f"the backend's output {name[:64]!r} does not have the batch as its first dimension")
        columns.append(split_elements(memoryview(body)[start:end]))
        around.append(body[position : start + 1])
        position = end - 1
    if len({len(column) for column in columns}) != 1:
        raise BackendContract("the backend's outputs do not all have the batch as their first dimension")
    return ColumnReply(tuple(spans), columns, [*around, body[position:]])


def column_values(pieces: Sequence[tuple[ColumnReply, int, int]]) -> dict[str, list[Any]]:
    """A caller's rows of every output, as values; `ValueError` where they are none in JSON."""
    return {
        name: decoded([row for reply, first, count in pieces for row in reply.columns[index][first : first + count]])
        for index, name in enumerate(pieces[0][0].names)
    }


def render_columns(pieces: Sequence[tuple[ColumnReply, int, int]]) -> bytes:
    """A caller's rows of every output, inside what the backend wrote around them."""
    reply = pieces[-1][0]
    if any(other.names != reply.names for other, _, _ in pieces):
        raise BackendContract("the backend answered the parts of this request with different outputs")
    text = [reply.around[0]]
    for index, behind in enumerate(reply.around[1:]):
        rows = [row for other, first, count in pieces for row in other.columns[index][first : first + count]]
        text += (b", ".join(rows), behind)
    return b"".join(text)
