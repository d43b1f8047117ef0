"""KServe v2: rows are joined and cut as they were written; what is no request is refused with a sentence that helps."""

from __future__ import annotations

import json
import struct
import tracemalloc
from typing import Any

import pytest

from mlproxy.errors import BackendContract, BadRequest
from mlproxy.protocols import KServeV2, ParsedRequest, Text, codec_for
from mlproxy.protocols.tensor_data import Rows

CODEC = KServeV2()
OCTETS = b"content-type: application/octet-stream\r\ninference-header-content-length: "


def tensor(**fields: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]} | fields


def body(*inputs: dict[str, Any], **members: Any) -> bytes:
    return json.dumps({"inputs": inputs or [tensor()], **members}).encode()


def binary(size_bytes: object, **fields: Any) -> dict[str, Any]:
    own = tensor(parameters={"binary_data_size": size_bytes}) | fields
    del own["data"]
    return own


def parse(text: bytes, section: bytes | None = None) -> ParsedRequest:
    return CODEC.parse_request(text + (section or b""), 0, 0 if section is None else len(text))


def lane(*inputs: dict[str, Any], **members: Any) -> bytes:
    return parse(body(*inputs, **members)).lane_key


def joined(*requests: ParsedRequest) -> bytes:
    assert len({request.lane_key for request in requests}) == 1
    return b"".join(CODEC.join(requests[0].lane_key, [request.items for request in requests]).buffers)


def test_the_configured_name_gives_this_codec() -> None:
    codec = codec_for("kserve-v2")
    assert isinstance(codec, KServeV2)
    assert codec.name == "kserve-v2"


# --- requests ------------------------------------------------------------------------------------------------------


def test_data_is_joined_as_its_callers_wrote_it_and_the_shape_grows() -> None:
    text = b'{"inputs":[{"name":"x","shape":[%d,2],"datatype":"FP32","data":[%b]}]}'
    first, second = parse(text % (1, b"1.0, 2e0")), parse(text % (2, b" 9007199254740993,4,\n5,0.10"))
    assert (first.instances, second.instances) == (1, 2)
    data = b'"shape":[3,2],"data":[1.0, 2e0, 9007199254740993,4,\n5,0.10]'
    assert joined(first, second) == b'{"inputs":[{"name":"x","datatype":"FP32",%b}]}' % data


def test_sections_are_joined_as_bytes_tensor_by_tensor() -> None:
    text = body(binary(4, name="a", shape=[1, 2], datatype="BF16"), binary(6, name="b", shape=[1, 1], datatype="BYTES"))
    first, second = parse(text, b"\x01\x02\x03\x04\x02\0\0\0hi"), parse(text, b"\x05\x06\x07\x08\x02\0\0\0yo")
    headers, buffers = CODEC.join(first.lane_key, [first.items, second.items])[:2]
    sections = b"\x01\x02\x03\x04\x05\x06\x07\x08\x02\0\0\0hi\x02\0\0\0yo"
    whole = b"".join(buffers)
    assert whole.endswith(sections)
    assert headers.startswith(OCTETS + b"%d\r\n" % (len(whole) - len(sections)))
    sent = json.loads(whole.removesuffix(sections))["inputs"]
    assert [one["parameters"]["binary_data_size"] for one in sent] == [8, 12]
    assert [one["shape"] for one in sent] == [[2, 2], [2, 1]]


def test_nested_data_may_have_any_strings_in_it() -> None:
    data: list[list[str]] = [['a"],[', "{}"], ["[", ":\\"]]
    request = parse(body(tensor(datatype="BYTES", data=data)))
    assert json.loads(joined(request))["inputs"][0]["data"] == data
    second = CODEC.cut(request.lane_key, request.items).part(1, 1)
    assert json.loads(b"".join(CODEC.join(request.lane_key, [second]).buffers))["inputs"][0]["data"] == data[1:]


