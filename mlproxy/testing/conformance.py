"""What every protocol must be able to promise, tried at random. **Pure.**

A `Dialect` says how callers of a protocol write, and answers as its backend would. Each of `PROPERTIES` is then a
sentence about any codec, tried with hypothesis (see docs/protocols.md)::

    @pytest.mark.parametrize("holds", PROPERTIES)
    @given(data=st.data())
    def test_my_protocol_conforms(holds: Property, data: st.DataObject) -> None:
        holds(MyDialect(), data)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

from hypothesis import strategies as st

from mlproxy.errors import BackendContract, BadRequest
from mlproxy.protocols import Answer, Codec, ParsedRequest, Reply, Text
from mlproxy.protocols.compare import difference
from mlproxy.testing.json_texts import FRAGMENTS, mutations

_JSON_BYTES = re.compile(rb"inference-header-content-length: (\d+)\r\n")


class Sent(NamedTuple):
    """A caller's request."""

    body: bytes
    instances: int
    json_bytes: int = 0  #: of the body, where tensors in binary follow; 0: all


class Dialect:
    """A protocol as its callers write it, and a backend's double that speaks it.

    The double reads bodies with code of its own, and fails with AssertionError or ValueError for what is not a sound
    body. Its reply says of each instance something that only this instance can have brought about, byte for byte, and
    beside them everything else that the body said.
    """

    codec: Codec[Any]
    #: Pieces of text that could matter to its codec, beside those that matter to all.
    fragments: Sequence[bytes] = ()
    #: An answer is again a reply, to fewer instances.
    answers_are_replies = True
    #: The layout in which the double writes as the codec does: then an answer is what the backend itself would say.
    plain: Any = None

    def callers(self) -> st.SearchStrategy[Sent]:
        """Sound requests, in any layout; some of them may share a batch, and some may not."""
        raise NotImplementedError

    def layouts(self) -> st.SearchStrategy[Any]:
        """Ways in which a backend may write its reply."""
        return st.just(self.plain)

    def reply(self, body: bytes, json_bytes: int, layout: Any) -> Answer:
        """The backend's reply to a batch: header lines about the body, and the body."""
        raise NotImplementedError

    def alone(self, sent: Sent) -> Answer:
        """What a caller is to get: what the backend would have said to it, in the layout `plain`."""
        return self.reply(sent.body, sent.json_bytes, self.plain)


class _Member(NamedTuple):
    """A request, or a part of one."""

    number: int  #: of the request
    first: int
    instances: int
    items: Text


def parse(codec: Codec[Any], sent: Sent) -> ParsedRequest:
    """What the codec finds in a sound request."""
    parsed = codec.parse_request(sent.body, 0, sent.json_bytes)
    assert parsed.instances == sent.instances
    return parsed


def call(dialect: Dialect, lane_key: bytes, items: Sequence[Text], layout: Any) -> Reply:
    """A batch's way to the double and back."""
    # As they come over the ring; and once more, because a batch may be sent again.
    batch = dialect.codec.join(lane_key, [bytes(one) for one in items])
    again = dialect.codec.join(lane_key, [bytes(one) for one in items])
    body = b"".join(batch.buffers)
    assert body == b"".join(again.buffers)
    headers, reply = dialect.reply(body, _json_bytes(batch.headers), layout)
    split: Reply = dialect.codec.split_reply(headers, reply, batch.asked)
    return split


def _json_bytes(headers: bytes) -> int:
    found = _JSON_BYTES.search(headers)
    return int(found[1]) if found else 0


def each_caller_gets_what_it_would_get_alone(dialect: Dialect, data: st.DataObject) -> None:
    """Whoever shares its batches, however these are grouped, and however it is split over them."""
    codec, layout = dialect.codec, data.draw(dialect.layouts())
    callers = data.draw(st.lists(dialect.callers(), min_size=1, max_size=5))
    requests = [parse(codec, sent) for sent in callers]
    pieces: list[dict[int, tuple[Reply, int, int]]] = [{} for _ in callers]
    for batch in _batches(dialect.codec, requests, data):
        lane_key = requests[batch[0].number].lane_key
        reply = call(dialect, lane_key, [member.items for member in batch], layout)
        first = 0
        for member in batch:
            pieces[member.number][member.first] = (reply, first, member.instances)
            first += member.instances
        assert reply.count == first
    for sent, request, own in zip(callers, requests, pieces, strict=True):
        shared = [own[first] for first in sorted(own)]
        alone = [(call(dialect, request.lane_key, [request.items], layout), 0, request.instances)]
        answer = codec.render(shared, request.own)
        assert answer == codec.render(alone, request.own)
        assert _difference(codec, shared, alone) is None
        if layout == dialect.plain:
            assert answer == dialect.alone(sent)


def _difference(codec: Codec[Any], one: Sequence[Any], other: Sequence[Any]) -> str | None:
    try:
        return difference(codec.values(one), codec.values(other), 0.0)
    except ValueError:  # as `values` says: NaN, which some write, is none in JSON
        return None


