"""The protocols of the differential test: what callers send, and how a model server reads and writes it. **Pure.**

A further protocol is one more class in `KINDS`. Nothing of the product is imported, so that the two sides do not share
their mistakes. A model server writes JSON as the proxy does, compactly and in one order, so that answers can be
compared byte for byte; its prediction has a checksum of the item's bytes, so that none can be altered on its way.
"""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

from tests.system.received import instances_of


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

    def request(self, rng: random.Random, number: int, poison: bool) -> Message:
        """A caller's request, that nobody else sends."""

    def read(self, call: Message) -> list[Item]:
        """The items of a call. ValueError for anything but a sound one."""

    def write(self, call: Message, items: Sequence[Item]) -> Message:
        """The right reply, if these are the items of ``call``."""


def _count(rng: random.Random) -> int:
    """Mostly one, sometimes more than a batch takes."""
    return rng.choice((1, 1, 1, 1, 2, 3, rng.randint(4, 20)))


# --- JSON with an array of instances ---------------------------------------------------------------------------


def _instance(rng: random.Random, number: int, index: int, poison: bool) -> str:
    """As people write them: objects and arrays, spaces, numbers and strings that would not survive being decoded."""
    word = rng.choice(('"\\u00e9"', '"é"', "1.50", "-0.0", "1e3", "[[], {}]", "9007199254740993", '"],[\\""', "null"))
    first = f'{number}, "poison"' if poison else str(number)
    if rng.random() < 0.5:
        return f"[{first}, {index},{word}]"
    also = ', "poison" : [1]' if poison else ""
    return f'{{"request":{number} , "at": [{index}], "x":{word}{also}}}'


def _item(text: bytes) -> Item:
    value = json.loads(text)
    number = value["request"] if isinstance(value, dict) else value[0]
    return Item(number, "poison" in value, text)


def _predictions(items: Sequence[Item]) -> bytes:
    return b", ".join([b'{"of": %d, "crc": %d}' % (item.request, zlib.crc32(item.content)) for item in items])


class KServeV1:
    """Rows, with members beside them that separate lanes."""

    name, protocol, route = "v1", "kserve-v1", "/v1/models/v1:predict"

    def request(self, rng: random.Random, number: int, poison: bool) -> Message:
        count = _count(rng)
        at = rng.randrange(count)
        rows = ", ".join([_instance(rng, number, index, poison and index == at) for index in range(count)])
        beside = rng.choice(("", "", '"signature_name": "s", ', '"parameters":{"k":[1, 2.50]} ,'))
        return Message("", f'{{{beside}"instances": [{rows}]}}'.encode())

    def read(self, call: Message) -> list[Item]:
        return [_item(text) for text in instances_of(call.body)]

    def write(self, call: Message, items: Sequence[Item]) -> Message:
        signature = json.loads(call.body).get("signature_name", "")
        return Message("", b'{"predictions": [%b], "signature": "%b"}' % (_predictions(items), signature.encode()))


class JsonList:
    """An array, or a bare object, which is answered by a bare prediction."""

    name, protocol, route = "list", "json-list", "/list/predict"

    def request(self, rng: random.Random, number: int, poison: bool) -> Message:
        count = _count(rng)
        at = rng.randrange(count)
        rows = [_instance(rng, number, index, poison and index == at) for index in range(count)]
        bare = count == 1 and rows[0].startswith("{")
        return Message("", (rows[0] if bare else f"[{', '.join(rows)}]").encode())

    def read(self, call: Message) -> list[Item]:
        return [_item(text) for text in (instances_of(call.body) if call.body[:1] == b"[" else [call.body])]

    def write(self, call: Message, items: Sequence[Item]) -> Message:
        inside = _predictions(items)
        return Message("", inside if call.body[:1] == b"{" else b"[%b]" % inside)


# --- tensors ---------------------------------------------------------------------------------------------------

#: Name, datatype, shape, values.
_Tensor: TypeAlias = tuple[str, str, list[int], Any]
_FORMATS = {"FP32": "f", "INT64": "q", "UINT8": "B"}


