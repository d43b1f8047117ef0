"""JSON list: an array for an array, and one bare prediction for one bare object."""

from __future__ import annotations

import pytest

from mlproxy.errors import BackendContract, BadRequest
from mlproxy.protocols import ParsedRequest, codec_for
from mlproxy.protocols.json_list import JsonList

CODEC = JsonList()


def test_the_configured_name_gives_this_codec() -> None:
    codec = codec_for("json-list")
    assert isinstance(codec, JsonList)
    assert codec.name == "json-list"


@pytest.mark.parametrize(
    ("body", "items", "instances"),
    [
        (b"[1]", b"1", 1),
        (b' \n[ [1,2] , {"a":"]"} ]\t', b' [1,2] , {"a":"]"} ', 2),
        (b"[NaN,-Infinity]", b"NaN,-Infinity", 2),
        (b"[9007199254740993,1.10]", b"9007199254740993,1.10", 2),
        (b"[[]]", b"[]", 1),
    ],
)  # fmt: skip
def test_an_array_is_its_elements_as_the_caller_wrote_them(body: bytes, items: bytes, instances: int) -> None:
    assert CODEC.parse_request(body) == ParsedRequest(items, instances, b"")


@pytest.mark.parametrize("body", [b"{}", b' {"a": [1, 2]} ', b'{"a":NaN}', b'{"a":1,"a":2}'])
def test_a_bare_object_is_one_instance(body: bytes) -> None:
    assert CODEC.parse_request(body) == ParsedRequest(body.strip(), 1, b"", b"1")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "must be a JSON array"),
        (b"  ", "must be a JSON array"),
        (b"1", "must be a JSON array"),
        (b'"[1]"', "must be a JSON array"),
        (b"null", "must be a JSON array"),
        (b"\xef\xbb\xbf[1]", "must be a JSON array"),
        (b"[]", "the array is empty"),
        (b"[ \n ]", "the array is empty"),
        (b"[1", "not valid JSON"),
        (b"[1,]", "not valid JSON"),
        (b"[1]]", "not valid JSON"),
        (b"[1][2]", "not valid JSON"),
        (b"[1],[2]", "not valid JSON"),
        (b'{"a":1}{"b":2}', "not valid JSON"),
        (b'{"a":1},{"b":2}', "not valid JSON"),
        (b'{"a":1', "not valid JSON"),
        (b'{"a"}', "not valid JSON"),
        (b'["\xff"]', "not UTF-8 at byte 2"),
        (b'{"\xff":1}', "not UTF-8 at byte 2"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_what_is_no_request_is_refused_with_a_sentence_that_helps(body: bytes, detail: str) -> None:
    with pytest.raises(BadRequest, match=detail):
        CODEC.parse_request(body)


def test_arrays_and_bare_objects_share_a_batch() -> None:
    array, bare = CODEC.parse_request(b"[1, 2]"), CODEC.parse_request(b'{"a": 3}')
    assert array.lane_key == bare.lane_key
    assert b"".join(CODEC.join(b"", [array.items, bare.items]).buffers) == b'[1, 2, {"a": 3}]'


def test_the_items_of_a_request_are_cut_one_by_one() -> None:
    cut = CODEC.cut(b"", b' [1],"," , NaN ')
    assert [cut.part(index, 1) for index in range(4)] == [b"[1]", b'","', b"NaN", b""]


def test_the_owner_of_a_bare_object_gets_a_bare_prediction_and_the_others_an_array() -> None:
    reply = CODEC.split_reply(b"", b" [ 0.10, [1] ,NaN]\n")
    assert reply.items == [b"0.10", b"[1]", b"NaN"]
    assert CODEC.render([(reply, 0, 1)], b"1") == (b"", b"0.10")
    assert CODEC.render([(reply, 0, 1)], b"") == (b"", b"[0.10]")
    assert CODEC.render([(reply, 1, 2)], b"") == (b"", b"[[1], NaN]")


@pytest.mark.parametrize(
    "body", [b"", b"ok", b"{}", b'{"predictions":[1]}', b"null", b"[1", b"[1,]", b"[1]x", b"\xff", b"[" * 100_000]
)
def test_a_reply_that_is_no_array_breaks_the_contract(body: bytes) -> None:
    with pytest.raises(BackendContract):
        CODEC.split_reply(b"", body)
