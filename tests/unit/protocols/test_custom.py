"""Any JSON: instances and items where pointers say they are, and everything around them kept."""

from __future__ import annotations

import json

import pytest

from mlproxy.config.endpoint import Endpoint
from mlproxy.errors import BackendContract, BadRequest
from mlproxy.protocols import ParsedRequest, endpoint_codec
from mlproxy.protocols.custom import Custom

NESTED = Custom("/data/0/rows", "/results/1/scores")


def joined(codec: Custom, *requests: ParsedRequest) -> bytes:
    return b"".join(codec.join(requests[0].lane_key, [request.items for request in requests]).buffers)


def test_an_endpoint_says_where_its_items_are() -> None:
    codec = endpoint_codec(Endpoint.model_validate({
        "name": "a", "protocol": "custom", "route": "/a", "backend": {"urls": ["http://a"], "path": "/b"},
        "request": {"items": "/in", "wrap": True, "constants": {"model": "m"}},
        "response": {"items": "/out", "unwrap": True},
    }))  # fmt: skip
    request = codec.parse_request(b'{"in": [1]}')
    assert b"".join(codec.join(request.lane_key, [request.items]).buffers) == b'{"model": "m", "in": [[1]]}'
    assert codec.render([(codec.split_reply(b"", b'{"out": [2]}'), 0, 1)], b"") == (b"", b'{"out": 2}')


def test_instances_are_found_in_objects_and_arrays_and_joined_there() -> None:
    one = NESTED.parse_request(b' {"data": [{"n": 1.0, "rows" : [ [1e0] ,2]}, "\xc3\xa9"], "k": {"a": NaN}} ')
    two = NESTED.parse_request(b'{"k":{"a": NaN},"data": [{"rows":[3],"n":1.0}, "\xc3\xa9"]}')
    assert (one.instances, two.instances) == (2, 1)
    assert one.lane_key == two.lane_key
    batch = joined(NESTED, one, two)
    assert batch == b'{"k": {"a": NaN}, "data": [{"n": 1.0, "rows": [ [1e0] ,2, 3]}, "\xc3\xa9"]}'


def test_whatever_stands_around_the_instances_separates_lanes() -> None:
    bodies = [
        b'{"data":[{"rows":[1]}]}', b'{"data":[{"rows":[1]}],"k":1}', b'{"data":[{"rows":[1],"k":1}]}',
        b'{"data":[{"rows":[1]},1]}', b'{"data":[{"rows":[1]},2]}',
    ]  # fmt: skip
    assert len({NESTED.parse_request(body).lane_key for body in bodies}) == len(bodies)


def test_an_empty_pointer_is_the_whole_body() -> None:
    codec = Custom("", "")
    request = codec.parse_request(b" [1, 2]\n")
    assert (request.items, request.instances) == (b"1, 2", 2)
    assert joined(codec, request, request) == b"[1, 2, 1, 2]"
    assert codec.render([(codec.split_reply(b"", b"\n[3 ,4]"), 1, 1)], b"") == (b"", b"\n[4]")


@pytest.mark.parametrize("instance", [b"[1, 2]", b'{"a": 1}', b'"text"', b"1.50", b"NaN", b"null", b"[]"])
def test_a_bare_instance_is_wrapped_and_its_answer_unwrapped(instance: bytes) -> None:
    codec = Custom("/x", "/y", wrap=True, unwrap=True)
    request = codec.parse_request(b'{"x": %b }' % instance)
    assert (bytes(request.items), request.instances) == (instance, 1)
    assert joined(codec, request, request) == b'{"x": [%b, %b]}' % (instance, instance)
    reply = codec.split_reply(b"", b'{"model": "m", "y": [%b,%b ], "v": 1}' % (instance, instance))
    assert codec.render([(reply, 1, 1)], b"") == (b"", b'{"model": "m", "y": %b, "v": 1}' % instance)


def test_a_bare_body_is_wrapped_as_a_whole() -> None:
    codec = Custom("", "", wrap=True, unwrap=True)
    request = codec.parse_request(b' {"a": 1} ')
    assert joined(codec, request, request) == b'[{"a": 1}, {"a": 1}]'
    assert codec.render([(codec.split_reply(b"", b'[{"b": 2}, 3]'), 0, 1)], b"") == (b"", b'{"b": 2}')


def test_constants_stand_in_the_body_in_place_of_what_callers_say() -> None:
    codec = Custom("/in/rows", "/out", constants={"model": "m", "top": {"k": [1.5, None]}})
    one = codec.parse_request(b'{"in": {"rows": [1], "model": "own"}, "model": "theirs"}')
    two = codec.parse_request(b'{"in": {"rows": [2], "model": "own"}}')
    assert one.lane_key == two.lane_key
    assert json.loads(joined(codec, one, two)) == {
        "model": "m", "top": {"k": [1.5, None]}, "in": {"rows": [1, 2], "model": "own"},
    }  # fmt: skip
    with pytest.raises(BadRequest, match="must be a JSON object"):
        codec.parse_request(b"[1]")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "not valid JSON"),
        (b"{}", "`/data/0/rows` is missing"),
        (b'{"data":{"0":{}}}', "`/data/0/rows` is missing"),
        (b'{"data":[]}', "`/data/0/rows` is missing"),
        (b'{"data":"text"}', "`/data/0/rows` is missing"),
        (b'{"data":[{"rows":1}]}', "`/data/0/rows` must be an array"),
        (b'{"data":[{"rows":{}}]}', "`/data/0/rows` must be an array"),
        (b'{"data":[{"rows":[]}]}', "`/data/0/rows` is empty"),
        (b'{"data":[{"rows":[1],"rows":[2]}]}', "a key stands twice"),
        (b'{"data":[{"rows":[1]}],"data":1}', "a key stands twice"),
        (b'{"data":[{"rows":[1,]}]}', "not valid JSON"),
        (b'{"data":[{"rows":[1]}]}]', "not valid JSON"),
        (b'{"data":[{"rows":["\xff"]}]}', "not UTF-8"),
    ],
)
def test_what_is_no_request_is_refused_with_a_sentence_that_helps(body: bytes, detail: str) -> None:
    with pytest.raises(BadRequest, match=detail):
        NESTED.parse_request(body)
    with pytest.raises(BadRequest, match="JSON only"):
        NESTED.parse_request(body, 0, 3)


def test_a_caller_gets_its_own_items_inside_what_the_backend_wrote_around_them() -> None:
    reply = NESTED.split_reply(b"", b'{"v":1,"results": [ 0, {"scores" :[ 1.0 ,[2], NaN] , "k":[]} ]}\n')
    assert reply.count == 3
    assert NESTED.render([(reply, 1, 2)], b"") == (
        b"", b'{"v":1,"results": [ 0, {"scores" :[[2], NaN] , "k":[]} ]}\n'
    )  # fmt: skip
    assert NESTED.render([(reply, 0, 1), (reply, 2, 1)], b"")[1] == (
        b'{"v":1,"results": [ 0, {"scores" :[1.0, NaN] , "k":[]} ]}\n'
    )


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b'{"results":[]}', b'{"results":[0,{"scores":1}]}', b'{"results":[0,{"scores":[1}]}',
        b'{"results":[0,{"scores":[1]}]', b'{"results":[0,{"scores":[1],"scores":[2]}]}', b"\xff",
    ],
)  # fmt: skip
def test_a_reply_without_an_array_in_its_place_breaks_the_contract(body: bytes) -> None:
    with pytest.raises(BackendContract):
        NESTED.split_reply(b"", body)
