"""JSON as people might write it, and accidents that may happen to it: what protocols are tried with. **Pure.**"""

from __future__ import annotations

import json

from hypothesis import strategies as st

spaces = st.sampled_from(["", "", "", " ", "\n", "\t ", " \r\n"]).map(str.encode)
numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True).map(str.encode)
words = st.sampled_from([b"true", b"false", b"null", b"NaN", b"Infinity", b"-Infinity"])
_tricky = st.sampled_from(
    ['"', "\\", "]", "}", "[", "{", ",", ":", "NaN", "-Infinity", "/", "é", "😀", "\n", "\x7f", "\x00"]
)


@st.composite
def strings(draw: st.DrawFn) -> bytes:
    """A string with some of its characters escaped, in one of the ways that JSON has for it."""
    text = "".join(draw(st.lists(st.characters(exclude_categories=["Cs"]) | _tricky, max_size=6)))
    plain = json.dumps(text, ensure_ascii=draw(st.booleans()))
    return (plain.replace("/", "\\/") if draw(st.booleans()) else plain).encode()


def commas(draw: st.DrawFn, pieces: list[bytes]) -> bytes:
    """The inside of an array or object."""
    before, after = draw(spaces), draw(spaces)
    return b",".join(before + piece + after for piece in pieces) or before


@st.composite
def arrays(draw: st.DrawFn, elements: st.SearchStrategy[bytes]) -> bytes:
    """An array."""
    return b"[%b]" % commas(draw, draw(st.lists(elements, max_size=4)))


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[bytes]) -> bytes:
    """An object, in which a key may stand twice: below the top that is the backend's business."""
    pairs = draw(st.lists(st.tuples(strings(), values), max_size=3))
    return b"{%b}" % commas(draw, [b"%b%b:%b%b" % (key, draw(spaces), draw(spaces), value) for key, value in pairs])


values = st.recursive(numbers | words | strings(), lambda inner: arrays(inner) | objects(inner), max_leaves=8)


#: Pieces that could matter to a splitter.
FRAGMENTS = [
    b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"]}", b"],", b"},{", b"],[", b'"a":1', b',"instances":[9]',
    b'"instances":', b',"instances":[9],"instances":', b"]}{", b'],"x":[', b"NaN", b"-Infinity", b"-", b"1", b".", b"e",
    b" ", b"\n", b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\\u0022", b"\\ud800", b"/*", b"//",
]  # fmt: skip


@st.composite
def mutations(draw: st.DrawFn, body: bytes) -> bytes:
    """``body`` after a few accidents."""
    for _ in range(draw(st.integers(1, 3))):
        start, end = sorted(draw(st.tuples(st.integers(0, len(body)), st.integers(0, len(body)))))
        fragment = draw(st.sampled_from(FRAGMENTS) | st.binary(max_size=3))
        match draw(st.sampled_from(["insert", "insert", "replace", "byte", "delete", "truncate", "double", "swap"])):
            case "insert":
                body = body[:start] + fragment + body[start:]
            case "replace":
                body = body[:start] + fragment + body[end:]
            case "byte":
                body = body[:start] + fragment + body[start + 1 :]
            case "delete":
                body = body[:start] + body[start + 1 :]
            case "truncate":
                body = body[:end]
            case "double":
                body = body[:end] + body[start:]
            case _:
                body = body[end:] + body[start:end] + body[:start]
    return body
