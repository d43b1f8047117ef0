"""Protocols in JSON for the differential test, as their callers and model servers write them. **Pure.**"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tests.system.differential_kinds import Item, Message, count_of
from tests.system.received import elements_of, instances_of


def _instance(rng: random.Random, number: int, index: int, poison: bool) -> str:
    """As people write them: objects and arrays, spaces, numbers and strings that would not survive being decoded."""
    word = rng.choice(('"\\u00e9"', '"é"', "1.50", "-0.0", "1e3", "[[], {}]", "9007199254740993", '"],[\\""', "null"))
    first = f'{number}, "poison"' if poison else str(number)
    if rng.random() < 0.5:
        return f"[{first}, {index},{word}]"
    also = ', "poison" : [1]' if poison else ""
    return f'{{"request":{number} , "at": [{index}], "x":{word}{also}}}'


def _instances(rng: random.Random, number: int, poison: bool) -> list[str]:
    """Those of one request, one of them with the poison."""
    count = count_of(rng)
    at = rng.randrange(count)
    return [_instance(rng, number, index, poison and index == at) for index in range(count)]


def _item(text: bytes) -> Item:
    value = json.loads(text)
    number = value["request"] if isinstance(value, dict) else value[0]
    return Item(number, "poison" in value, text)


def _predictions(items: Sequence[Item]) -> bytes:
    return b", ".join([b'{"of": %d, "crc": %d}' % (item.request, zlib.crc32(item.content)) for item in items])


class KServeV1:
    """Rows, with members beside them that separate lanes."""

    name, protocol, route = "v1", "kserve-v1", "/v1/models/v1:predict"
    settings: ClassVar[Mapping[str, Any]] = {}

    def request(self, rng: random.Random, number: int, poison: bool) -> Message:
        rows = _instances(rng, number, poison)
        beside = rng.choice(("", "", '"signature_name": "s", ', '"parameters":{"k":[1, 2.50]} ,'))
        return Message("", f'{{{beside}"instances": [{", ".join(rows)}]}}'.encode())

    def read(self, call: Message) -> list[Item]:
        return [_item(text) for text in instances_of(call.body)]

    def write(self, call: Message, items: Sequence[Item]) -> Message:
        signature = json.loads(call.body).get("signature_name", "")
        return Message("", b'{"predictions": [%b], "signature": "%b"}' % (_predictions(items), signature.encode()))


class JsonList:
    """An array, or a bare object, which is answered by a bare prediction."""

    name, protocol, route = "list", "json-list", "/list/predict"
    settings: ClassVar[Mapping[str, Any]] = {}

    def request(self, rng: random.Random, number: int, poison: bool) -> Message:
        rows = _instances(rng, number, poison)
        bare = len(rows) == 1 and rows[0].startswith("{")
        return Message("", (rows[0] if bare else f"[{', '.join(rows)}]").encode())

    def read(self, call: Message) -> list[Item]:
        return [_item(text) for text in (instances_of(call.body) if call.body[:1] == b"[" else [call.body])]

    def write(self, call: Message, items: Sequence[Item]) -> Message:
        inside = _predictions(items)
        return Message("", inside if call.body[:1] == b"{" else b"[%b]" % inside)


class Columns:
    """TF-Serving's columns: two inputs, two outputs, row by row."""

    name, protocol, route = "columns", "kserve-v1", "/v1/models/columns:predict"
    settings: ClassVar[Mapping[str, Any]] = {}

    def request(self, rng: random.Random, number: int, poison: bool) -> Message:
        rows = _instances(rng, number, poison)
        weights = ",".join([rng.choice(("1.0", "2e0", "[ ]")) for _ in rows])
        inputs = [f'"row": [{", ".join(rows)}]', f'"weight":[{weights}]']
        rng.shuffle(inputs)
        return Message("", f'{{"inputs": {{{" , ".join(inputs)}}}}}'.encode())

    def read(self, call: Message) -> list[Item]:
        rows, weights = elements_of(call.body, "inputs", "row"), elements_of(call.body, "inputs", "weight")
        items = [_item(row) for row in rows]
        return [item._replace(content=item.content + weight) for item, weight in zip(items, weights, strict=True)]

    def write(self, call: Message, items: Sequence[Item]) -> Message:
        said = b", ".join([b'[%d, "]"]' % item.request for item in items])
        return Message("", b'{"outputs": {"y": [%b], "said": [%b]}}' % (_predictions(items), said))


class Embeddings:
    """Texts and lists of tokens, of two models; usage is what the proxy takes for the size of an input."""

    name, protocol, route = "embeddings", "openai-embeddings", "/v1/embeddings"
    settings: ClassVar[Mapping[str, Any]] = {}

    def request(self, rng: random.Random, number: int, poison: bool) -> Message:
        count = count_of(rng)
        at = rng.randrange(count)
        model = rng.choice(("a", "b"))
        if rng.random() < 0.5:
            lists = [[number, index, *([_POISON] * (poison and index == at))] for index in range(count)]
            return _embed(model, lists[0] if count == 1 and rng.random() < 0.5 else lists)
        texts = [f"{number} {index} é]" + " poison" * (poison and index == at) for index in range(count)]
        return _embed(model, texts[0] if count == 1 and rng.random() < 0.5 else texts)

    def read(self, call: Message) -> list[Item]:
        given = json.loads(call.body)["input"]
        several = isinstance(given, list) and not isinstance(given[0], int)
        return [self._item(one) for one in (given if several else [given])]

    def write(self, call: Message, items: Sequence[Item]) -> Message:
        item_of = b'{"object": "embedding", "index": %d, "embedding": [%d, 0.5]}'
        data = [item_of % (at, zlib.crc32(repr(item.content).encode())) for at, item in enumerate(items)]
        used = sum(len(item.content.encode() if isinstance(item.content, str) else item.content) for item in items)
        model = json.dumps(json.loads(call.body)["model"]).encode()
        usage = b'{"prompt_tokens": %d, "total_tokens": %d}' % (used, used)
        return Message(
            "", b'{"object": "list", "data": [%b], "model": %b, "usage": %b}' % (b", ".join(data), model, usage)
        )

    @staticmethod
    def _item(one: str | list[int]) -> Item:
        if isinstance(one, str):
            return Item(int(one.partition(" ")[0]), "poison" in one, one)
        return Item(one[0], _POISON in one, one)


_POISON = 1_000_000_007


def _embed(model: str, given: Any) -> Message:
    return Message("", json.dumps({"input": given, "model": model}).encode())


class Custom:
    """Instances and items deep inside, and what stands around them."""

    name, protocol, route = "custom", "custom", "/score"
    settings: ClassVar[Mapping[str, Any]] = {
        "route": route,
        "request": {"items": "/in/rows", "constants": {"version": 2}},
        "response": {"items": "/out/1/list"},
    }

    def request(self, rng: random.Random, number: int, poison: bool) -> Message:
        rows = _instances(rng, number, poison)
        tenant = rng.choice(("a", "b"))
        return Message("", f'{{"in":{{"rows" :[{", ".join(rows)}], "mode": 1}}, "tenant":"{tenant}"}}'.encode())

    def read(self, call: Message) -> list[Item]:
        return [_item(text) for text in elements_of(call.body, "in", "rows")]

    def write(self, call: Message, items: Sequence[Item]) -> Message:
        tenant = json.loads(call.body)["tenant"].encode()
        return Message("", b'{"tenant": "%b", "out": ["]", {"list": [%b], "of": 1}]}' % (tenant, _predictions(items)))
