"""JSON pointers lead to exactly one value, where it stands."""

from __future__ import annotations

import pytest

from mlproxy.pointers import tokens_of
from mlproxy.protocols.json_pointer import locate
from mlproxy.protocols.json_slice import JsonError

#: The examples of RFC 6901, section 5.
DOCUMENT = (
    b' {"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4,'
    b' "i\\\\j": 5, "k\\"l": 6, " ": 7, "m~n": 8}\n'
)


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", DOCUMENT.strip()), ("/foo", b'["bar", "baz"]'), ("/foo/0", b'"bar"'), ("/foo/1", b'"baz"'), ("/", b"0"),
        ("/a~1b", b"1"), ("/c%d", b"2"), ("/e^f", b"3"), ("/g|h", b"4"), ("/i\\j", b"5"), ('/k"l', b"6"),
        ("/ ", b"7"), ("/m~0n", b"8"),
    ],
)  # fmt: skip
def test_the_examples_of_the_rfc(pointer: str, value: bytes) -> None:
    span = locate(DOCUMENT, tokens_of(pointer))
    assert span is not None
    assert DOCUMENT[span.start : span.end] == value


@pytest.mark.parametrize(
    "pointer", ["/none", "/foo/2", "/foo/-", "/foo/01", "/foo/-1", "/foo/+0", "/foo/bar", "/a~1b/0"]
)
def test_what_is_not_there_is_nowhere(pointer: str) -> None:
    assert locate(DOCUMENT, tokens_of(pointer)) is None


def test_an_element_is_found_between_others_however_they_are_written() -> None:
    text = b'[ [1,[2] ] , NaN ,"]," , {"a" : [ 10 , 20 ]} ]'
    assert [text[slice(*span)] for index in range(4) if (span := locate(text, (str(index),)))] == [
        b"[1,[2] ]", b"NaN", b'"],"', b'{"a" : [ 10 , 20 ]}',
    ]  # fmt: skip
    assert locate(text, ("3", "a", "1")) == (text.index(b"20"), text.index(b"20") + 2)


def test_tilde_and_slash_are_unescaped_in_the_order_of_the_rfc() -> None:
    assert tokens_of("/~01/~10") == ("~1", "/0")


@pytest.mark.parametrize("text", [b"", b"{", b'{"a":1}x', b'{"a":1,"a":2}', b'{"\xff":1}'])
def test_what_is_no_json_has_no_places(text: bytes) -> None:
    with pytest.raises(JsonError):
        locate(text, ("a",))
