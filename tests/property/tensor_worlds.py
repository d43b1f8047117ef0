"""Callers and backends of KServe v2 as they might be, and a reader of their bodies that shares no code with the proxy.

An element is its JSON text, or its bytes where a tensor is binary; a row is a list of elements, in row-major order.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

from hypothesis import strategies as st

from mlproxy.testing.json_texts import commas, numbers, spaces, strings

ITEM_BYTES = {
    "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
    "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8,
}  # fmt: skip


class Form(NamedTuple):
    """A tensor without its rows."""

    name: str
    datatype: str
    tail: tuple[int, ...]
    style: str  # flat, nested, binary
    parameters: str = ""  # members with commas behind


class Tensor(NamedTuple):
    """A tensor."""

    form: Form
    rows: list[list[bytes]]


class Caller(NamedTuple):
    """A body, how much of it is JSON (0: all), and what it was made of."""

    body: bytes
    json_bytes: int
    tensors: list[Tensor]
    identity: str | None

    @property
    def instances(self) -> int:
        """Rows."""
        return len(self.tensors[0].rows)


def forms(names: Sequence[str]) -> st.SearchStrategy[Form]:
    """Any form of a tensor with one of these names."""
    return st.builds(
        Form,
        st.sampled_from(names),
        st.sampled_from([*ITEM_BYTES, "BYTES", "BYTES", "FP32"]),
        st.lists(st.sampled_from([1, 2, 3, 0]), max_size=2).map(tuple),
        st.sampled_from(["flat", "nested", "binary"]),
        st.sampled_from(["", "", '"k": {"a": [1]}, ']),
    )


def signatures(names: Sequence[str]) -> st.SearchStrategy[list[Form]]:
    """Forms of tensors with different names."""
    return st.lists(forms(names), min_size=1, max_size=3, unique_by=lambda form: form.name)


@st.composite
def elements(draw: st.DrawFn, form: Form) -> bytes:
    """One element."""
    if form.style == "binary":
        size = ITEM_BYTES.get(form.datatype)
        return draw(st.binary(min_size=size, max_size=size) if size else st.binary(max_size=5))
    return draw(strings() if form.datatype == "BYTES" else numbers | st.sampled_from([b"true", b"NaN", b"null"]))


@st.composite
def tensors(draw: st.DrawFn, form: Form, count: int) -> Tensor:
    """A tensor with ``count`` rows."""
    size = prod(form.tail)
    return Tensor(form, [[draw(elements(form)) for _ in range(size)] for _ in range(count)])


def _nested(draw: st.DrawFn, shape: Sequence[int], flat: list[bytes]) -> bytes:
    if not shape:
        return flat[0]
    step = len(flat) // shape[0] if shape[0] else 0
    inner = [_nested(draw, shape[1:], flat[i * step : (i + 1) * step]) for i in range(shape[0])]
    return b"[%b]" % commas(draw, inner)


@st.composite
def written(draw: st.DrawFn, tensor: Tensor, said: Sequence[int] | None = None) -> tuple[bytes, bytes]:
    """A tensor's JSON, which says that its shape is ``said`` (by default what it is), and its binary section."""
    form, flat = tensor.form, [element for row in tensor.rows for element in row]
    shape = [len(tensor.rows), *form.tail]
    section = b""
    members = [
        b'"name":%b%b' % (draw(spaces), json.dumps(form.name).encode()),
        b'"shape" :%b' % json.dumps(list(said or shape)).encode(),
        b'"datatype":"%b"' % form.datatype.encode(),
    ]
    parameters = form.parameters
    if form.style == "binary":
        prefixed = form.datatype == "BYTES"
        section = b"".join(struct.pack("<I", len(one)) + one if prefixed else one for one in flat)
        parameters += f'"binary_data_size":{len(section)}, '
    elif form.style == "nested":
        members.append(b'"data":%b' % _nested(draw, shape, flat))
    else:
        members.append(b'"data":%b[%b]' % (draw(spaces), commas(draw, flat)))
    if parameters:
        members.append(b'"parameters":{%b}' % parameters.rstrip(" ,").encode())
    return b"{%b}" % commas(draw, draw(st.permutations(members))), section


