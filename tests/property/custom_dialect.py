"""Bodies of any shape, as protocol custom may be told to read them, each with a backend's double."""

from __future__ import annotations

from hypothesis import strategies as st

from mlproxy.protocols import Answer
from mlproxy.protocols.custom import Custom
from mlproxy.testing.conformance import Dialect, Sent
from mlproxy.testing.json_reading import elements, members
from mlproxy.testing.json_texts import commas, spaces, values
from tests.property.dialects import LAYOUTS, Layout, body_of, computed, said

BESIDE = [[], [], [b'"k" : 1'], [b'"k":NaN', b'"":[]']]
_instances = st.lists(values, min_size=1, max_size=4)


class Nested(Dialect):
    """``{"data": [<any>, {"in": {"ro/ws": […]}}], …}`` → ``{"results": [{"": […]}], …}``, with a constant."""

    codec = Custom("/data/1/in/ro~1ws", "/results/0/", constants={"model": ["m"]})
    fragments = (b'{"data":[0,{"in":{"ro/ws":[', b'{"results":[{"":[', b"]}", b"]}}]}")
    plain = Layout()

    def callers(self) -> st.SearchStrategy[Sent]:
        return _nested()

    def layouts(self) -> st.SearchStrategy[Layout]:
        return LAYOUTS

    def reply(self, body: bytes, json_bytes: int, layout: Layout) -> Answer:
        top = members(body.decode())
        first, second, *rest = elements(top.pop("data"))
        outer = members(second)
        inner = members(outer.pop("in"))
        array = layout.array([computed(item) for item in elements(inner.pop("ro/ws"))])
        top["model"] = '["m"]'  # a caller that comes without the proxy says what it likes
        beside = said(top), said(outer), said(inner), said({"first": first, "rest": f"[{','.join(rest)}]"})
        return b"", f'{{{layout.before}"results": [{{"": {array}}}, {", ".join(beside)}]{layout.behind}}}'.encode()


@st.composite
def _nested(draw: st.DrawFn) -> Sent:
    instances = draw(_instances)
    array = b'"ro%b/ws" :%b[%b]' % (draw(st.sampled_from([b"", b"", b"\\"])), draw(spaces), commas(draw, instances))
    inner = body_of(draw, [array, *draw(st.sampled_from(BESIDE))])
    inner = body_of(draw, [b'"in":' + inner, *draw(st.sampled_from(BESIDE))])
    rest = draw(st.sampled_from([[], [], [b'"]"', b"NaN"]]))
    data = b'"data":%b[%b]' % (draw(spaces), b",".join([draw(st.sampled_from([b"0", b'{"ro/ws":[9]}'])), inner, *rest]))
    model = draw(st.sampled_from([[], [b'"model": "own"']]))
    return Sent(body_of(draw, [data, *model, *draw(st.sampled_from(BESIDE))]), len(instances))


class Bare(Dialect):
    """``{"x": <anything>, …}`` → ``{"y": <anything>, …}``: one instance without an array around it."""

    codec = Custom("/x", "/y", wrap=True, unwrap=True)
    fragments = (b'{"x":', b'{"y":[', b"]}")
    answers_are_replies = False
    plain = Layout()

    def callers(self) -> st.SearchStrategy[Sent]:
        return _bare()

    def layouts(self) -> st.SearchStrategy[Layout]:
        return LAYOUTS

    def reply(self, body: bytes, json_bytes: int, layout: Layout) -> Answer:
        beside = members(body.decode())
        return self._write(layout.array([computed(item) for item in elements(beside.pop("x"))]), beside, layout)

    def alone(self, sent: Sent) -> Answer:
        beside = members(sent.body.decode())
        return self._write(computed(beside.pop("x")), beside, self.plain)

    @staticmethod
    def _write(value: str, beside: dict[str, str], layout: Layout) -> Answer:
        return b"", f'{{{layout.before}"y": {value}, "beside": {said(beside)}{layout.behind}}}'.encode()


@st.composite
def _bare(draw: st.DrawFn) -> Sent:
    return Sent(body_of(draw, [b'"x":%b%b' % (draw(spaces), draw(values)), *draw(st.sampled_from(BESIDE))]), 1)
