"""Tensors for the differential test, as KServe v2's callers and model servers write them. **Pure.**"""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, ClassVar, TypeAlias

from tests.system.differential_kinds import Item, Message, count_of

#: Name, datatype, shape, values.
_Tensor: TypeAlias = tuple[str, str, list[int], Any]
_FORMATS = {"FP32": "f", "INT64": "q", "UINT8": "B"}


class KServeV2:
    """Tensors of a few forms. Every output is computed row by row; strings are BYTES."""

    protocol = "kserve-v2"
    settings: ClassVar[Mapping[str, Any]] = {}
    binary: ClassVar[bool] = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.route = f"/v2/models/{name}/infer"

    def request(self, rng: random.Random, number: int, poison: bool) -> Message:
        count, datatype = count_of(rng), rng.choice(tuple(_FORMATS))
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
