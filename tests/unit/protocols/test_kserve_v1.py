"""KServe v1: the caller's bytes reach the backend, the backend's bytes reach the caller, lanes keep apart the rest."""

from __future__ import annotations

import json

import pytest

from mlproxy.errors import BackendContract, BadRequest
from mlproxy.protocols import ParsedRequest, codec_for
from mlproxy.protocols.codec import Text
from mlproxy.protocols.items import SplitReply
from mlproxy.protocols.kserve_v1 import KServeV1

CODEC = KServeV1()


def joined(lane_key: bytes, *items: Text) -> bytes:
    return b"".join(CODEC.join(lane_key, items).buffers)


def test_the_configured_name_gives_this_codec() -> None:
    codec = codec_for("kserve-v1")
    assert isinstance(codec, KServeV1)
    assert codec.name == "kserve-v1"


@pytest.mark.parametrize(
    ("body", "items", "instances"),
    [
        (b'{"instances":[1]}', b"1", 1),
        (b'{"instances": [[5.1, 3.5], [4.9, 3.0]]}', b"[5.1, 3.5], [4.9, 3.0]", 2),
        (b' \r\n{ "instances"\t: [ {"b64": "aGk="} ] } ', b' {"b64": "aGk="} ', 1),
        (b'{"instances":[9007199254740993,0.10000000000000001,1e5]}', b"9007199254740993,0.10000000000000001,1e5", 3),
        (b'{"instances":[NaN,-Infinity,"NaN"]}', b'NaN,-Infinity,"NaN"', 3),
        (b'{"inst\\u0061nces":[1]}', b"1", 1),
        ('{"instances":["é]}"]}'.encode(), '"é]}"'.encode(), 1),
    ],
)  # fmt: skip
def test_instances_are_taken_as_the_caller_wrote_them(body: bytes, items: bytes, instances: int) -> None:
    assert CODEC.parse_request(body) == ParsedRequest(items, instances, b"")


@pytest.mark.parametrize(
    "opening", [b'{"instances":[', b'{"instances": [', b'{"a":"]}","instances":[', b' {"instances":[']
)
def test_a_large_body_is_taken_as_a_small_one_is(opening: bytes) -> None:
    items = b", ".join(b'[%d, "]}"]' % number for number in range(5000))
    parsed = CODEC.parse_request(opening + items + b"]}")
    assert (parsed.items, parsed.instances) == (items, 5000)
    with pytest.raises(BadRequest, match="not valid JSON"):
        CODEC.parse_request(opening + items + b",]}")


def test_other_members_are_kept_in_the_lane_key_before_and_after_the_instances() -> None:
    before = CODEC.parse_request(b'{"signature_name": "serving", "instances": [1, 2]}')
    after = CODEC.parse_request(b'{"instances": [1, 2], "signature_name": "serving"}')
    assert before == after
    assert before.lane_key == b'"signature_name": "serving", '


def test_the_order_and_the_layout_of_other_members_do_not_separate_lanes_but_their_values_do() -> None:
    def lane(text: bytes) -> bytes:
        return CODEC.parse_request(text).lane_key

    assert lane(b'{"b":2,"a":1,"instances":[0]}') == lane(b'{ "a" : 1 , "instances":[0],\n"b":2}')
    assert lane(b'{"a":1,"instances":[0]}') != lane(b'{"a":2,"instances":[0]}')
    assert lane(b'{"a":1,"instances":[0]}') != lane(b'{"a":"1","instances":[0]}')
    assert lane(b'{"a":1,"instances":[0]}') != lane(b'{"instances":[0]}')
    assert lane(b'{"\\u0061":1,"instances":[0]}') == lane(b'{"a":1,"instances":[0]}')


def test_a_batch_says_what_its_callers_said_beside_their_instances() -> None:
    one = CODEC.parse_request(b'{"parameters": {"k": NaN}, "instances": [1], "a\\"b": "\xc3\xa9"}')
    two = CODEC.parse_request(b'{"instances": [2, 3], "a\\"b": "\xc3\xa9", "parameters": {"k": NaN}}')
    assert one.lane_key == two.lane_key
    body = json.loads(joined(one.lane_key, one.items, two.items), parse_constant=str)
    assert body == {'a"b': "é", "parameters": {"k": "NaN"}, "instances": [1, 2, 3]}


def test_a_joined_batch_is_the_callers_bytes_in_one_array() -> None:
    assert joined(b"", b"1", b" 2 ,3") == b'{"instances": [1,  2 ,3]}'
    assert joined(b'"a": 1, ', b"[1.0]") == b'{"a": 1, "instances": [[1.0]]}'


