"""OpenAI's embeddings: inputs of one kind and one model share a batch; each caller gets its items and its usage."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlproxy.errors import BackendContract, BadRequest
from mlproxy.protocols import ParsedRequest, codec_for
from mlproxy.protocols.openai_embeddings import EmbeddingReply, OpenAiEmbeddings

CODEC = OpenAiEmbeddings()


def parse(**members: Any) -> ParsedRequest:
    return CODEC.parse_request(json.dumps(members).encode())


def joined(*requests: ParsedRequest) -> Any:
    return json.loads(b"".join(CODEC.join(requests[0].lane_key, [request.items for request in requests]).buffers))


def reply(*requests: ParsedRequest, **usage: Any) -> EmbeddingReply:
    """The reply to a batch of these."""
    asked = CODEC.join(requests[0].lane_key, [request.items for request in requests]).asked
    data = [{"object": "embedding", "index": index, "embedding": [index]} for index in range(len(asked))]
    return CODEC.split_reply(b"", json.dumps({"data": data, "usage": usage}).encode(), asked)


def answers(split: EmbeddingReply, *requests: ParsedRequest) -> list[Any]:
    first, found = 0, []
    for request in requests:
        found.append(json.loads(CODEC.render([(split, first, request.instances)], request.own)[1]))
        first += request.instances
    return found


def test_the_configured_name_gives_this_codec() -> None:
    assert isinstance(codec_for("openai-embeddings"), OpenAiEmbeddings)


@pytest.mark.parametrize(
    ("value", "instances", "batch"),
    [
        ("one text", 1, ["one text"]),
        (["a", "b"], 2, ["a", "b"]),
        ([1, 2, 3], 1, [[1, 2, 3]]),
        ([[1, 2], [3]], 2, [[1, 2], [3]]),
        ([[]], 1, [[]]),
        ("", 1, [""]),
    ],
)  # fmt: skip
def test_an_input_of_each_kind_is_so_many_instances(value: Any, instances: int, batch: Any) -> None:
    request = parse(model="m", input=value)
    assert request.instances == instances
    assert joined(request) == {"model": "m", "input": batch}


def test_the_text_of_an_input_is_spliced_as_it_was_written() -> None:
    request = CODEC.parse_request(b' { "input" : [ "\\u00e9\\/" ,"\xc3\xa9"], "model": "m"} ')
    batch = b"".join(CODEC.join(request.lane_key, [request.items, request.items]).buffers)
    assert batch == b'{"model": "m", "input": [ "\\u00e9\\/" ,"\xc3\xa9",  "\\u00e9\\/" ,"\xc3\xa9"]}'


def test_texts_and_tokens_other_models_and_other_members_do_not_share_a_lane() -> None:
    lanes = {
        parse(**members).lane_key
        for members in (
            {"input": "a", "model": "m"}, {"input": ["b", "c"], "model": "m"}, {"input": [1], "model": "m"},
            {"input": [[1], [2]], "model": "m"}, {"input": "a", "model": "n"}, {"input": "a"},
            {"input": "a", "model": "m", "dimensions": 8}, {"input": "a", "model": "m", "encoding_format": "base64"},
            {"input": "a", "model": "m", "user": "u"},
        )
    }  # fmt: skip
    assert len(lanes) == 9 - 2  # one text is as good as a list of texts, and so with tokens


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "must be a JSON object"),
        (b'["a"]', "must be a JSON object"),
        (b'{"model":"m"}', "`input` is missing"),
        (b'{"messages":[]}', "`input` is missing"),
        (b'{"input":[]}', "`input` is empty"),
        (b'{"input":[ ]}', "`input` is empty"),
        (b'{"input":1}', "must be a text"),
        (b'{"input":null}', "must be a text"),
        (b'{"input":{}}', "must be a text"),
        (b'{"input":["a",1]}', "must be a text"),
        (b'{"input":["a",[1]]}', "must be a text"),
        (b'{"input":[[1],"a"]}', "must be a text"),
        (b'{"input":[1,"a"]}', "must be a text"),
        (b'{"input":[1.5]}', "must be a text"),
        (b'{"input":[[1.5]]}', "must be a text"),
        (b'{"input":[NaN]}', "must be a text"),
        (b'{"input":["a"]', "not valid JSON"),
        (b'{"input":"a","input":"b"}', "a key stands twice"),
        (b'{"input":[%b]}' % b",".join([b'""'] * 65_537), "more than 65536"),
        (b'{"input":[%b]}' % b",".join([b"[]"] * 65_537), "more than 65536"),
    ],
)
def test_what_is_no_request_is_refused_with_a_sentence_that_helps(body: bytes, detail: str) -> None:
    with pytest.raises(BadRequest, match=detail):
        CODEC.parse_request(body)


def test_tensors_in_binary_are_refused() -> None:
    with pytest.raises(BadRequest, match="JSON only"):
        CODEC.parse_request(b'{"input":"a"}', 0, 5)


def test_each_caller_gets_its_items_numbered_from_0_in_any_order_that_the_backend_writes_them() -> None:
    one, two = parse(input="a"), parse(input=["b", "c"])
    asked = CODEC.join(one.lane_key, [one.items, two.items]).asked
    text = (
        b'{"object":"list","data":[{"index":2,"x":"\\"index\\":7","embedding":"AAA="},{"embedding":[0.10],"index": 0 },'
        b' {"index":1,"embedding":[1e0]}],"model":"m","usage":null,"id":"e-1"}'
    )
    split = CODEC.split_reply(b"", text, asked)
    assert CODEC.render([(split, 0, 1)], b"")[1] == (
        b'{"object":"list","data":[{"embedding":[0.10],"index": 0 }],"model":"m","usage":null,"id":"e-1"}'
    )
    assert CODEC.render([(split, 1, 2)], b"")[1] == (
        b'{"object":"list","data":[{"index":0,"embedding":[1e0]}, {"index":1,"x":"\\"index\\":7","embedding":"AAA="}],'
        b'"model":"m","usage":null,"id":"e-1"}'
    )


@pytest.mark.parametrize(
    "item",
    [
        b'{"index":%d,"embedding":[1]}',
        b'{ "object" : "embedding", "index" : %d, "embedding":[1]}',
        b'{"index":%d}',
        b'{"embedding":[1],"index": %d }',
        b'{"embedding":"","index":%d,"object":"embedding"}',
        b'{"x":{"index":7},"index":%d}',
        b'{"index":%d,"x":{"index":7}}',
        b'{"x":",\\"index\\":7}","index":%d,"y":[]}',
        b'{"x":1,"inde\\u0078":%d}',
        b'{"a":0,"index":%d,"z":[{"index":7}]}',
    ],
)
def test_an_index_is_found_wherever_a_backend_writes_it(item: bytes) -> None:
    split = CODEC.split_reply(b"", b'{"data":[%b, %b]}' % (item % 1, item % 0))
    assert CODEC.render([(split, 1, 1)], b"")[1] == b'{"data":[%b]}' % (item % 0)
    assert CODEC.render([(split, 0, 2)], b"")[1] == b'{"data":[%b, %b]}' % (item % 0, item % 1)


def test_usage_is_exact_for_tokens_and_adds_up_for_texts() -> None:
    tokens = parse(input=[1, 2, 3]), parse(input=[[4], [5, 6]]), parse(input=[7])
    used = answers(reply(*tokens, prompt_tokens=7, total_tokens=7), *tokens)
    assert [answer["usage"] for answer in used] == [{"prompt_tokens": n, "total_tokens": n} for n in (3, 3, 1)]
    texts = [parse(input="x" * length) for length in (1, 1, 1, 10, 0)]
    used = answers(reply(*texts, prompt_tokens=9, cached=None, cost=0.5), *texts)
    shares = [answer["usage"]["prompt_tokens"] for answer in used]
    assert sum(shares) == 9
    assert all(abs(share - 9 * length / 13) < 1 for share, length in zip(shares, (1, 1, 1, 10, 0), strict=True))
    assert all((answer["usage"]["cached"], answer["usage"]["cost"]) == (None, 0.5) for answer in used)


def test_length_is_what_a_text_takes_in_utf8_however_it_is_escaped() -> None:
    plain, escaped = (
        CODEC.parse_request('{"input":"東京"}'.encode()),
        CODEC.parse_request(b'{"input":"\\u6771\\u4eac"}'),
    )
    used = answers(reply(plain, escaped, total_tokens=12), plain, escaped)
    assert [answer["usage"]["total_tokens"] for answer in used] == [6, 6]


def test_texts_of_nothing_share_equally() -> None:
    texts = parse(input=""), parse(input=["", ""])
    used = answers(reply(*texts, total_tokens=6), *texts)
    assert [answer["usage"]["total_tokens"] for answer in used] == [2, 4]


def test_the_usage_of_a_request_in_parts_is_the_sum_of_its_parts() -> None:
    request, other = parse(input=["aa", "bbbb", "c"]), parse(input="dddd")
    cut = CODEC.cut(request.lane_key, request.items)
    assert repr(cut) == "<3 inputs>"
    first = CODEC.join(request.lane_key, [cut.part(0, 2)])
    second = CODEC.join(request.lane_key, [other.items, cut.part(2, 1)])
    assert (first.asked, second.asked) == ([2, 4], [4, 1])
    one = CODEC.split_reply(b"", b'{"usage":{"total_tokens":6},"data":[{"index":0},{"index":1}]}', first.asked)
    two = CODEC.split_reply(b"", b'{"usage":{"total_tokens":50},"data":[{"index":0},{"index":1}]}', second.asked)
    _, body = CODEC.render([(one, 0, 2), (two, 1, 1)], b"")
    assert body == b'{"usage":{"total_tokens":16},"data":[{"index":0}, {"index":1}, {"index":2}]}'


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b'{"data":{}}', b'{"data":[1]}', b'{"data":[{}]}', b'{"data":[{"index":1}]}',
        b'{"data":[{"index":0},{"index":0}]}', b'{"data":[{"index":-1}]}', b'{"data":[{"index":0.0}]}',
        b'{"data":[{"index":null}]}', b'{"data":[{"index":0,"index":0}]}', b'{"data":[{"index":0}]', b"\xff",
        b'{"data":[{"index":0}],"usage":{"a":1,"a":1}}', b'{"data":[{"x":{"index":0}}]}', b'{"data":[["index"]]}',
    ],
)  # fmt: skip
def test_a_reply_without_an_item_for_each_index_breaks_the_contract(body: bytes) -> None:
    with pytest.raises(BackendContract):
        CODEC.split_reply(b"", body)
