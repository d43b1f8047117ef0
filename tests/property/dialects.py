"""The JSON protocols as callers write them, each with a backend's double: what their codecs are tried with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import strategies as st

from mlproxy.protocols import Answer, codec_for
from mlproxy.testing.conformance import Dialect, Sent
from mlproxy.testing.json_reading import elements, meaning, members
from mlproxy.testing.json_texts import commas, objects, spaces, values

#: What a body may say beside its instances; each is a lane.
BESIDE = [[], [], [b'"signature_name": "a"'], [b'"signature_name" :"b"', b'"parameters":{"k":NaN}'], [b'"":null']]


class Layout(NamedTuple):
    """How a double writes its arrays, and what it says before and behind them."""

    opening: str = "["
    separator: str = ", "
    closing: str = "]"
    before: str = ""
    behind: str = ""

    def array(self, items: Sequence[str]) -> str:
        """An array."""
        return self.opening + self.separator.join(items) + self.closing


_texts = spaces.map(bytes.decode)
LAYOUTS = st.just(Layout()) | st.builds(
    Layout,
    st.builds("{}[{}".format, _texts, _texts),
    st.builds("{},{}".format, _texts, _texts),
    st.builds("{}]{}".format, _texts, _texts),
    st.sampled_from(["", '"model": "]}[",', '"spec": {"predictions": [0], "outputs": [1]}, ']),
    st.sampled_from(["", ',"version":[1]', ', "timing": NaN']),
)


def computed(item: str) -> str:
    """The prediction for an instance: nothing else can have brought it about."""
    return f'{{"of": {item}}}'


def said(beside: dict[str, str]) -> str:
    """What a body said beside its instances, in whatever order and layout."""
    return json.dumps(repr(sorted((key, meaning(value)) for key, value in beside.items())))


def body_of(draw: st.DrawFn, pieces: Sequence[bytes]) -> bytes:
    """An object with these members, in any order."""
    return draw(spaces) + b"{%b}" % commas(draw, draw(st.permutations(pieces))) + draw(spaces)


_instances = st.lists(values, min_size=1, max_size=4)


class Rows(Dialect):
    """``{"instances": …}`` with other members around it."""

    codec = codec_for("kserve-v1")
    fragments = (b'{"instances":[', b'{"predictions":[', b"]}")
    plain = Layout()

    def callers(self) -> st.SearchStrategy[Sent]:
        return _rows()

    def layouts(self) -> st.SearchStrategy[Layout]:
        return LAYOUTS

    def reply(self, body: bytes, json_bytes: int, layout: Layout) -> Answer:
        beside = members(body.decode())
        array = layout.array([computed(item) for item in elements(beside.pop("instances"))])
        text = f'{{{layout.before}"predictions": {array}, "beside": {said(beside)}{layout.behind}}}'
        return b"", text.encode()


@st.composite
def _rows(draw: st.DrawFn) -> Sent:
    instances = draw(_instances)
    key = draw(st.sampled_from([b'"instances"', b'"instances"', b'"inst\\u0061nces"']))
    array = b"%b%b:%b[%b]" % (key, draw(spaces), draw(spaces), commas(draw, instances))
    return Sent(body_of(draw, [array, *draw(st.sampled_from(BESIDE))]), len(instances))


class Listed(Dialect):
    """``[…]``, or one bare object."""

    codec = codec_for("json-list")
    plain = Layout()

    def callers(self) -> st.SearchStrategy[Sent]:
        return _listed() | objects(values).map(lambda bare: Sent(bare, 1))

    def layouts(self) -> st.SearchStrategy[Layout]:
        return LAYOUTS

    def reply(self, body: bytes, json_bytes: int, layout: Layout) -> Answer:
        text = body.decode()
        if text.startswith("{"):  # only to a caller itself: a batch is an array
            meaning(text)
            return b"", computed(text).encode()
        return b"", layout.array([computed(item) for item in elements(text)]).encode()


@st.composite
def _listed(draw: st.DrawFn) -> Sent:
    instances = draw(_instances)
    return Sent(draw(spaces) + b"[%b]" % commas(draw, instances) + draw(spaces), len(instances))


class Columns(Dialect):
    """``{"inputs": …}``: an object of arrays, or one of them without a name."""

    codec = codec_for("kserve-v1")
    fragments = (b'{"inputs":{"a":[', b'{"outputs":{"a":[', b'{"inputs":[', b'{"outputs":[', b"]}}", b"]}")
    plain = Layout()

    def callers(self) -> st.SearchStrategy[Sent]:
        return _columns()

    def layouts(self) -> st.SearchStrategy[Layout]:
        return LAYOUTS

    def reply(self, body: bytes, json_bytes: int, layout: Layout) -> Answer:
        beside = members(body.decode())
        inputs = beside.pop("inputs")
        if inputs.startswith("["):
            outputs = layout.array([computed(row) for row in elements(inputs)])
        else:
            columns = {name: elements(array) for name, array in members(inputs).items()}
            assert len({len(column) for column in columns.values()}) == 1
            written = [
                f"{json.dumps(name + '_out')}: {layout.array([computed(row) for row in column])}"
                for name, column in sorted(columns.items())
            ]
            outputs = f"{{{', '.join(written)}}}"
        return b"", f'{{{layout.before}"outputs": {outputs}, "beside": {said(beside)}{layout.behind}}}'.encode()


@st.composite
def _columns(draw: st.DrawFn) -> Sent:
    names = draw(st.sampled_from([["a", "b"], ["b", "a"], ["a"], ["", 'é"]'], None]))
    count = draw(st.integers(1, 4))
    arrays = [b"[%b]" % commas(draw, draw(st.lists(values, min_size=count, max_size=count))) for _ in names or [""]]
    if names is None:
        inputs = arrays[0]
    else:
        keys = [json.dumps(name, ensure_ascii=draw(st.booleans())).encode() for name in names]
        inputs = b"{%b}" % commas(
            draw, [b"%b%b: %b" % (key, draw(spaces), array) for key, array in zip(keys, arrays, strict=True)]
        )
    return Sent(body_of(draw, [b'"inputs":%b' % inputs, *draw(st.sampled_from(BESIDE))]), count)