def test_the_items_of_a_request_are_cut_one_by_one() -> None:
    cut = CODEC.cut(b"", b' [1, 2],"a,b" , NaN')
    assert [cut.part(index, 1) for index in range(4)] == [b"[1, 2]", b'"a,b"', b"NaN", b""]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "the body is empty"),
        (b" \n", "the body is empty"),
        (b"[1]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"\xef\xbb\xbf{}", "must be a JSON object"),
        (b"{}", "`instances` is missing"),
        (b'{"instance":[1]}', "`instances` is missing"),
        (b'{"instances":[]}', "`instances` is empty"),
        (b'{"a":1,"instances":[ ]}', "`instances` is empty"),
        (b'{"instances":{}}', "`instances` must be an array"),
        (b'{"instances":"[1]"}', "`instances` must be an array"),
        (b'{"instances":null}', "`instances` must be an array"),
        (b'{"instances":NaN}', "`instances` must be an array"),
        (b'{"instances":[1]', "not valid JSON"),
        (b'{"instances":[1]}}', "not valid JSON"),
        (b'{"instances":[1]]}', "not valid JSON"),
        (b'{"instances":[1],}', "not valid JSON"),
        (b'{"instances":[1]}{"instances":[2]}', "not valid JSON"),
        (b'{"instances":[1,]}', "not valid JSON"),
        (b'{"instances":[1],"x":}', "not valid JSON"),
        (b'{"instances":[1],"x":[2}', "not valid JSON"),
        (b'{"instances":[1],"x":[2]', "not valid JSON"),
        (b'{"instances":["\xff"]}', "not UTF-8 at byte 15"),
        (b'{"instances":[1],"\xff":1}', "not UTF-8"),
        (b'{"instances":[1],"instances":[2]}', "a key stands twice"),
        (b'{"instances":[1],"inst\\u0061nces":[2]}', "a key stands twice"),
        (b'{"instances":[1],"a":1,"a":2}', "a key stands twice"),
        (b'{"instances":[1],%b}' % b",".join(b'"%d":1' % number for number in range(1024)), "1025 members"),
    ],
)
def test_what_is_no_request_is_refused_with_a_sentence_that_helps(body: bytes, detail: str) -> None:
    with pytest.raises(BadRequest, match=detail):
        CODEC.parse_request(body)


@pytest.mark.parametrize(
    "members",
    [
        b'"a":1,"b":22222,"a":{                               "b":12  }',
        b'"a":{"k":"x",\n":":1},"b":0,"a":1234567',
    ],
)  # fmt: skip
def test_a_key_that_stands_twice_is_refused_also_where_its_lengths_deceive(members: bytes) -> None:
    with pytest.raises(BadRequest, match="twice"):
        CODEC.parse_request(b'{"instances":[1],%b}' % members)


@pytest.mark.parametrize(
    ("body", "prefix", "items", "suffix"),
    [
        (b'{"predictions":[1,2]}', b'{"predictions":[', [b"1", b"2"], b"]}"),
        (b'{ "predictions" : [ ] }\n', b'{ "predictions" : [', [], b"] }\n"),
        (b'{"m":"m","predictions":[{"a":[1]}, NaN],"v":"]"}', b'{"m":"m","predictions":[', [b'{"a":[1]}', b"NaN"],
         b'],"v":"]"}'),
        (b'{"predictions":[1],"more":[2]}', b'{"predictions":[', [b"1"], b'],"more":[2]}'),
    ],
)  # fmt: skip
def test_a_reply_is_cut_into_its_items_and_all_that_stands_around_them(
    body: bytes, prefix: bytes, items: list[bytes], suffix: bytes
) -> None:
    assert CODEC.split_reply(b"", body) == SplitReply(prefix, items, suffix)


def test_a_caller_gets_its_own_predictions_inside_what_the_backend_wrote_around_them() -> None:
    reply = CODEC.split_reply(b"", b'{"predictions": [ 1.0 ,\n[2], 17.000000000000001], "model": "m"}\n')
    assert CODEC.render([(reply, 0, 1)], b"") == (b"", b'{"predictions": [1.0], "model": "m"}\n')
    rest = b'{"predictions": [[2], 17.000000000000001], "model": "m"}\n'
    assert CODEC.render([(reply, 1, 2)], b"") == CODEC.render([(reply, 1, 1), (reply, 2, 1)], b"") == (b"", rest)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"ok", b"[1]", b"null", b"{}", b'{"predictions":{}}', b'{"predictions":null}', b'{"predictions":[1]',
        b'{"predictions":[1],"predictions":[2]}', b'{"predictions":[1,]}', b'{"predictions":[1]}x', b'{"outputs":[1]}',
        b"<html></html>", b"\xff", b'{"predictions":[' + b"[" * 100_000, b'{"\xff":1,"predictions":[1]}',
        b'{"predictions":[1],"a":{"k":"x",\n":":1},"b":0,"a":1234567}',
    ],
)  # fmt: skip
def test_a_reply_without_one_array_of_predictions_breaks_the_contract(body: bytes) -> None:
    with pytest.raises(BackendContract):
        CODEC.split_reply(b"", body)
