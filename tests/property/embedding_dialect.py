"""OpenAI's embeddings as their callers write them, with a double that counts tokens as the proxy weighs them."""

from __future__ import annotations

import json
from typing import NamedTuple

from hypothesis import strategies as st

from mlproxy.protocols import Answer, codec_for
from mlproxy.testing.conformance import Dialect, Sent
from mlproxy.testing.json_reading import elements, members
from mlproxy.testing.json_texts import commas, spaces, strings
from tests.property.dialects import LAYOUTS, Layout, body_of, said

BESIDE = [[b'"model":"a"'], [b'"model":"a"'], [b'"model" : "b"'], [b'"model":"a"', b'"encoding_format": "base64"'], []]
_token_lists = st.lists(st.integers(0, 99_999), max_size=4).map(lambda tokens: json.dumps(tokens).encode())


class Order(NamedTuple):
    """How a backend writes its items: where, and in which order."""

    array: Layout
    turned: bool


class Embeddings(Dialect):
    """A text, texts, tokens, or lists of tokens."""

    codec = codec_for("openai-embeddings")
    fragments = (b'{"input":[', b'{"data":[{"index":0}', b'{"index":1}', b'"usage":{"total_tokens":3}', b"]}")
    plain = Order(Layout(), turned=False)

    def callers(self) -> st.SearchStrategy[Sent]:
        return _callers()

    def layouts(self) -> st.SearchStrategy[Order]:
        return st.just(self.plain) | st.builds(Order, LAYOUTS, st.booleans())

    def reply(self, body: bytes, json_bytes: int, layout: Order) -> Answer:
        beside = members(body.decode())
        inputs = _inputs(beside.pop("input"))
        items = [
            f'{{"object": "embedding", "note": "\\"index\\": 9", "index": {index}, "embedding": [{text}]}}'
            for index, text in enumerate(inputs)
        ]
        tokens = sum(_tokens(text) for text in inputs)
        usage = f'{{"prompt_tokens": {tokens}, "of": "]}}", "cost": 0.1, "total_tokens": {2 * tokens}}}'
        array = layout.array.array(items[::-1] if layout.turned else items)
        parts = [f'"usage": {usage}', f'"beside": {said(beside)}', f'"data": {array}']
        return b"", f"{{{layout.array.before}{', '.join(parts)}{layout.array.behind}}}".encode()


def _inputs(value: str) -> list[str]:
    """The text of each input."""
    if value.startswith('"'):
        return [value]
    found = elements(value)
    if not found[0].startswith(("[", '"')):
        return [value]
    assert len({text[0] for text in found}) == 1, "texts and tokens in one array"
    return found


def _tokens(text: str) -> int:
    decoded = json.loads(text)
    if isinstance(decoded, str):
        return len(decoded.encode())
    assert all(type(token) is int for token in decoded)
    return len(decoded)


@st.composite
def _callers(draw: st.DrawFn) -> Sent:
    texts = draw(st.lists(strings(), min_size=1, max_size=4) | st.lists(_token_lists, min_size=1, max_size=4))
    value, count = b"[%b%b]" % (draw(spaces), commas(draw, texts)), len(texts)
    if draw(st.booleans()) and texts[0] != b"[]":
        value, count = texts[0], 1
    return Sent(body_of(draw, [b'"input":%b%b' % (draw(spaces), value), *draw(st.sampled_from(BESIDE))]), count)
