"""A tensor of the Open Inference Protocol, in a request or in a reply: read, checked, and written with other rows.
**Pure.**
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import msgspec
import orjson

from mlproxy.protocols.codec import Text
from mlproxy.protocols.json_slice import JsonError
from mlproxy.protocols.tensor_data import ITEM_BYTES, Rows, Style, TensorError, has_shape, row_ends, style_of

#: As many as NumPy's.
_MOST_DIMENSIONS = 64
#: So that a number of rows fits into a record, and a product of sizes is soon reckoned.
_LONGEST_DIMENSION = 2**31 - 1

#: Of what a caller wrote, in a sentence to that caller.
_LONGEST_QUOTED = 64

_integer = msgspec.json.Decoder(int).decode


class Sections:
    """What follows the JSON of a body, taken piece by piece."""

    def __init__(self, body: Text, start: int) -> None:
        self._body = memoryview(body)
        self._position = start

    def take(self, size_bytes: int) -> memoryview:
        """The next section."""
        start, self._position = self._position, self._position + size_bytes
        if self._position > len(self._body):
            said = str(size_bytes)[:_LONGEST_QUOTED]
            raise TensorError(f"{len(self._body) - start} bytes follow, not the {said} of its binary_data_size")
        return self._body[start : self._position]

    @property
    def rest_bytes(self) -> int:
        """How much nobody has taken."""
        return len(self._body) - self._position


class Form(msgspec.Struct, frozen=True, array_like=True):
    """All that a tensor says beside its rows: those of equal form can be joined along axis 0."""

    members: bytes  #: name, datatype and whatever nobody here knows, as JSON with commas behind
    parameters: bytes  #: those of the tensor, but for its binary_data_size, with commas between
    tail: tuple[int, ...]  #: the shape without axis 0
    style: Style
    item_bytes: int  #: in binary; 0: of the type BYTES

    def rows(self, count: int, data: Text) -> Rows:
        """So many rows of this form."""
        return Rows(self.style, self.item_bytes, prod(self.tail), count, data)

    def write(self, count: int, data: list[Text]) -> tuple[list[Text], list[Text]]:
        """A tensor whose rows are all of these: buffers of its JSON, and of what stands behind all JSON."""
        shape = b"%d%b" % (count, b"".join([b",%d" % length for length in self.tail]))
        if self.style is Style.BINARY:
            size_bytes = sum([len(piece) for piece in data])
            comma = b"," if self.parameters else b""
            text = b'{%b"shape":[%b],"parameters":{%b%b"binary_data_size":%d}}'
            return [text % (self.members, shape, self.parameters, comma, size_bytes)], data
        parameters = b'"parameters":{%b},' % self.parameters if self.parameters else b""
        pieces: list[Text] = [piece for piece in data if piece]
        buffers: list[Text] = [b","] * max(2, 2 * len(pieces) + 1)
        buffers[0], buffers[-1] = b'{%b"shape":[%b],%b"data":[' % (self.members, shape, parameters), b"]}"
        buffers[1:-1:2] = pieces
        return buffers, []


class Tensor(msgspec.Struct, frozen=True):
    """A tensor as it was read."""

    name: str
    form: Form
    count: int  #: rows
    data: Text  #: of all rows: the inside of the JSON array, or the binary section


class Fields(msgspec.Struct):
    """What the JSON of a tensor says, still to be checked."""

    name: str
    datatype: str
    shape: list[int]
    data: bytes  #: empty: none
    parameters: dict[str, bytes]
    others: dict[str, bytes]


def read_tensor(fields: Fields, sections: Sections) -> Tensor:
    """A tensor from what its JSON says and, where it has any, its binary section. `TensorError`, with its name."""
    try:
        return _read(fields, sections)
    except (TensorError, JsonError) as error:
        raise TensorError(f"tensor {fields.name[:_LONGEST_QUOTED]!r}: {error}") from None


def _read(fields: Fields, sections: Sections) -> Tensor:
    datatype, shape, parameters = fields.datatype, fields.shape, fields.parameters
    if datatype not in ITEM_BYTES:
        raise TensorError(f"datatype {datatype[:_LONGEST_QUOTED]!r} is none of {', '.join(ITEM_BYTES)}")
    if not 0 < len(shape) <= _MOST_DIMENSIONS or min(shape) < 0 or max(shape) > _LONGEST_DIMENSION or not shape[0]:
        most = f"{_MOST_DIMENSIONS} integers up to {_LONGEST_DIMENSION}"
        raise TensorError(f"its `shape` must be an array of 1 to {most}, the first of them (its rows) at least 1")
    size = parameters.pop("binary_data_size", b"")
    refuse_shared_memory(parameters)
    if (not fields.data) is (not size):
        raise TensorError("it needs either `data`, or `binary_data_size` in its parameters")
    if fields.data:
        style, data = _json_data(fields.data, shape)
    else:
        style, data = _binary_data(size, datatype, shape, sections)
    members = b'"name":%b,"datatype":"%b",%b' % (
        orjson.dumps(fields.name), datatype.encode(), with_commas(fields.others)
    )  # fmt: skip
    form = Form(members, join_members(parameters), tuple(shape[1:]), style, ITEM_BYTES[datatype])
    return Tensor(fields.name, form, shape[0], data)


def _json_data(array: bytes, shape: list[int]) -> tuple[Style, Text]:
    style = style_of(array)
    if not array.startswith(b"[") or not has_shape(array, style, shape):
        raise TensorError(f"its data is not an array of scalars with the shape {shape}, flat or nested")
    return style, array[1:-1] if prod(shape) or style is Style.NESTED else b""


def _binary_data(size: bytes, datatype: str, shape: list[int], sections: Sections) -> tuple[Style, Text]:
    try:
        size_bytes = _integer(size)
    except msgspec.DecodeError:
        size_bytes = -1
    item_bytes, elements = ITEM_BYTES[datatype], prod(shape)
    if size_bytes < 0 or (item_bytes and size_bytes != elements * item_bytes):
        needed = f"the {elements * item_bytes} bytes of {datatype} with the shape {shape}" if item_bytes else "a size"
        raise TensorError(f"its binary_data_size {size.decode()[:_LONGEST_QUOTED]} is not {needed}")
    section = sections.take(size_bytes)
    if not item_bytes:
        row_ends(section, 1, elements)
    return Style.BINARY, section


def refuse_shared_memory(parameters: Iterable[str]) -> None:
    """`TensorError` when a tensor is, or is wanted, in memory that client and server share."""
    if any(parameter.startswith("shared_memory") for parameter in parameters):
        raise TensorError("shared memory is not reached through a proxy; send the data")


def join_members(members: dict[str, bytes]) -> bytes:
    """The inside of an object with these members, in the order of their names."""
    return b",".join([b"%b:%b" % (orjson.dumps(name), value) for name, value in sorted(members.items())])


def with_commas(members: dict[str, bytes]) -> bytes:
    """`join_members`, with a comma behind if there are any."""
    return join_members(members) + b"," if members else b""
