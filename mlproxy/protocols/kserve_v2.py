"""KServe v2, the Open Inference Protocol: tensors, in JSON or in binary, batched along axis 0. **Pure.**

A request's rows are what a batch joins; everything else that it says is in its lane key, so that a batch can say it for
all. Its ``id`` and its time budget are its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import orjson

from mlproxy.errors import BackendContract, BadRequest
from mlproxy.protocols.codec import JSON_TYPE, LEAST_PRIORITY, Answer, BatchBody, ParsedRequest, Text
from mlproxy.protocols.compare import tensor_values
from mlproxy.protocols.frame import frame, unframe
from mlproxy.protocols.json_slice import JsonError
from mlproxy.protocols.tensor import Form, Sections, Tensor, join_members, read_tensor, with_commas
from mlproxy.protocols.tensor_data import Rows, Style, TensorError
from mlproxy.protocols.tensor_json import Body, check_requested, read_body, split_object
from mlproxy.units import NS_PER_US

_BINARY = b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n"
#: A reply has tensors in binary where callers asked for these, in whatever form they sent their own.
_ACCEPT = b"accept: application/json, application/octet-stream\r\n"
_JSON_BYTES = re.compile(rb"(?:^|\n)inference-header-content-length: *(\d{1,12})\r\n")
_LONGEST_TIMEOUT_US = 10**15  # 31 years; an instant must fit into a record

_integer = msgspec.json.Decoder(int).decode


class _Lane(msgspec.Struct, frozen=True, array_like=True):
    """What all requests of a batch have said alike."""

    version: str  #: of the model; empty: the backend's choice
    forms: tuple[Form, ...]
    rest: bytes  #: other members of the request, as JSON with a comma behind each


#: Lane keys up to here are kept decoded, for there are few at a time. What callers say may be as long as a body.
_KEPT_BYTES = 8192

_encode = msgspec.msgpack.Encoder().encode
_decode_key = msgspec.msgpack.Decoder(_Lane).decode
_kept = lru_cache(maxsize=256)(_decode_key)


def _decode(lane_key: bytes) -> _Lane:
    return _kept(lane_key) if len(lane_key) <= _KEPT_BYTES else _decode_key(lane_key)


class TensorReply(msgspec.Struct, frozen=True):
    """A batch's reply, its tensors not yet cut."""

    count: int  #: rows of every output
    head: bytes  #: the members beside outputs and id, as JSON with a comma behind each
    outputs: list[tuple[Form, Rows]]

    def forms(self) -> list[tuple[bytes, tuple[int, ...], Style]]:
        """Rows of replies that are equal in this can stand in one answer."""
        return [(form.members, form.tail, form.style) for form, _ in self.outputs]


class CutTensors:
    """The rows of a request's tensors, cut part by part: rows times tensors is a number that no body's size bounds."""

    __slots__ = ("_columns",)

    def __init__(self, columns: Sequence[Rows]) -> None:
        self._columns = columns

    def __repr__(self) -> str:
        return f"<CutTensors {self._columns!r}>"

    def part(self, first: int, count: int) -> bytes:
        return frame(count, [column.pick(first, count) for column in self._columns])


