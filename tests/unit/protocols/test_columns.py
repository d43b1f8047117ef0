"""TF-Serving's columns: joined and cut name by name, apart from rows, every row as its caller wrote it."""

from __future__ import annotations

import json

import pytest

from mlproxy.errors import BackendContract, BadRequest
from mlproxy.protocols import ParsedRequest
from mlproxy.protocols.kserve_v1 import KServeV1

CODEC = KServeV1()


def joined(*requests: ParsedRequest) -> bytes:
    return b"".join(CODEC.join(requests[0].lane_key, [request.items for request in requests]).buffers)


def test_named_columns_are_joined_by_name_whatever_their_order() -> None:
    one = CODEC.parse_request(b'{"inputs": {"a": [1.0, 2e0], "b": [[1],[ 2 ]]}}')
    two = CODEC.parse_request(b'{"inputs":{"b":["x"],"\\u0061":[NaN]}}')
    assert (one.instances, two.instances) == (2, 1)
    assert one.lane_key == two.lane_key
    assert joined(one, two) == b'{"inputs": {"a": [1.0, 2e0, NaN], "b": [[1],[ 2 ], "x"]}}'


def test_a_bare_array_is_one_column_without_a_name() -> None:
    one, two = CODEC.parse_request(b' {"inputs" : [1, 2] }'), CODEC.parse_request(b'{"inputs":[{"b64": "aGk="}]}')
    assert (one.instances, two.instances) == (2, 1)
    assert joined(one, two) == b'{"inputs": [1, 2, {"b64": "aGk="}]}'


def test_rows_columns_other_names_and_other_members_do_not_share_a_lane() -> None:
    bodies = [
        b'{"instances":[1]}', b'{"inputs":[1]}', b'{"inputs":{"":[1]}}', b'{"inputs":{"a":[1]}}',
        b'{"inputs":{"a":[1],"b":[1]}}', b'{"inputs":{"a":[1]},"signature_name":"s"}',
        b'{"inputs":{"a":[1]},"signature_name":"t"}',
    ]  # fmt: skip
    assert len({CODEC.parse_request(body).lane_key for body in bodies}) == len(bodies)


def test_a_batch_says_what_its_callers_said_beside_their_columns() -> None:
    one = CODEC.parse_request(b'{"signature_name": "s", "inputs": {"a": [1]}}')
    two = CODEC.parse_request(b'{"inputs": {"a": [2, 3]}, "signature_name":"s"}')
    assert json.loads(joined(one, two)) == {"signature_name": "s", "inputs": {"a": [1, 2, 3]}}


def test_a_request_is_cut_into_parts_column_by_column() -> None:
    request = CODEC.parse_request(b'{"inputs": {"a": [1 ,[2,2], "]"], "b": [NaN, {"k": 1},6]}}')
    cut = CODEC.cut(request.lane_key, request.items)
    batches = [
        b"".join(CODEC.join(request.lane_key, [cut.part(first, count)]).buffers) for first, count in ((0, 2), (2, 1))
    ]
    assert batches == [
        b'{"inputs": {"a": [1, [2,2]], "b": [NaN, {"k": 1}]}}',
        b'{"inputs": {"a": ["]"], "b": [6]}}',
    ]
    assert repr(cut) == "<2 columns of 3 rows>"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"inputs":1}', "must be an array, or an object"),
        (b'{"instances":[1],"inputs":{"a":[1]}}', "`instances` and `inputs` exclude each other"),
        (b'{"inputs":[1],"k":1,"instances":[1]}', "`instances` and `inputs` exclude each other"),
        (b'{"inputs":null}', "must be an array, or an object"),
        (b'{"inputs":{}}', "`inputs` is empty"),
        (b'{"inputs":[]}', "`inputs` is empty"),
        (b'{"inputs":{"a":[ ],"b":[]}}', "`inputs` is empty"),
        (b'{"inputs":{"a":[1],"b":[1, 2]}}', "same first dimension.*not 1 and 2"),
        (b'{"inputs":{"a":[1],"b":[]}}', "same first dimension.*not 0 and 1"),
        (b'{"inputs":{"a":[1],"b":2}}', "'b' must be an array"),
        (b'{"inputs":{"b64":"aGk="}}', "'b64' must be an array"),
        (b'{"inputs":{"a":[1],"a":[1]}}', "a key stands twice"),
        (b'{"inputs":{"a":[1]}', "not valid JSON"),
        (b'{"inputs":{"a":[1,]}}', "not valid JSON"),
        (b'{"inputs":[1],"inputs":[2]}', "a key stands twice"),
        (b'{"inputs":{%b}}' % b",".join(b'"%d":[1]' % number for number in range(1025)), "1025 members"),
    ],
)
def test_what_are_no_columns_is_refused_with_a_sentence_that_helps(body: bytes, detail: str) -> None:
    with pytest.raises(BadRequest, match=detail):
        CODEC.parse_request(body)


