"""KServe v2 as its callers write it, with a backend's double that turns every row around, as text or as bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from hypothesis import strategies as st

from mlproxy.protocols import Answer, KServeV2
from mlproxy.testing.conformance import Dialect, Sent
from mlproxy.testing.json_reading import elements, members
from tests.property.dialects import said
from tests.property.tensor_worlds import ITEM_BYTES, Form, callers, signatures

INPUTS = ("x", "ids", 'a"b:[é')
#: So that requests have company in their batches.
FREQUENT = [
    [Form("x", "FP32", (2,), "flat"), Form("ids", "BYTES", (), "flat")],
    [Form("x", "BYTES", (2,), "binary", '"k": 1, '), Form("ids", "FP16", (3,), "binary")],
    [Form("x", "FP32", (2, 2), "nested"), Form("ids", "INT8", (1,), "binary")],
]


class Tensors(Dialect):
    """Tensors in JSON, flat or nested, and in binary."""

    codec = KServeV2()
    fragments = (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[', b'{"outputs":[{"name":"y",', b"]}]}")
    plain = None

    def callers(self) -> st.SearchStrategy[Sent]:
        signature = st.sampled_from(FREQUENT) | st.sampled_from(FREQUENT) | signatures(INPUTS)
        return signature.flatmap(callers).map(lambda caller: Sent(caller.body, caller.instances, caller.json_bytes))

    def reply(self, body: bytes, json_bytes: int, layout: None) -> Answer:
        end = json_bytes or len(body)
        beside = members(body[:end].decode())
        identity = beside.pop("id", None)
        head = f'"id":{identity},' if identity else ""
        position, texts, sections = end, [], []
        for one in elements(beside.pop("inputs")):
            tensor = _Read(members(one), body, position)
            position = tensor.end
            texts.append(tensor.written())
            sections.append(tensor.section())
        assert position == len(body), "bytes that belong to no tensor"
        text = f'{{{head}"beside":{said(beside)},"outputs":[{",".join(texts)}]}}'.encode()
        headers = b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n" % len(text)
        section = b"".join(sections)
        return headers if any('"binary_data_size"' in written for written in texts) else b"", text + section


class _Read:
    """A tensor of a body, and the output that belongs to it."""

    def __init__(self, fields: dict[str, str], body: bytes, position: int) -> None:
        self.name, self.datatype = json.loads(fields["name"]), json.loads(fields["datatype"])
        self.shape = [int(length) for length in elements(fields["shape"])]
        self.parameters = members(fields.get("parameters", "{}"))
        size = self.parameters.pop("binary_data_size", None)
        self.binary, self.nested, self.end = size is not None, False, position
        if size is not None:
            self.end = position + int(size)
            assert self.end <= len(body)
            flat: list[Any] = list(_sliced(body[position : self.end], self.datatype))
        else:
            flat = elements(fields["data"])
            self.nested = bool(flat) and flat[0].startswith("[")
            for length in self.shape[1:] if self.nested else ():
                inner = [elements(one) for one in flat]
                assert all(len(one) == length for one in inner)
                flat = [element for one in inner for element in one]
        assert len(flat) == prod(self.shape)
        step = prod(self.shape[1:])
        rows = [flat[first * step : (first + 1) * step][::-1] for first in range(self.shape[0])]
        self.flat = [element for row in rows for element in row]

    def written(self) -> str:
        """Its JSON."""
        name = json.dumps(f"{self.name} turned", ensure_ascii=False)
        own = [f"{json.dumps(key)}:{value}" for key, value in sorted(self.parameters.items())]
        if self.binary:
            own.append(f'"binary_data_size":{len(self.section())}')
        parameters = f',"parameters":{{{",".join(own)}}}' if own else ""
        shape = ",".join(map(str, self.shape))
        data = (
            ""
            if self.binary
            else f',"data":{self._nest(self.shape, self.flat) if self.nested else self._list(self.flat)}'
        )
        return f'{{"name":{name},"datatype":"{self.datatype}","shape":[{shape}]{parameters}{data}}}'

    def section(self) -> bytes:
        """Its binary data."""
        if not self.binary:
            return b""
        prefixed = self.datatype == "BYTES"
        return b"".join(struct.pack("<I", len(one)) + one if prefixed else one for one in self.flat)

    def _nest(self, shape: Sequence[int], flat: list[str]) -> str:
        if not shape:
            return flat[0]
        step = prod(shape[1:])
        return self._list([self._nest(shape[1:], flat[i * step : (i + 1) * step]) for i in range(shape[0])])

    @staticmethod
    def _list(items: Sequence[str]) -> str:
        return f"[{','.join(items)}]"


def _sliced(section: bytes, datatype: str) -> Iterator[bytes]:
    position = 0
    while position < len(section):
        size = ITEM_BYTES.get(datatype)
        if size is None:
            [size] = struct.unpack_from("<I", section, position)
            position += 4
        yield section[position : position + size]
        position += size
    assert position == len(section)