class KServeV2:
    """Tensors of a few forms. Every output is computed row by row; strings are BYTES."""

    protocol = "kserve-v2"
    binary: ClassVar[bool] = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.route = f"/v2/models/{name}/infer"

    def request(self, rng: random.Random, number: int, poison: bool) -> Message:
        count, datatype = _count(rng), rng.choice(tuple(_FORMATS))
        at, width = rng.randrange(count), rng.choice((1, 3, 8))
        x = [rng.randrange(200) for _ in range(count * width)]
        words = [
            f"{number}.{index}" + "poison" * (poison and index == at) + "é" * (index % 3) for index in range(count)
        ]
        tensors = [("x", datatype, [count, width], x), ("word", "BYTES", [count], words)]
        members: dict[str, Any] = {"id": f"r{number}"} if rng.random() < 0.7 else {}
        if self.binary:
            members["parameters"] = {"binary_data_output": True}
        return self._message(members, "inputs", tensors)

    def read(self, call: Message) -> list[Item]:
        _, [(_, _, shape, x), (_, _, _, words)] = self._tensors(call, "inputs")
        width = prod(shape[1:])
        rows = [x[first : first + width] for first in range(0, len(x), width)]
        return [
            Item(int(word.partition(".")[0]), "poison" in word, (row, word))
            for row, word in zip(rows, words, strict=True)
        ]

    def write(self, call: Message, items: Sequence[Item]) -> Message:
        document, [(_, datatype, shape, _), _] = self._tensors(call, "inputs")
        x = [value for item in items for value in reversed(item.content[0])]
        words = [f"{item.content[1]} {zlib.crc32(repr(item.content).encode())}" for item in items]
        tensors = [("y", datatype, [len(items), *shape[1:]], x), ("said", "BYTES", [len(items), 1], words)]
        identity = {"id": document["id"]} if "id" in document else {}
        return self._message({**identity, "model_name": self.name}, "outputs", tensors)

    def _message(
        self, members: dict[str, Any], key: str, tensors: Sequence[tuple[str, str, list[int], Any]]
    ) -> Message:
        listed, sections = [], []
        for name, datatype, shape, values in tensors:
            tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
            if self.binary:
                sections.append(_packed(datatype, values))
                tensor["parameters"] = {"binary_data_size": len(sections[-1])}
            else:
                tensor["data"] = values
            listed.append(tensor)
        text = json.dumps({**members, key: listed}, separators=(",", ":"), ensure_ascii=False).encode()
        return Message(str(len(text)) if sections else "", text + b"".join(sections))

    def _tensors(self, message: Message, key: str) -> tuple[dict[str, Any], list[_Tensor]]:
        position = int(message.json_bytes or len(message.body))
        document = json.loads(message.body[:position])
        tensors = []
        for tensor in document[key]:
            datatype, shape = tensor["datatype"], tensor["shape"]
            if "data" in tensor:
                values = tensor["data"]
            else:
                start, position = position, position + tensor["parameters"]["binary_data_size"]
                values = _unpacked(datatype, message.body[start:position])
            if len(values) != prod(shape):
                raise ValueError(f"{len(values)} values of shape {shape}")
            tensors.append((tensor["name"], datatype, shape, values))
        if position != len(message.body):
            raise ValueError("bytes are left over")
        return document, tensors


class KServeV2Binary(KServeV2):
    """The same with the binary tensor extension, both ways."""

    binary = True


def _packed(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype == "BYTES":
        return b"".join([struct.pack("<I", len(text.encode())) + text.encode() for text in values])
    return struct.pack(f"<{len(values)}{_FORMATS[datatype]}", *values)


def _unpacked(datatype: str, section: bytes) -> list[Any]:
    if datatype != "BYTES":
        size = struct.calcsize(_FORMATS[datatype])
        return list(struct.unpack(f"<{len(section) // size}{_FORMATS[datatype]}", section))
    values, position = [], 0
    while position < len(section):
        [size] = struct.unpack_from("<I", section, position)
        values.append(section[position + 4 : position + 4 + size].decode())
        position += 4 + size
    return values


KINDS: tuple[Kind, ...] = (KServeV1(), JsonList(), KServeV2("v2"), KServeV2Binary("v2-binary"))
