"""Protocols under any input: each caller gets its own bytes, and none can touch another's request.

The texts are made as people might write them (any white space, any spelling of numbers and strings, NaN), and read
back with Python's own decoder, which shares no code with ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlproxy.errors import BackendContract, BadRequest
from mlproxy.protocols import Codec, ParsedRequest, codec_for
from mlproxy.protocols.codec import Text
from tests.property.json_texts import FRAGMENTS, commas, mutations, objects, one_by_one, spaces, values

#: Shrinking a failure takes its time.
pytestmark = pytest.mark.timeout(300)

PROTOCOLS = pytest.mark.parametrize("protocol", ["kserve-v1", "json-list"])
#: A busy machine is no reason to fail: speed is not tested here.
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
more = settings(many, max_examples=200)


# --- callers -------------------------------------------------------------------------------------------------------


class Caller(NamedTuple):
    """A body, and the instances that it was made of."""

    body: bytes
    instances: list[bytes]


#: What a body may say beside its instances; each is a lane.
SIDE_MEMBERS = [[], [b'"signature_name": "a"'], [b'"signature_name" :"b"', b'"parameters":{"k":NaN}'], [b'"":null']]


@st.composite
def kserve_callers(draw: st.DrawFn) -> Caller:
    """``{"instances": …}`` with other members around it."""
    instances = draw(st.lists(values, min_size=1, max_size=4))
    key = draw(st.sampled_from([b'"instances"', b'"instances"', b'"inst\\u0061nces"']))
    array = b"%b%b:%b[%b]" % (key, draw(spaces), draw(spaces), commas(draw, instances))
    members = draw(st.permutations([array, *draw(st.sampled_from(SIDE_MEMBERS))]))
    return Caller(draw(spaces) + b"{%b}" % commas(draw, members) + draw(spaces), instances)


@st.composite
def list_callers(draw: st.DrawFn) -> Caller:
    """``[…]``, or one bare object."""
    bare = draw(st.none() | objects(values))
    instances = draw(st.lists(values, min_size=1, max_size=4)) if bare is None else [bare]
    text = b"[%b]" % commas(draw, instances) if bare is None else bare
    return Caller(draw(spaces) + text + draw(spaces), instances)


CALLERS = {"kserve-v1": kserve_callers(), "json-list": list_callers()}


# --- reading with Python's decoder ---------------------------------------------------------------------------------


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    assert len({key for key, _ in pairs}) == len(pairs), "a key stands twice"
    return dict(pairs)


def load(text: bytes) -> object:
    """A value in which every number is still spelt as it was written, and pairs are kept in order."""
    return json.loads(text.decode(), parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=tuple)


def instances_of(protocol: str, body: bytes) -> list[object]:
    """What a backend finds in a body. Fails for anything that is not one sound request."""
    read = load(body)
    if protocol == "kserve-v1":
        assert isinstance(read, tuple)
        read = _once(list(read))["instances"]
    assert isinstance(read, list)
    return read


def slices(array: str) -> Iterator[str]:
    """The elements of an array as they stand in its text."""
    decoder, position = json.JSONDecoder(), 1
    while True:
        while array[position] in " \t\r\n,":
            position += 1
        if array[position] == "]":
            return
        _, end = decoder.raw_decode(array, position)
        yield array[position:end]
        position = end


def array_of(protocol: str, body: bytes) -> str:
    """The text of the array of instances, from its bracket on."""
    text = body.decode()
    return text[text.index('"instances": [') + len('"instances": ') :] if protocol == "kserve-v1" else text


class Backend(NamedTuple):
    """Answers prediction i with the bytes of instance i, in a layout of its own."""

    protocol: str
    prefix: bytes
    separator: bytes
    suffix: bytes

    def __call__(self, body: bytes) -> bytes:
        predictions = [element.encode() for element in slices(array_of(self.protocol, body))]
        return self.prefix + self.separator.join(predictions) + self.suffix


@st.composite
def backends(draw: st.DrawFn, protocol: str) -> Backend:
    """A backend that writes its replies in one of many ways."""
    opening, closing = draw(spaces) + b"[" + draw(spaces), draw(spaces) + b"]" + draw(spaces)
    separator = draw(spaces) + b"," + draw(spaces)
    if protocol == "json-list":
        return Backend(protocol, opening, separator, closing)
    before = draw(st.sampled_from([b"", b'"model": "]}[",', b'"spec": {"predictions": [0]}, ']))
    after = draw(st.sampled_from([b"", b',"version":[1]', b', "timing": NaN']))
    return Backend(protocol, b"{" + before + b'"predictions":' + opening, separator, closing + after + b"}")


def joined(codec: Codec[Any], lane_key: bytes, items: Sequence[Text]) -> bytes:
    """The body of a batch."""
    return b"".join(codec.join(lane_key, items).buffers)


# --- properties ----------------------------------------------------------------------------------------------------


@PROTOCOLS
@many
@given(data=st.data())
def test_every_caller_gets_its_own_bytes_back(protocol: str, data: st.DataObject) -> None:
    codec, backend = codec_for(protocol), data.draw(backends(protocol))
    lanes: dict[bytes, list[tuple[Caller, ParsedRequest]]] = {}
    for caller in data.draw(st.lists(CALLERS[protocol], min_size=1, max_size=5)):
        parsed = codec.parse_request(caller.body)
        assert parsed.instances == len(caller.instances)
        lanes.setdefault(parsed.lane_key, []).append((caller, parsed))
    for lane_key, members in lanes.items():
        reply = codec.split_reply(b"", backend(joined(codec, lane_key, [parsed.items for _, parsed in members])))
        assert reply.items == [instance for caller, _ in members for instance in caller.instances]
        first = 0
        for caller, parsed in members:
            headers, rendered = codec.render([(reply, first, parsed.instances)], parsed.own)
            first += parsed.instances
            assert headers == b""
            expected = b", ".join(caller.instances)
            if parsed.own:
                assert rendered == expected
            elif protocol == "json-list":
                assert rendered == b"[%b]" % expected
            else:
                assert rendered == backend.prefix.rstrip() + expected + backend.suffix.lstrip()


@PROTOCOLS
@many
@given(data=st.data())
def test_a_batch_is_exactly_its_callers_instances_and_what_they_all_said_beside_them(
    protocol: str, data: st.DataObject
) -> None:
    codec = codec_for(protocol)
    bodies = [caller.body for caller in data.draw(st.lists(CALLERS[protocol], min_size=1, max_size=5))]
    requests = [codec.parse_request(body) for body in bodies]
    lane_key = data.draw(st.sampled_from([parsed.lane_key for parsed in requests]))
    members = [(body, parsed) for body, parsed in zip(bodies, requests, strict=True) if parsed.lane_key == lane_key]
    batch = joined(codec, lane_key, [parsed.items for _, parsed in members])
    expected: list[object] = []
    for body, parsed in members:
        expected += [load(body)] if parsed.own else instances_of(protocol, body)
    assert instances_of(protocol, batch) == expected
    if protocol == "kserve-v1":
        beside = [sorted(_beside(body)) for body in (batch, *(body for body, _ in members))]
        assert all(one == beside[0] for one in beside)


def _beside(body: bytes) -> list[tuple[str, str]]:
    read = load(body)
    assert isinstance(read, tuple)
    return [(key, repr(value)) for key, value in read if key != "instances"]


@PROTOCOLS
@many
@given(data=st.data())
def test_the_items_of_a_request_are_the_slices_it_was_made_of(protocol: str, data: st.DataObject) -> None:
    codec, caller = codec_for(protocol), data.draw(CALLERS[protocol])
    assert one_by_one(codec, codec.parse_request(caller.body)) == caller.instances


@PROTOCOLS
@many
@given(data=st.data(), max_size=st.integers(1, 3))
def test_a_request_that_travels_in_parts_comes_back_whole_and_in_order(
    protocol: str, data: st.DataObject, max_size: int
) -> None:
    codec, backend, caller = codec_for(protocol), data.draw(backends(protocol)), data.draw(CALLERS[protocol])
    parsed = codec.parse_request(caller.body)
    items = one_by_one(codec, parsed)
    replies = [
        codec.split_reply(b"", backend(joined(codec, parsed.lane_key, items[first : first + max_size])))
        for first in range(0, len(items), max_size)
    ]
    whole = [item for reply in replies for item in reply.items]
    assert whole == caller.instances
    _, rendered = codec.render([(reply, 0, reply.count) for reply in replies], parsed.own)
    at_once = codec.split_reply(b"", backend(joined(codec, parsed.lane_key, [parsed.items])))
    assert codec.render([(at_once, 0, at_once.count)], parsed.own) == (b"", rendered)
    assert b", ".join(caller.instances) in rendered


# --- corrupt callers -----------------------------------------------------------------------------------------------

#: Instances of others in the same batch.
neighbours = st.lists(
    st.sampled_from([b"1", b"NaN", b'"]}"', b'{"instances":[1]}', b'[[], "\\""]']), min_size=1, max_size=2
)


@PROTOCOLS
@more
@given(data=st.data())
def test_a_corrupt_caller_is_refused_or_leaves_its_neighbours_as_they_are(protocol: str, data: st.DataObject) -> None:
    codec = codec_for(protocol)
    before, after = data.draw(neighbours), data.draw(neighbours)
    corrupt = data.draw(CALLERS[protocol].flatmap(lambda caller: mutations(caller.body)))
    try:
        parsed = codec.parse_request(corrupt)
    except BadRequest:
        return
    batch = joined(codec, parsed.lane_key, [b",".join(before), parsed.items, b",".join(after)])
    found = instances_of(protocol, batch)
    first, last = [load(instance) for instance in before], [load(instance) for instance in after]
    assert len(found) == len(first) + parsed.instances + len(last)
    assert found[: len(first)] == first
    assert found[len(found) - len(last) :] == last
    cut = codec.cut(parsed.lane_key, parsed.items)
    assert cut.part(0, parsed.instances + 1) == b", ".join(one_by_one(codec, parsed))


@many
@given(data=st.data())
def test_a_key_that_a_caller_says_twice_is_refused(data: st.DataObject) -> None:
    again = data.draw(st.sampled_from([b'"instances"', b'"\\u0069nstances"', b'"k"', b'"\\u006b"']))
    pieces = [b'"instances":[1]', b'"k":%b' % data.draw(values), b"%b:%b" % (again, data.draw(values))]
    body = b"{%b}" % b" , ".join(data.draw(st.permutations(pieces)))
    with pytest.raises(BadRequest):
        codec_for("kserve-v1").parse_request(body)


@PROTOCOLS
@many
@given(pieces=st.lists(st.sampled_from([*FRAGMENTS, b'{"instances":[', b'{"predictions":[', b"]}"]), max_size=12))
def test_whatever_comes_is_taken_or_refused_and_never_a_crash(protocol: str, pieces: list[bytes]) -> None:
    codec, text = codec_for(protocol), b"".join(pieces)
    try:
        parsed = codec.parse_request(text)
    except BadRequest:
        pass
    else:
        assert parsed.instances >= 1
    try:
        reply = codec.split_reply(b"", text)
    except BackendContract:
        pass
    else:
        assert codec.render([(reply, 0, reply.count)], b"")


HEADS = [b"POST / HTTP/1.1\r\n\r\n", b'x: {"instances": [1]}', b'["', b"]}", b"\xff\r\n\r\n", b"NaN"]


@PROTOCOLS
@many
@given(data=st.data(), head=st.sampled_from(HEADS))
def test_what_stands_before_a_body_in_the_same_buffer_changes_nothing(
    protocol: str, data: st.DataObject, head: bytes
) -> None:
    codec, caller = codec_for(protocol), data.draw(CALLERS[protocol])
    body = data.draw(st.just(caller.body) | mutations(caller.body))

    def outcome(text: bytes, start: int) -> tuple[bytes, int, bytes, bytes] | None:
        try:
            parsed = codec.parse_request(text, start)
        except BadRequest:
            return None
        return bytes(parsed.items), parsed.instances, parsed.lane_key, parsed.own

    assert outcome(head + body, len(head)) == outcome(body, 0)


@PROTOCOLS
@more
@given(data=st.data())
def test_a_corrupt_reply_breaks_the_contract_or_is_still_whole_items(protocol: str, data: st.DataObject) -> None:
    codec, backend = codec_for(protocol), data.draw(backends(protocol))
    instances = data.draw(st.lists(values, min_size=1, max_size=4))
    reply_text = data.draw(mutations(backend(joined(codec, b"", instances))))
    try:
        reply = codec.split_reply(b"", reply_text)
    except BackendContract:
        return
    parsed = ParsedRequest(b",".join(reply.items), reply.count, b"")
    assert one_by_one(codec, parsed) == reply.items
    again = codec.split_reply(*codec.render([(reply, 0, reply.count)], b""))
    assert again.items == reply.items
