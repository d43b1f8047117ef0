"""A model server of KServe v2 for tests, and what callers send it. **Pure**, but for the replies it sends.

Every output belongs to an input and is computed row by row: numbers are doubled, strings get a mark. Like the backend
itself it imports nothing of the product, and it reads and writes tensors with NumPy.
"""

from __future__ import annotations

import json
import struct
from math import prod
from typing import Any, NamedTuple

import numpy as np

from tests.system.backends import Exchange
from tests.system.raw_http import Response, request
from tests.system.received import Recorded

MODEL = "/v2/models/iris"
DTYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8", "INT8": "i1", "INT16": "i2",
    "INT32": "i4", "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8",
}  # fmt: skip
LENGTH = "inference-header-content-length"
_NAMES = {np.dtype(code): name for name, code in DTYPES.items()}


class Message(NamedTuple):
    """A body that was read: its JSON, and its tensors by name."""

    document: dict[str, Any]
    tensors: dict[str, Any]  #: arrays


def read_message(body: bytes, json_bytes: str | None, key: str) -> Message:
    """ValueError for anything but a sound body."""
    end = int(json_bytes) if json_bytes else len(body)
    document = json.loads(body[:end])
    tensors, position = {}, end
    for tensor in document[key]:
        shape, datatype = tensor["shape"], tensor["datatype"]
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            flat = np.array(tensor["data"], dtype=DTYPES.get(datatype, object))
        else:
            section, position = body[position : position + size], position + size
            flat = _from_bytes(section, datatype, prod(shape))
        tensors[tensor["name"]] = flat.reshape(shape)
    if position != len(body):
        raise ValueError(f"{len(body) - position} bytes are left over")
    return Message(document, tensors)


def _from_bytes(section: bytes, datatype: str, count: int) -> Any:
    if datatype != "BYTES":
        return np.frombuffer(section, dtype=DTYPES[datatype])
    elements, position = [], 0
    for _ in range(count):
        [size] = struct.unpack_from("<I", section, position)
        elements.append(section[position + 4 : position + 4 + size].decode())
        position += 4 + size
    if position != len(section):
        raise ValueError("BYTES that do not fill their section")
    return np.array(elements, dtype=object)


def _to_bytes(array: Any) -> bytes:
    if array.dtype != object:
        return bytes(array.tobytes())
    return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in array.reshape(-1))


def write_message(key: str, tensors: dict[str, Any], binary: set[str], **members: Any) -> tuple[bytes, str | None]:
    """A body, and how much of it is JSON where tensors follow in binary."""
    listed, sections = [], []
    for name, array in tensors.items():
        tensor: dict[str, Any] = {
            "name": name,
            "shape": list(array.shape),
            "datatype": _NAMES.get(array.dtype, "BYTES"),
        }
        if name in binary:
            sections.append(_to_bytes(array))
            tensor["parameters"] = {"binary_data_size": len(sections[-1])}
        else:
            tensor["data"] = array.reshape(-1).tolist()
        listed.append(tensor)
    text = json.dumps({**members, key: listed}).encode()
    return text + b"".join(sections), str(len(text)) if sections else None


def infer(
    tensors: dict[str, Any], *, binary: bool = False, path: str = f"{MODEL}/infer", headers: tuple[str, ...] = (),
    **members: Any,
) -> bytes:  # fmt: skip
    """A caller's request."""
    body, json_bytes = write_message("inputs", tensors, set(tensors) if binary else set(), **members)
    lengths = (f"Inference-Header-Content-Length: {json_bytes}",) if json_bytes else ()
    return request("POST", path, (*lengths, *headers), body)


def answer_of(response: Response) -> Message:
    """What a caller reads."""
    assert response.status == 200, response
    json_bytes = response.header(LENGTH)
    assert response.header("content-type") == ("application/octet-stream" if json_bytes else "application/json")
    return read_message(response.body, json_bytes, "outputs")


def batch_of(recorded: Recorded) -> Message:
    """What the backend got."""
    return read_message(bytes(recorded.body), recorded.header(LENGTH), "inputs")


def computed(array: Any) -> Any:
    """The output that belongs to an input."""
    return np.array([f"<{text}>" for text in array.reshape(-1)], dtype=object).reshape(array.shape) if (
        array.dtype == object
    ) else array + array  # fmt: skip


def serve(exchange: Exchange) -> None:
    """The right answer to a batch, and to questions about the model and its server."""
    recorded = exchange.request
    if recorded.method != "POST":
        exchange.reply(200, json.dumps(_about(recorded.target)).encode(), "Content-Type: application/json")
        return
    message = batch_of(recorded)
    document = message.document
    outputs = {f"{name}_out": computed(array) for name, array in message.tensors.items()}
    wanted = {one["name"]: one.get("parameters", {}) for one in document.get("outputs", [])}
    if wanted:
        outputs = {name: outputs[name] for name in wanted}
    by_default = document.get("parameters", {}).get("binary_data_output", False)
    binary = {name for name in outputs if wanted.get(name, {}).get("binary_data", by_default)}
    body, json_bytes = write_message("outputs", outputs, binary, model_name="iris", model_version="1")
    if json_bytes is None:
        exchange.reply(200, body, "Content-Type: application/json")
    else:
        lengths = f"Inference-Header-Content-Length: {json_bytes}"
        exchange.reply(200, body, "Content-Type: application/octet-stream", lengths)


def _about(target: str) -> dict[str, Any]:
    if target == "/v2":
        return {"name": "stub", "version": "1", "extensions": ["binary_tensor_data"]}
    if target == MODEL:
        tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
        return {"name": "iris", "versions": ["1"], "platform": "stub", "inputs": [tensor], "outputs": []}
    return {"ready": True, "live": True}
