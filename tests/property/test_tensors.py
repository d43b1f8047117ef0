"""KServe v2 under any input: each caller gets its own rows, and none can touch another's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mlproxy.errors import BackendContract, BadRequest
from mlproxy.protocols import KServeV2, ParsedRequest, Text
from mlproxy.protocols.codec import Answer
from mlproxy.testing.json_texts import mutations
from tests.property.tensor_worlds import (
    Caller,
    Form,
    Read,
    Tensor,
    bodies,
    callers,
    forms,
    meaning,
    read,
    signatures,
    tensors,
    written,
)  # fmt: skip

pytestmark = pytest.mark.timeout(300)
#: A busy machine is no reason to fail: speed is not tested here.
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
more = settings(many, max_examples=200)

CODEC = KServeV2()
INPUTS, OUTPUTS = ("x", "ids", 'a"b:[é'), ("y", "score", "labels")


def _json_bytes(headers: bytes) -> int:
    found = re.search(rb"inference-header-content-length: (\d+)\r\n", headers)
    return int(found[1]) if found else 0


def batch_of(lane_key: bytes, items: Sequence[Text]) -> Read:
    """What the backend reads."""
    headers, buffers = CODEC.join(lane_key, items)[:2]
    return read(b"".join(buffers), _json_bytes(headers), "inputs")


def answer_of(answer: Answer) -> Read:
    """What the caller reads."""
    headers, body = answer
    return read(body, _json_bytes(headers), "outputs")


def parse(caller: Caller) -> ParsedRequest:
    return CODEC.parse_request(caller.body, 0, caller.json_bytes)


@st.composite
def replies(draw: st.DrawFn, count: int, given_forms: list[Form] | None = None) -> tuple[bytes, bytes, list[Tensor]]:
    """Headers, body and outputs of a reply with ``count`` rows."""
    chosen = given_forms or draw(signatures(OUTPUTS))
    outputs = [Tensor(form, [draw(_row(form)) for _ in range(count)]) for form in chosen]
    beside = draw(st.sampled_from([[], [b'"model_name":"m"', b'"model_version" : "1"'], [b'"more":{"a":[1.50]}']]))
    body, json_bytes = draw(bodies("outputs", outputs, beside, draw(st.sampled_from([None, "the backend's"]))))
    return (b"inference-header-content-length: %d\r\n" % json_bytes if json_bytes else b""), body, outputs


@st.composite
def _row(draw: st.DrawFn, form: Form) -> list[bytes]:
    return draw(tensors(form, 1)).rows[0]


@many
@given(data=st.data())
def test_a_batch_is_exactly_its_callers_rows_and_what_they_all_said_beside_them(data: st.DataObject) -> None:
    signature = data.draw(signatures(INPUTS))
    lanes: dict[bytes, list[tuple[Caller, ParsedRequest]]] = {}
    for caller in data.draw(st.lists(callers(signature) | signatures(INPUTS).flatmap(callers), min_size=1, max_size=4)):
        parsed = parse(caller)
        assert parsed.instances == caller.instances
        lanes.setdefault(parsed.lane_key, []).append((caller, parsed))
    for lane_key, members in lanes.items():
        batch = batch_of(lane_key, [bytes(parsed.items) for _, parsed in members])
        for name, (datatype, tail, rows) in batch.tensors.items():
            own = [meaning(tensor) for caller, _ in members for tensor in caller.tensors if tensor.form.name == name]
            assert {(datatype, tail)} == {(one[0], one[1]) for one in own}
            assert rows == [row for one in own for row in one[2]]
        for caller, _ in members:
            said = read(caller.body, caller.json_bytes, "inputs")
            assert set(said.tensors) == set(batch.tensors)
            said.others.pop("id", None)
            assert said.others == batch.others


@many
@given(data=st.data())
def test_every_caller_gets_its_own_rows_and_its_own_id(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    headers, body, outputs = data.draw(replies(sum(counts)))
    reply = CODEC.split_reply(headers, body)
    assert reply.count == sum(counts)
    first = 0
    said = read(body, _json_bytes(headers), "outputs").others
    said.pop("id", None)
    for count in counts:
        own = data.draw(st.sampled_from([b"", b'"mine"']))
        answer = answer_of(CODEC.render([(reply, first, count)], own))
        for tensor in outputs:
            datatype, tail, rows = meaning(tensor)
            assert answer.tensors[tensor.form.name] == (datatype, tail, rows[first : first + count])
        assert answer.others == (said | {"id": "mine"} if own else said)
        first += count


@more
@given(data=st.data())
def test_data_that_has_another_shape_than_it_says_is_refused(data: st.DataObject) -> None:
    form = data.draw(forms(INPUTS))
    count = data.draw(st.integers(1, 3))
    own = data.draw(tensors(form, count))
    shape: list[int] = [count, *form.tail]
    said: list[int] = data.draw(
        st.permutations(shape) | st.lists(st.integers(0, 4), min_size=1, max_size=3) | st.just([*shape, 1])
    )
    text, section = data.draw(written(own, said))
    body = b'{"inputs":[%b]}' % text
    nested = form.style == "nested" and len(shape) > 1
    elements, said_elements = prod(shape), prod(said)
    assume(not nested or elements)  # arrays of empty arrays have many shapes
    fits = said[0] > 0 and (said == shape if nested else said_elements == elements)
    if fits:
        CODEC.parse_request(body + section, 0, len(body))
        return
    with pytest.raises(BadRequest):
        CODEC.parse_request(body + section, 0, len(body))


@more
@given(data=st.data())
def test_a_corrupt_reply_breaks_the_contract_or_is_still_whole_rows(data: st.DataObject) -> None:
    headers, body, _ = data.draw(replies(data.draw(st.integers(1, 4))))
    try:
        reply = CODEC.split_reply(headers, data.draw(mutations(body)))
    except BackendContract:
        return
    for index in range(reply.count):
        answer = answer_of(CODEC.render([(reply, index, 1)], b'"me"'))
        assert all(len(rows) == 1 for _, _, rows in answer.tensors.values())
