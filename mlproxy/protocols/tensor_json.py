"""The JSON of KServe v2: its members and those of its tensors, whoever wrote them, and none of them twice. **Pure.**

Nearly every body has no members but the protocol's own, and no colons but theirs. One pass of the decoder reads it, and
a count tells that no key stood twice: a dropped member would leave a colon over. Whatever does not fit is read member
by member, which knows what is wrong with it. 2 µs instead of 14 for a request with one small tensor.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from mlproxy.protocols.json_slice import MOST_MEMBERS, WHITESPACE, check_utf8, split_elements, split_members
from mlproxy.protocols.tensor import Fields, refuse_shared_memory
from mlproxy.protocols.tensor_data import TensorError

_NONE = msgspec.Raw()
_NULL = b"null"
#: More than any model has; each takes several µs of a loop that others wait for.
_MOST_TENSORS = 1024


class Body(NamedTuple):
    """A request or a reply."""

    tensors: list[Fields]
    members: dict[str, bytes]  #: all others


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = _NONE
    parameters: msgspec.Raw = _NONE


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    id: msgspec.Raw = _NONE
    parameters: msgspec.Raw = _NONE


class _Request(_Message, forbid_unknown_fields=True, kw_only=True):
    inputs: list[_Tensor]
    outputs: msgspec.Raw = _NONE


class _Reply(_Message, forbid_unknown_fields=True, kw_only=True):
    outputs: list[_Tensor]
    model_name: msgspec.Raw = _NONE
    model_version: msgspec.Raw = _NONE


_OTHERS = {
    "inputs": ("id", "parameters", "outputs"), "outputs": ("id", "parameters", "model_name", "model_version"),
}  # fmt: skip
_decode = {"inputs": msgspec.json.Decoder(_Request).decode, "outputs": msgspec.json.Decoder(_Reply).decode}
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_string = msgspec.json.Decoder(str).decode
_integers = msgspec.json.Decoder(list[int]).decode


def read_body(text: bytes, key: str) -> Body:
    """A body whose tensors are in the member ``key``. `JsonError`, or `TensorError` for JSON of another kind."""
    check_utf8(text)
    return _read_plain(text, key) or _read_any(text, key)


def _read_plain(text: bytes, key: str) -> Body | None:
    try:
        decoded = _decode[key](text)
    except (msgspec.DecodeError, RecursionError):
        return None
    if len(getattr(decoded, key)) > _MOST_TENSORS:
        return None
    colons = text.count(b":") - 1
    members = {}
    for name in _OTHERS[key]:
        value = getattr(decoded, name)
        if value is not _NONE:
            raw = bytes(value)
            colons -= 1 + raw.count(b":")
            if raw != _NULL:
                members[name] = raw
    tensors = []
    for tensor in getattr(decoded, key):
        data, parameters = bytes(tensor.data), bytes(tensor.parameters)
        colons -= 3 + bool(data) + bool(parameters) + data.count(b":") + parameters.count(b":")
        own = split_object(parameters) if parameters else {}
        tensors.append(Fields(tensor.name, tensor.datatype, tensor.shape, b"" if data == _NULL else data, own, {}))
    return Body(tensors, members) if colons == 0 else None


def _read_any(text: bytes, key: str) -> Body:
    if not text.lstrip(WHITESPACE).startswith(b"{"):
        raise TensorError(f'the body must be a JSON object: {{"{key}": [...]}}')
    members = _split(text)
    array = members.pop(key, b"")
    if not array.startswith(b"["):
        raise TensorError(f"`{key}` is missing, or not an array of tensors")
    return Body([_fields_of(element) for element in _split_tensors(array, key)], members)


def _split_tensors(array: bytes, key: str) -> list[bytes]:
    elements = split_elements(array)
    if len(elements) > _MOST_TENSORS:
        raise TensorError(f"{len(elements)} tensors in `{key}` are more than {_MOST_TENSORS}")
    return elements


def _fields_of(text: bytes) -> Fields:
    if not text.startswith(b"{"):
        raise TensorError("a tensor must be a JSON object")
    members = _split(text)
    try:
        name = _string(members.pop("name", _NULL))
        datatype = _string(members.pop("datatype", _NULL))
        shape = _integers(members.pop("shape", _NULL))
    except msgspec.DecodeError:
        raise TensorError("a tensor needs a `name` and a `datatype`, strings, and a `shape`, integers") from None
    data, parameters = members.pop("data", b""), split_object(members.pop("parameters", b"{}"))
    return Fields(name, datatype, shape, data, parameters, members)


def check_requested(outputs: bytes) -> None:
    """What a request says of the outputs that it wants. `TensorError` or `JsonError` for what cannot be passed on."""
    if not outputs.startswith(b"["):
        raise TensorError("`outputs` must be an array")
    for element in _split_tensors(outputs, "outputs"):
        if not element.startswith(b"{"):
            raise TensorError("each of `outputs` must be a JSON object")
        refuse_shared_memory(split_object(_split(element).get("parameters", _NULL)))


def split_object(text: bytes) -> dict[str, bytes]:
    """The members of ``parameters`` that are not null, as some clients write those that they do not have.

    `TensorError` for anything but an object, `JsonError` for a key said twice.
    """
    if text == _NULL:
        return {}
    try:
        members = _members(text)
    except (msgspec.DecodeError, RecursionError):
        if not text.startswith(b"{"):
            raise TensorError("`parameters` must be a JSON object") from None
    else:
        if len(members) == text.count(b":") <= MOST_MEMBERS:
            return {name: raw for name, value in members.items() if (raw := bytes(value)) != _NULL}
    return _split(text)


def _split(text: bytes) -> dict[str, bytes]:
    """The members of any object that are not null."""
    found = {name: text[span.start : span.end] for name, span in split_members(text).items()}
    return {name: value for name, value in found.items() if value != _NULL}