#: What a request may say beside its inputs; each is a lane.
BESIDE = [
    [], [b'"outputs":[{"name":"y","parameters":{"binary_data":true}}]'],
    [b'"parameters":{"binary_data_output":true}', b'"more": [":"]'],
]  # fmt: skip


@st.composite
def bodies(
    draw: st.DrawFn, key: str, own: Sequence[Tensor], beside: Sequence[bytes], identity: str | None
) -> tuple[bytes, int]:
    """A body, and how much of it is JSON (0: all)."""
    texts = [draw(written(tensor)) for tensor in own]
    members = [b'"%b": [%b]' % (key.encode(), commas(draw, [text for text, _ in texts])), *beside]
    if identity is not None:
        members.append(b'"id":%b' % json.dumps(identity).encode())
    text = draw(spaces) + b"{%b}" % commas(draw, draw(st.permutations(members))) + draw(spaces)
    section = b"".join(section for _, section in texts)
    binary = any(tensor.form.style == "binary" for tensor in own)
    return text + section, len(text) if binary or draw(st.booleans()) else 0


@st.composite
def callers(draw: st.DrawFn, signature: Sequence[Form]) -> Caller:
    """A caller whose tensors have these forms."""
    count = draw(st.integers(1, 4))
    own = [draw(tensors(form, count)) for form in signature]
    identity = draw(st.none() | st.text(max_size=5).filter(lambda text: text.isprintable()))
    body, json_bytes = draw(bodies("inputs", own, draw(st.sampled_from(BESIDE)), identity))
    return Caller(body, json_bytes, own, identity)


# --- reading -------------------------------------------------------------------------------------------------------


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs), "a key stands twice"
    return dict(pairs)


def _flat(value: Any, shape: Sequence[int]) -> list[Any]:
    if not shape:
        assert not isinstance(value, list)
        return [value]
    assert len(value) == shape[0]
    return [one for inner in value for one in _flat(inner, shape[1:])]


class Read(NamedTuple):
    """A body as a backend or a client reads it: names, datatypes, tails and rows; and the other members."""

    tensors: dict[str, tuple[str, tuple[int, ...], list[list[Any]]]]
    others: dict[str, Any]


def read(body: bytes, json_bytes: int, key: str) -> Read:
    """Fails for anything but a sound body. Of JSON an element is the number's text, or the string."""
    end = json_bytes or len(body)
    others = json.loads(body[:end], parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=_once)
    position, found = end, {}
    for tensor in others.pop(key):
        shape = [int(length) for length in tensor["shape"]]
        if "data" in tensor:
            nested = bool(tensor["data"]) and isinstance(tensor["data"][0], list)
            flat = _flat(tensor["data"], shape if nested else [prod(shape)])
        else:
            size = int(tensor["parameters"]["binary_data_size"])
            flat = list(_cut(body[position : position + size], tensor["datatype"], prod(shape)))
            position += size
        step = prod(shape[1:])
        rows = [flat[i * step : (i + 1) * step] for i in range(shape[0])]
        found[tensor["name"]] = (tensor["datatype"], tuple(shape[1:]), rows)
    assert position == len(body), "bytes that belong to no tensor"
    return Read(found, others)


def _cut(section: bytes, datatype: str, count: int) -> list[bytes]:
    found, position = [], 0
    for _ in range(count):
        size = ITEM_BYTES.get(datatype)
        if size is None:
            [size] = struct.unpack_from("<I", section, position)
            position += 4
        found.append(section[position : position + size])
        position += size
    assert position == len(section)
    return found


def meaning(tensor: Tensor) -> tuple[str, tuple[int, ...], list[list[Any]]]:
    """What `read` finds of a tensor."""
    if tensor.form.style == "binary":
        rows: list[list[Any]] = list(tensor.rows)
    else:
        load = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).decode
        rows = [[load(element.decode()) for element in row] for row in tensor.rows]
    return tensor.form.datatype, tensor.form.tail, rows