NAMED = b'{ "model": "m", "outputs" : { "y": [ 1.0 ,2.00, NaN],\n"z":[[1],[2],[3]] }, "v": [0]}\n'


def test_a_caller_gets_its_rows_of_every_output_inside_what_the_backend_wrote_around_them() -> None:
    reply = CODEC.split_reply(b"", NAMED, True)
    assert reply.count == 3
    assert CODEC.render([(reply, 1, 1)], b"") == (
        b"", b'{ "model": "m", "outputs" : { "y": [2.00],\n"z":[[2]] }, "v": [0]}\n'
    )  # fmt: skip
    last = b'{ "model": "m", "outputs" : { "y": [2.00, NaN],\n"z":[[2], [3]] }, "v": [0]}\n'
    assert CODEC.render([(reply, 1, 2)], b"") == CODEC.render([(reply, 1, 1), (reply, 2, 1)], b"") == (b"", last)


def test_a_model_with_one_output_answers_with_a_bare_array() -> None:
    reply = CODEC.split_reply(b"", b'{"outputs": [[1.50], [2.50]]}', True)
    assert CODEC.render([(reply, 1, 1)], b"") == (b"", b'{"outputs": [[2.50]]}')


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[1]", b"{}", b'{"predictions":[1]}', b'{"outputs":1}', b'{"outputs":{}}', b'{"outputs":{"a":1}}',
        b'{"outputs":{"a":[1],"b":[1,2]}}', b'{"outputs":{"a":[1],"a":[1]}}', b'{"outputs":[1],"outputs":[1]}',
        b'{"outputs":{"a":[1]}', b'{"outputs":[1,]}', b"\xff",
    ],
)  # fmt: skip
def test_a_reply_without_rows_in_every_output_breaks_the_contract(body: bytes) -> None:
    with pytest.raises(BackendContract):
        CODEC.split_reply(b"", body, True)


def test_parts_that_were_answered_with_different_outputs_do_not_fit_together() -> None:
    one = CODEC.split_reply(b"", b'{"outputs":{"a":[1]}}', True)
    two = CODEC.split_reply(b"", b'{"outputs":{"b":[1]}}', True)
    with pytest.raises(BackendContract, match="different outputs"):
        CODEC.render([(one, 0, 1), (two, 0, 1)], b"")


def test_the_batch_says_whether_its_reply_has_rows_or_columns() -> None:
    rows, columns = CODEC.parse_request(b'{"instances":[1]}'), CODEC.parse_request(b'{"inputs":[1]}')
    assert CODEC.join(rows.lane_key, [rows.items]).asked is None
    asked = CODEC.join(columns.lane_key, [columns.items]).asked
    assert CODEC.split_reply(b"", b'{"outputs":[1],"predictions":[1,2]}', asked).count == 1
    assert CODEC.split_reply(b"", b'{"outputs":[1],"predictions":[1,2]}').count == 2
