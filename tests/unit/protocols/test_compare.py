"""Which answers are the same: numbers within a tolerance, everything else exactly."""

from __future__ import annotations

import struct
from typing import Any, ClassVar

import orjson
import pytest

from mlproxy.protocols import codec_for
from mlproxy.protocols.compare import difference


@pytest.mark.parametrize(
    ("one", "other"),
    [(1.0, 1.0009), (1, 1.0), (0.0, 9e-7), ([1.5, {"a": "x"}], [1.5, {"a": "x"}]), (None, None), (True, True),
     ({}, {})],
)  # fmt: skip
def test_these_are_the_same(one: Any, other: Any) -> None:
    assert difference(one, other, 1e-3) is None


@pytest.mark.parametrize(
    ("one", "other", "where"),
    [(1.0, 1.002, "."), ([1, [2, 3]], [1, [2, 4]], "[1][1]"), ({"a": [1]}, {"a": [2]}, "['a'][0]"), ("1", 1, "."),
     (True, 1, "."), (False, 0, "."), (None, 0, "."), ("a", "b", "."), ([1], [1, 1], "."), ({"a": 1}, {"b": 1}, "."),
     (10_000, 10_001, "."), ([[10_000]], [[10_001]], "[0][0]"),
     ([{"a": 1}], [{"a": 1, "b": 1}], "[0]"), (1.0, -1.0, "."), ([], {}, ".")],
)  # fmt: skip
def test_these_differ(one: Any, other: Any, where: str) -> None:
    assert difference(one, other, 1e-3) == where
    assert difference(other, one, 1e-3) == where


def test_places_are_made_of_what_differs_only() -> None:
    class Key(str):
        """Says when somebody wants to show it."""

        __slots__ = ()
        shown: ClassVar[list[Key]] = []

        def __repr__(self) -> str:
            Key.shown.append(self)
            return super().__repr__()

    same: dict[Key, list[int]] = {Key(number): [] for number in range(100)}
    assert difference(same, dict(same), 0) is None
    assert Key.shown == []
    assert difference(same, same | {Key(7): [1]}, 0) == "['7']"
    assert Key.shown == ["7"]


def test_a_place_is_not_longer_than_a_log_line() -> None:
    assert len(difference({"k" * 1000: 1}, {"k" * 1000: 2}, 0) or "") == 200


@pytest.mark.parametrize(("protocol", "key"), [("kserve-v1", b'{"predictions": %b}'), ("json-list", b"%b")])
def test_only_a_callers_own_items_are_compared(protocol: str, key: bytes) -> None:
    codec = codec_for(protocol)
    batch, alone = codec.split_reply(b"", key % b"[1, [2, 3.0], 4]"), codec.split_reply(b"", key % b"[[2, 3.0001]]")
    assert difference(codec.values([(batch, 1, 1)]), codec.values([(alone, 0, 1)]), 1e-3) is None
    assert difference(codec.values([(batch, 0, 1)]), codec.values([(alone, 0, 1)]), 1e-3) == "[0]"


@pytest.mark.parametrize("name", ["first", "second"])
def test_each_output_of_columns_is_compared(name: str) -> None:
    codec = codec_for("kserve-v1")
    said: dict[str, list[Any]] = {"first": [1, [2, 3.0], 4], "second": ["a", "b", "c"]}
    batch = codec.split_reply(b"", orjson.dumps({"outputs": said}), asked=True)
    alone = codec.split_reply(b"", b'{"outputs": {"first": [[2, 3.0001]], "second": ["b"]}}', asked=True)
    assert difference(codec.values([(batch, 1, 1)]), codec.values([(alone, 0, 1)]), 1e-3) is None
    other = codec.split_reply(b"", orjson.dumps({"outputs": said | {name: ["x", "y", "z"]}}), asked=True)
    where = difference(codec.values([(other, 1, 1)]), codec.values([(alone, 0, 1)]), 1e-3)
    assert where is not None
    assert where.startswith(f"['{name}'][0]")


def test_embeddings_are_compared_without_their_places_and_the_usage() -> None:
    codec = codec_for("openai-embeddings")
    item = b'{"index": %d, "embedding": [%b]}'
    batch = codec.split_reply(
        b"", b'{"data": [%b, %b], "usage": {"total_tokens": 9}}' % (item % (0, b"1.0"), item % (1, b"2.0"))
    )
    alone = codec.split_reply(b"", b'{"data": [%b], "usage": {"total_tokens": 4}}' % (item % (0, b"2.0001")))
    assert difference(codec.values([(batch, 1, 1)]), codec.values([(alone, 0, 1)]), 1e-3) is None
    assert difference(codec.values([(batch, 0, 1)]), codec.values([(alone, 0, 1)]), 1e-3) is not None