def _batches(codec: Codec[Any], requests: list[ParsedRequest], data: st.DataObject) -> Iterator[list[_Member]]:
    """Every instance in some batch, in any order and company that their lanes allow."""
    max_size = data.draw(st.integers(1, 6))
    members = [one for number, request in enumerate(requests) for one in _members(codec, number, request, max_size)]
    lanes: dict[bytes, list[_Member]] = {}
    for member in data.draw(st.permutations(members)):
        lane_key = requests[member.number].lane_key
        batch = lanes.setdefault(lane_key, [])
        if sum(one.instances for one in batch) + member.instances > max_size:
            yield batch
            batch = lanes[lane_key] = []
        batch.append(member)
    yield from lanes.values()


def _members(codec: Codec[Any], number: int, request: ParsedRequest, max_size: int) -> Iterator[_Member]:
    if request.instances <= max_size:
        yield _Member(number, 0, request.instances, request.items)
        return
    cut = codec.cut(request.lane_key, bytes(request.items))
    for first in range(0, request.instances, max_size):
        count = min(max_size, request.instances - first)
        yield _Member(number, first, count, cut.part(first, count))


def a_corrupt_request_is_refused_or_leaves_its_neighbours_as_they_are(dialect: Dialect, data: st.DataObject) -> None:
    """What somebody breaks in a body never reaches beyond that body's own instances."""
    codec, sent = dialect.codec, data.draw(dialect.callers())
    text = data.draw(mutations(sent.body))
    grown_bytes = data.draw(st.sampled_from([0, len(text) - len(sent.body)]))
    try:
        corrupt = codec.parse_request(text, 0, sent.json_bytes and max(1, sent.json_bytes + grown_bytes))
    except BadRequest:
        return
    assert call(dialect, corrupt.lane_key, [corrupt.items], dialect.plain).count == corrupt.instances
    sound = parse(codec, sent)
    if corrupt.lane_key != sound.lane_key:
        return
    reply = call(dialect, sound.lane_key, [sound.items, corrupt.items, sound.items], dialect.plain)
    assert reply.count == 2 * sound.instances + corrupt.instances
    for first in (0, sound.instances + corrupt.instances):
        assert codec.render([(reply, first, sound.instances)], sound.own) == dialect.alone(sent)


def a_corrupt_reply_breaks_the_contract_or_is_still_whole_items(dialect: Dialect, data: st.DataObject) -> None:
    """Nobody is given a piece of an item, or something that cannot be read."""
    codec, sent = dialect.codec, data.draw(dialect.callers())
    request = parse(codec, sent)
    batch = codec.join(request.lane_key, [bytes(request.items)])
    headers, body = dialect.reply(b"".join(batch.buffers), _json_bytes(batch.headers), dialect.plain)
    try:
        reply = codec.split_reply(headers, data.draw(mutations(body)), batch.asked)
    except BackendContract:
        return
    answers = [(codec.render([(reply, index, 1)], b""), 1) for index in range(reply.count)]
    answers.append((codec.render([(reply, 0, reply.count)], b""), reply.count))
    if dialect.answers_are_replies:
        assert all(codec.split_reply(*answer, batch.asked).count == count for answer, count in answers)


def whatever_comes_is_taken_or_refused(dialect: Dialect, data: st.DataObject) -> None:
    """No text is a crash: neither from a caller nor from a backend."""
    codec = dialect.codec
    text = b"".join(data.draw(st.lists(st.sampled_from([*FRAGMENTS, *dialect.fragments]), max_size=12)))
    with suppress(BadRequest):
        assert codec.parse_request(text).instances >= 1
    request = parse(codec, data.draw(dialect.callers()))
    try:
        reply = codec.split_reply(b"", text, codec.join(request.lane_key, [bytes(request.items)]).asked)
    except BackendContract:
        return
    codec.render([(reply, 0, reply.count)], b"")


def what_stands_before_a_body_in_the_same_buffer_changes_nothing(dialect: Dialect, data: st.DataObject) -> None:
    """A body is parsed where it was received: behind the head."""
    codec, sent = dialect.codec, data.draw(dialect.callers())
    body = data.draw(st.just(sent.body) | mutations(sent.body))
    head = data.draw(
        st.sampled_from([b"POST / HTTP/1.1\r\n\r\n", b'x: {"instances": [1]}', b'["', b"\xff\r\n\r\n", b"]}"])
    )

    def outcome(text: bytes, start: int) -> tuple[object, ...] | None:
        try:
            parsed = codec.parse_request(text, start, sent.json_bytes)
        except BadRequest:
            return None
        return bytes(parsed.items), parsed.instances, parsed.lane_key, parsed.own, parsed.timeout_ns, parsed.priority

    assert outcome(head + body, len(head)) == outcome(body, 0)


Property: TypeAlias = Callable[[Dialect, st.DataObject], None]

#: All of them, of any codec.
PROPERTIES: tuple[Property, ...] = (
    each_caller_gets_what_it_would_get_alone,
    a_corrupt_request_is_refused_or_leaves_its_neighbours_as_they_are,
    a_corrupt_reply_breaks_the_contract_or_is_still_whole_items,
    whatever_comes_is_taken_or_refused,
    what_stands_before_a_body_in_the_same_buffer_changes_nothing,
)