class KServeV2:
    """One codec for each version of a model that a path may name."""

    name = "kserve-v2"

    def __init__(self, version: str = "") -> None:
        self._version = version

    def parse_request(self, text: bytes, start: int = 0, json_bytes: int = 0) -> ParsedRequest:
        end = start + json_bytes if json_bytes else len(text)
        if end > len(text):
            raise BadRequest(f"inference-header-content-length: the body has {len(text) - start} bytes only")
        try:
            return self._parse(text[start:end], Sections(text, end))
        except JsonError as error:
            raise BadRequest(f"the body is not valid JSON: {error}") from None
        except TensorError as error:
            raise BadRequest(str(error)) from None

    def _parse(self, text: bytes, sections: Sections) -> ParsedRequest:
        body = read_body(text, "inputs")
        members = body.members
        identity = members.pop("id", b"")
        if identity and not identity.startswith(b'"'):
            raise BadRequest("`id` must be a string")
        tensors = _tensors(body, "inputs", sections)
        counts = {tensor.count for tensor in tensors}
        if len(counts) > 1:
            what = f"{min(counts)} and {max(counts)}"
            raise BadRequest(f"all inputs must have the same first dimension, which is what is batched, not {what}")
        check_requested(members.get("outputs", b"[]"))
        timeout_ns, priority = _take_own_parameters(members)
        lane = _Lane(self._version, tuple([tensor.form for tensor in tensors]), with_commas(members))
        count = counts.pop()
        items = frame(count, [tensor.data for tensor in tensors])
        return ParsedRequest(items, count, _encode(lane), identity, timeout_ns, priority)

    def join(self, lane_key: bytes, items: Sequence[Text]) -> BatchBody:
        lane = _decode(lane_key)
        total, columns = 0, [[] for _ in lane.forms]  # type: tuple[int, list[list[Text]]]
        for one in items:
            count, data = unframe(one, len(columns))
            total += count
            for column, piece in zip(columns, data, strict=True):
                column.append(piece)
        text, behind = _write(b"{%b" % lane.rest, b"inputs", total, lane.forms, columns)
        headers = _BINARY % _size_bytes(text) if behind else JSON_TYPE
        return BatchBody(headers + _ACCEPT, text + behind, lane.version)

    def cut(self, lane_key: bytes, items: Text) -> CutTensors:
        forms = _decode(lane_key).forms
        count, data = unframe(items, len(forms))
        return CutTensors([form.rows(count, piece) for form, piece in zip(forms, data, strict=True)])

    def split_reply(self, headers: bytes, body: bytes, asked: object = None) -> TensorReply:
        found = _JSON_BYTES.search(headers)
        end = int(found[1]) if found else len(body)
        if end > len(body):
            raise BackendContract(f"the backend's reply has {len(body)} bytes, and says that {end} are JSON")
        try:
            read = read_body(body[:end], "outputs")
            tensors = _tensors(read, "outputs", Sections(body, end))
        except (JsonError, TensorError) as error:
            raise BackendContract(f"the backend's reply is not one of KServe v2: {error}") from None
        counts = {tensor.count for tensor in tensors}
        if len(counts) > 1:
            raise BackendContract("the backend's outputs do not all have the batch as their first dimension")
        read.members.pop("id", None)  # of nobody's request
        outputs = [(tensor.form, tensor.form.rows(tensor.count, tensor.data)) for tensor in tensors]
        return TensorReply(counts.pop(), with_commas(read.members), outputs)

    def render(self, pieces: Sequence[tuple[TensorReply, int, int]], own: bytes) -> Answer:
        reply = pieces[-1][0]
        forms = [form for form, _ in reply.outputs]
        if len(pieces) > 1 and not _are_alike([other.forms() for other, _, _ in pieces]):
            raise BackendContract("the backend answered the parts of this request with different outputs")
        columns: list[list[Text]] = [[] for _ in forms]
        for other, first, count in pieces:
            for column, (_, rows) in zip(columns, other.outputs, strict=True):
                column.append(rows.pick(first, count))
        head = b'{"id":%b,%b' % (own, reply.head) if own else b"{%b" % reply.head
        text, behind = _write(head, b"outputs", sum([count for _, _, count in pieces]), forms, columns)
        return _BINARY % _size_bytes(text) if behind else b"", b"".join(text + behind)

    def values(self, pieces: Sequence[tuple[TensorReply, int, int]]) -> Any:
        forms = [form for form, _ in pieces[0][0].outputs]
        rows = [[reply.outputs[at][1].pick(first, count) for reply, first, count in pieces] for at in range(len(forms))]
        return [_values(form, column) for form, column in zip(forms, rows, strict=True)]


def _values(form: Form, rows: Sequence[Text]) -> Any:
    binary = form.style is Style.BINARY
    data = (b"" if binary else b",").join([piece for piece in rows if piece])
    said = orjson.loads(b"{%b}" % form.members.rstrip(b","))
    return [said, form.tail, tensor_values(said["datatype"], data, binary=binary)]


def _are_alike(values: Sequence[object]) -> bool:
    return all(value == values[0] for value in values)


def _tensors(body: Body, key: str, sections: Sections) -> list[Tensor]:
    tensors = [read_tensor(fields, sections) for fields in body.tensors]
    if not tensors:
        raise TensorError(f"`{key}` is empty")
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise TensorError(f"two of `{key}` have the same name")
    if sections.rest_bytes:
        raise TensorError(f"{sections.rest_bytes} bytes more follow than the tensors of `{key}` have")
    return tensors


def _take_own_parameters(members: dict[str, bytes]) -> tuple[int, int]:
    """What is one request's own leaves its parameters: its time budget in ns and its priority; 0: none."""
    parameters = split_object(members.pop("parameters", b"{}"))
    if "sequence_id" in parameters:
        raise BadRequest("sequence_id: requests of a sequence cannot be batched with others")
    timeout_us = _take_number(parameters, "timeout", "a number of microseconds")
    priority = _take_number(parameters, "priority", "a whole number from 0: 1 is the most urgent, 0 as usual")
    if parameters:
        members["parameters"] = b"{%b}" % join_members(parameters)
    return min(timeout_us, _LONGEST_TIMEOUT_US) * NS_PER_US, min(priority, LEAST_PRIORITY)


def _take_number(parameters: dict[str, bytes], name: str, what: str) -> int:
    text = parameters.pop(name, None)
    if text is None:
        return 0
    try:
        number = _integer(text)
    except msgspec.DecodeError:
        number = -1
    if number < 0:
        raise BadRequest(f"parameters.{name} must be {what}")
    return number


def _write(
    head: bytes, key: bytes, count: int, forms: Sequence[Form], columns: Sequence[list[Text]]
) -> tuple[list[Text], list[Text]]:
    """A whole body: the buffers of its JSON, and those behind it. Data is copied once, when they go out."""
    text: list[Text] = [b'%b"%b":[' % (head, key)]
    behind: list[Text] = []
    for form, column in zip(forms, columns, strict=True):
        own, sections = form.write(count, column)
        text += own
        text.append(b",")
        behind += sections
    text[-1] = b"]}"
    return text, behind


def _size_bytes(buffers: Sequence[Text]) -> int:
    return sum([len(buffer) for buffer in buffers])