def test_members_beside_the_predictions_may_differ() -> None:
    codec = codec_for("kserve-v1")
    replies = [codec.split_reply(b"", b'{"predictions": [1], "took_ms": %d}' % took_ms) for took_ms in (1, 2)]
    one, other = [codec.values([(reply, 0, 1)]) for reply in replies]
    assert difference(one, other, 0) is None


def reply_in_binary(datatype: str, data: bytes, rows: int, **members: Any) -> Any:
    output = {"name": "y", "shape": [rows, 1], "datatype": datatype, "parameters": {"binary_data_size": len(data)}}
    head = orjson.dumps({"outputs": [output | members]})
    headers = b"inference-header-content-length: %d\r\n" % len(head)
    return codec_for("kserve-v2").split_reply(headers, head + data)


@pytest.mark.parametrize(
    ("datatype", "same", "other"),
    [("FP32", struct.pack("<f", 1.0005), struct.pack("<f", 1.01)),
     ("FP64", struct.pack("<d", 1.0005), struct.pack("<d", 1.01)),
     ("FP16", struct.pack("<e", 1.003), struct.pack("<e", 1.01)),
     ("BF16", struct.pack("<f", 1.015)[2:], struct.pack("<f", 1.06)[2:])],
)  # fmt: skip
def test_numbers_in_binary_are_compared_by_their_type(datatype: str, same: bytes, other: bytes) -> None:
    codec = codec_for("kserve-v2")
    one = {"FP32": struct.pack("<f", 1), "FP64": struct.pack("<d", 1), "FP16": struct.pack("<e", 1)}.get(
        datatype, struct.pack("<f", 1)[2:]
    )
    batch = reply_in_binary(datatype, other + one, 2)
    for alone, expected in ((same, None), (other, "[0][2][0]")):
        values = codec.values([(reply_in_binary(datatype, alone, 1), 0, 1)])
        assert difference(codec.values([(batch, 1, 1)]), values, 1e-3) == expected


def test_not_a_number_is_the_same_as_itself_and_as_nothing_else() -> None:
    codec = codec_for("kserve-v2")
    nan, one = (
        codec.values([(reply_in_binary("FP32", struct.pack("<f", value), 1), 0, 1)]) for value in (float("nan"), 1)
    )
    assert difference(nan, nan, 1e-3) is None
    assert difference(nan, one, 1e-3) == "[0][2][0]"


@pytest.mark.parametrize(("datatype", "code"), [("INT32", "<i"), ("UINT64", "<Q"), ("BOOL", "<?")])
def test_whole_numbers_in_binary_must_be_equal(datatype: str, code: str) -> None:
    codec = codec_for("kserve-v2")
    one, other = (
        codec.values([(reply_in_binary(datatype, struct.pack(code, value), 1), 0, 1)]) for value in (10**4, 0)
    )
    assert difference(one, one, 1e-3) is None
    assert difference(one, other, 1) == "[0][2]"


def test_tensors_of_another_form_differ() -> None:
    codec = codec_for("kserve-v2")
    data = struct.pack("<f", 1)
    one = codec.values([(reply_in_binary("FP32", data, 1), 0, 1)])
    named = codec.values([(reply_in_binary("FP32", data, 1, name="z"), 0, 1)])
    wider = codec.values([(reply_in_binary("FP32", data + data, 1, shape=[1, 2]), 0, 1)])
    assert difference(one, named, 1) == "[0][0]['name']"
    assert difference(one, wider, 1) == "[0][1]"


@pytest.mark.parametrize("data", [b"[1, 2, 3.0001, 4]", b"[[1, 2], [3.0001, 4]]"])
def test_numbers_in_json_are_compared_by_their_type_too(data: bytes) -> None:
    codec = codec_for("kserve-v2")
    text = b'{"outputs": [{"name": "y", "shape": [%d, 2], "datatype": "%b", "data": %b}]}'
    nested = b"[[3, 4]]" if data.startswith(b"[[") else b"[3, 4]"
    batch, alone = (codec.split_reply(b"", text % (rows, b"FP32", rows_)) for rows, rows_ in ((2, data), (1, nested)))
    assert difference(codec.values([(batch, 1, 1)]), codec.values([(alone, 0, 1)]), 1e-3) is None
    where = difference(codec.values([(batch, 0, 1)]), codec.values([(alone, 0, 1)]), 1e-3) or ""
    assert where.startswith("[0][2][0]")