@pytest.mark.parametrize("data", [["a,b", '"],[', "c"], [["a,b"], ['"],['], ["c"]]])
def test_strings_are_cut_between_them_and_never_within(data: list[Any]) -> None:
    shape = [3, 1] if isinstance(data[0], list) else [3]
    request = parse(body(tensor(datatype="BYTES", shape=shape, data=data)))
    cut = CODEC.cut(request.lane_key, request.items)
    for index, element in enumerate(data):
        batch = b"".join(CODEC.join(request.lane_key, [cut.part(index, 1)]).buffers)
        assert json.loads(batch)["inputs"][0]["data"] == [element]


@pytest.mark.parametrize("in_binary", [False, True])
def test_what_is_kept_of_a_cut_request_is_not_much_more_than_the_request(in_binary: bool) -> None:
    elements = 2**18
    if in_binary:
        request = parse(body(binary(4 * elements, shape=[4, elements // 4], datatype="BYTES")), bytes(4 * elements))
    else:
        request = parse(body(tensor(shape=[4, elements // 4], data=[17] * elements)))
    tracemalloc.start()
    try:
        rows = CODEC.cut(request.lane_key, request.items)
        part = rows.part(1, 2)
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 2 * len(part) <= len(request.items) + 100
    assert kept_bytes < 2 * len(request.items)


def test_a_tensor_without_elements_is_one() -> None:
    requests = [parse(body(tensor(shape=[2, 0], data=[])))] * 2
    assert json.loads(joined(*requests))["inputs"] == [tensor(shape=[4, 0], data=[])]
    nested = parse(body(tensor(shape=[2, 0], data=[[], []])))
    assert nested.lane_key != requests[0].lane_key
    assert parse(body(binary(0, shape=[2, 0], datatype="BYTES")), b"").instances == 2


def test_what_a_batch_would_have_to_say_twice_separates_lanes() -> None:
    lanes = [
        lane(), lane(tensor(name="z")), lane(tensor(datatype="FP64")), lane(tensor(shape=[1, 4])),
        lane(tensor(shape=[2, 2, 1])), lane(tensor(data=[[1, 2], [3, 4]])), lane(tensor(parameters={"k": 1})),
        lane(tensor(more=1)), lane(tensor(), tensor(name="y")), lane(outputs=[{"name": "y"}]), lane(more=1),
        lane(parameters={"k": 1}), lane(parameters={"binary_data_output": True}),
        parse(body(binary(16)), b"\0" * 16).lane_key, KServeV2("2").parse_request(body()).lane_key,
    ]  # fmt: skip
    assert len(set(lanes)) == len(lanes)


def test_rows_values_ids_and_budgets_do_not_separate_lanes() -> None:
    same = {
        lane(), lane(tensor(shape=[1, 2], data=[True, None])), lane(id="a"), lane(id=None), lane(parameters={}),
        lane(parameters={"timeout": 5, "priority": 1}), lane(parameters=None), lane(tensor(parameters={})),
        lane(tensor(parameters=None)),
    }  # fmt: skip
    assert len(same) == 1


def test_the_id_and_the_time_budget_are_the_requests_own() -> None:
    assert parse(body(id='a"b')).own == rb'"a\"b"'
    assert parse(body(id=None)).own == b""
    assert parse(body(parameters={"timeout": 2500})).timeout_ns == 2_500_000
    assert parse(body()).timeout_ns == parse(body(parameters={"timeout": None})).timeout_ns == 0


def test_the_priority_is_the_requests_own() -> None:
    priorities = [parse(body(parameters={"priority": said})).priority for said in (0, None, 1, 2, 255, 256, 2**63)]
    assert priorities == [0, 0, 1, 2, 255, 255, 255]
    assert parse(body()).priority == 0
    assert b"priority" not in joined(parse(body(parameters={"priority": 1, "k": 2})))


def test_members_that_nobody_here_knows_reach_the_backend() -> None:
    request = parse(body(tensor(extra={"a": 1}, parameters={"k": [1]}), more=[1], parameters={"s": ":", "timeout": 1}))
    sent = json.loads(joined(request))
    assert sent["inputs"] == [tensor(extra={"a": 1}, parameters={"k": [1]})]
    assert (sent["more"], sent["parameters"]) == ([1], {"s": ":"})


def test_a_version_travels_with_the_batch() -> None:
    codec = KServeV2("7")
    assert CODEC.join(codec.parse_request(body()).lane_key, []).version == "7"


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (b"", "must be a JSON object"),
        (b"[1]", "must be a JSON object"),
        (b"{", "not valid JSON"),
        (b'{"inputs":[}', "not valid JSON"),
        (b'{"inputs":[{"name":"\xff"}]}', "UTF-8"),
        (b"{}", "`inputs` is missing"),
        (b'{"inputs":{}}', "`inputs` is missing"),
        (b'{"inputs":[]}', "`inputs` is empty"),
        (b'{"inputs":[1]}', "a tensor must be a JSON object"),
        (body(id=7), "`id` must be a string"),
        (body(tensor(name=1)), "`name`"),
        (body(tensor(datatype="fp32")), "tensor 'x': datatype 'fp32' is none of BOOL"),
        (body(tensor(shape=[2, "2"])), "`shape`"),
        (body(tensor(shape=[2.0, 2])), "`shape`"),
        (body(tensor(shape=[])), "`shape` must be"),
        (body(tensor(shape=[0, 2], data=[])), "`shape` must be"),
        (body(tensor(shape=[-1, 2])), "`shape` must be"),
        (body(tensor(shape=[2, -2])), "`shape` must be"),
        (body(tensor(shape=[2**31, 2])), "`shape` must be"),
        (body(tensor(shape=[1] * 65, data=[1])), "`shape` must be"),
        (body(tensor(data=[1, 2, 3])), r"shape \[2, 2\]"),
        (body(tensor(data=[1, 2, 3, 4, 5])), r"shape \[2, 2\]"),
        (body(tensor(data=[1, 2, 3, {}])), r"shape \[2, 2\]"),
        (body(tensor(data=[1, 2, 3, [4]])), r"shape \[2, 2\]"),
        (body(tensor(data=[[1, 2, 3], [4]])), r"shape \[2, 2\]"),
        (body(tensor(data=[[1], [2, 3, 4]])), r"shape \[2, 2\]"),
        (body(tensor(data=[[1, 2], [3, 4], []])), r"shape \[2, 2\]"),
        (body(tensor(data=[[[1, 2], [3, 4]]])), r"shape \[2, 2\]"),
        (body(tensor(shape=[2, 1], data=[[1], []])), r"shape \[2, 1\]"),
        (body(tensor(shape=[2, 1], data=[[], [" [1] "]])), r"shape \[2, 1\]"),
        (body(tensor(shape=[1, 1], data=[])), r"shape \[1, 1\]"),
        (body(tensor(shape=[2, 0], data=[[], [], []])), r"shape \[2, 0\]"),
        (body(tensor(shape=[2**31 - 1, 2**31 - 1], data=[[1]])), "shape"),
        (body(tensor(data=1)), "not an array of scalars"),
        (body(tensor(data=None)), "either `data`, or `binary_data_size`"),
        (body(tensor(data="[]")), "not an array of scalars"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32"}]}', "either `data`, or `binary_data_size`"),
        (body(tensor(parameters={"binary_data_size": 16})), "either `data`, or `binary_data_size`"),
        (body(tensor(parameters=[1])), "`parameters` must be a JSON object"),
        (body(parameters=1), "`parameters` must be a JSON object"),
        (body(tensor(), tensor(name="y", shape=[1, 4])), "the same first dimension.* not 1 and 2"),
        (body(tensor(), tensor()), "the same name"),
        (body(binary(16)), "0 bytes follow, not the 16"),
        (body(parameters={"timeout": "1"}), "timeout must be"),
        (body(parameters={"timeout": -1}), "timeout must be"),
        (body(parameters={"priority": -1}), "priority must be a whole number from 0: 1 is"),
        (body(parameters={"priority": 1.5}), "priority must be"),
        (body(parameters={"priority": "high"}), "1 is the most urgent"),
        (body(parameters={"priority": True}), "priority must be"),
        (body(parameters={"sequence_id": 1}), "sequence"),
        (body(tensor(parameters={"shared_memory_region": "r", "shared_memory_byte_size": 16})), "shared memory"),
        (body(outputs=[{"name": "y", "parameters": {"shared_memory_region": "r"}}]), "shared memory"),
        (body(outputs=[{"parameters": {"k": "r"}}]).replace(b'"k"', b'"shared_mem\\u006fry_region"'), "shared memory"),
        (body(outputs=[{"name": "y"}]).replace(b'"name": "y"', b'"name": "y", "name": "z"'), "twice"),
        (body(outputs={"name": "y"}), "`outputs` must be an array"),
        (body(outputs=["y"]), "each of `outputs`"),
        (body(*[tensor(name=str(number)) for number in range(1025)]), "1025 tensors in `inputs` are more than 1024"),
        (body(outputs=[{"name": str(number)} for number in range(1025)]), "1025 tensors in `outputs` are more"),
        (body(**{str(number): number for number in range(1024)}), "1025 members in one object"),
        (body(parameters={str(number): number for number in range(1025)}), "1025 members in one object"),
        (b'{"inputs":[],"inputs":[]}', "twice"),
        (body()[:-1] + b',"id":"a","id":"b"}', "twice"),
        (body().replace(b'"name"', b'"shape": [1], "name"'), "twice"),
        (body().replace(b'"name"', b'"n\\u0061me": "y", "name"'), "twice"),
        (body(parameters={"k": 1}).replace(b'"k"', b'"k": 0, "k"'), "twice"),
    ],
)
def test_what_is_no_request_is_refused_with_a_sentence_that_helps(text: bytes, detail: str) -> None:
    with pytest.raises(BadRequest, match=detail):
        parse(text)


@pytest.mark.parametrize(
    ("inputs", "section", "detail"),
    [
        ([binary(16)], b"\0" * 15, "15 bytes follow, not the 16"),
        ([binary(16)], b"\0" * 17, "1 bytes more follow"),
        ([binary(15)], b"\0" * 15, "binary_data_size 15 is not the 16 bytes"),
        ([binary(-16)], b"\0" * 16, "binary_data_size -16"),
        ([binary("16")], b"\0" * 16, "binary_data_size"),
        ([binary(None)], b"\0" * 16, "binary_data_size"),
        ([binary(16), binary(16, name="y")], b"\0" * 16, "tensor 'y': 0 bytes follow"),
        ([binary(5, shape=[1], datatype="BYTES")], b"\x02\0\0\0a", "1 elements"),
        ([binary(5, shape=[1], datatype="BYTES")], b"\0\0\0\0a", "1 elements"),
        ([binary(5, shape=[2], datatype="BYTES")], b"\x01\0\0\0a", "2 elements"),
        ([binary(6, shape=[1], datatype="BYTES")], b"\xff\xff\xff\xffab", "1 elements"),
        ([binary(9, shape=[2], datatype="BYTES")], b"\x01\0\0\0a\1\0\0\0", "2 elements"),
        ([tensor()], b"\0", "1 bytes more follow"),
    ],
)
def test_sections_that_are_not_what_their_tensors_say_are_refused(
    inputs: list[dict[str, Any]], section: bytes, detail: str
) -> None:
    with pytest.raises(BadRequest, match=detail):
        parse(body(*inputs), section)


def test_a_refusal_says_little_of_much() -> None:
    tensors = [tensor(name=str(number), shape=[1 + number % 2, 0], data=[]) for number in range(1000)]
    with pytest.raises(BadRequest) as refused:
        parse(body(*tensors))
    assert len(refused.value.detail) < 200


def test_a_request_is_cut_part_by_part_whatever_its_rows_times_its_tensors_are(monkeypatch: pytest.MonkeyPatch) -> None:
    request = parse(body(*[tensor(name=str(number), shape=[2**20, 0], data=[]) for number in range(10)]))
    picks, pick = [], Rows.pick

    def counted(rows: Rows, first: int, count: int) -> Text:
        picks.append(count)
        return pick(rows, first, count)

    monkeypatch.setattr(Rows, "pick", counted)
    cut = CODEC.cut(request.lane_key, request.items)
    batch = json.loads(b"".join(CODEC.join(request.lane_key, [cut.part(0, 64), cut.part(64, 64)]).buffers))
    assert [one["shape"] for one in batch["inputs"]] == [[128, 0]] * 10
    assert len(picks) == 20


def test_a_length_of_json_beyond_the_body_is_refused() -> None:
    text = body()
    with pytest.raises(BadRequest, match="inference-header-content-length"):
        CODEC.parse_request(text, 0, len(text) + 1)


# --- replies -------------------------------------------------------------------------------------------------------


def reply(*outputs: dict[str, Any], **members: Any) -> bytes:
    return json.dumps({"outputs": outputs, **members}).encode()


def test_each_caller_gets_its_rows_its_id_and_what_the_backend_said_about_the_model() -> None:
    text = b'{"model_name":"m","model_version":"1","id":"all","outputs":[{"name":"y","shape":[3],"datatype":"FP32",' \
           b'"data":[0.10, 1e0,17.000000000000001]}]}'  # fmt: skip
    split = CODEC.split_reply(b"", text)
    assert split.count == 3
    outputs = (
        b'"model_name":"m","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[%b],"data":[%b]}]}'
    )
    assert CODEC.render([(split, 0, 1)], b'"mine"') == (b"", b'{"id":"mine",' + outputs % (b"1", b"0.10"))
    assert CODEC.render([(split, 1, 2)], b"") == (b"", b"{" + outputs % (b"2", b" 1e0,17.000000000000001"))


def test_a_reply_in_binary_is_cut_in_binary_and_says_how_much_is_json() -> None:
    text = reply(binary(8, name="y", shape=[2, 1]), tensor(name="label", shape=[2], datatype="BYTES", data=["a", "b"]))
    split = CODEC.split_reply(OCTETS + b"%d\r\n" % len(text), text + struct.pack("<2f", 1, 2))
    headers, body = CODEC.render([(split, 1, 1)], b"")
    assert headers == OCTETS + b"%d\r\n" % (len(body) - 4)
    assert body[-4:] == struct.pack("<f", 2)
    assert json.loads(body[:-4])["outputs"] == [
        binary(4, name="y", shape=[1, 1]), tensor(name="label", shape=[1], datatype="BYTES", data=["b"]),
    ]  # fmt: skip


def test_parts_whose_outputs_differ_are_no_answer() -> None:
    one, other = (CODEC.split_reply(b"", reply(tensor(shape=[1, n], data=[0] * n))) for n in (2, 3))
    with pytest.raises(BackendContract):
        CODEC.render([(one, 0, 1), (other, 0, 1)], b"")
    timed = CODEC.split_reply(b"", reply(tensor(shape=[1, 3], data=[1] * 3, parameters={"took": 7})))
    _, text = CODEC.render([(other, 0, 1), (timed, 0, 1)], b"")
    assert json.loads(text)["outputs"] == [tensor(shape=[2, 3], data=[0] * 3 + [1] * 3, parameters={"took": 7})]


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        (b"", b""),
        (b"", b"ok"),
        (b"", b"[]"),
        (b"", reply()),
        (b"", b'{"error":"none"}'),
        (b"", b'{"outputs":null}'),
        (b"", reply(tensor(data=[1]))),
        (b"", reply(tensor(), tensor(name="mean", shape=[1], data=[1]))),
        (b"", reply(tensor(), tensor())),
        (b"", reply(binary(16))),
        (b"", reply(tensor(shape=[]))),
        (OCTETS + b"1000\r\n", reply(tensor())),
        (OCTETS + b"%d\r\n" % len(reply(binary(16))), reply(binary(16)) + b"\0" * 15),
        (OCTETS + b"%d\r\n" % len(reply(binary(16))), reply(binary(16)) + b"\0" * 17),
        (b"", reply(tensor())[:-1] + b',"outputs":[]}'),
    ],
)
def test_a_reply_without_one_row_for_each_row_breaks_the_contract(headers: bytes, text: bytes) -> None:
    with pytest.raises(BackendContract):
        CODEC.split_reply(headers, text)
