"""JSON is cut where it stands: what comes out are the caller's bytes, and what is not JSON does not come through."""

from __future__ import annotations

import pytest

from mlproxy.protocols.json_slice import (
    MOST_ELEMENTS,
    JsonError,
    Span,
    check_utf8,
    check_value,
    count_elements,
    split_elements,
    split_members,
)  # fmt: skip

#: Texts that are one well-formed JSON value.
VALUES = [
    b"0", b"-0", b"-0.0", b"1e5", b"1E+5", b"1.50e-7", b"9007199254740993", b"0.1000000000000000055511151231257827",
    b"1e999", b"true", b"false", b"null", b'""', b'"a\\"b\\\\"', b'"\\u00e9\\/"', '"é€😀"'.encode(),
    b'"\\ud83d\\ude00"',
    b"[]", b"{}", b"[[[[]]]]", b'{"b":1,"a":2}', b'{ "a" : [ 1 , { "b" : null } ] }', b'"],[{\\"}"', b'"\x7f"',
]  # fmt: skip

#: Texts that look like one and are not.
BROKEN = [
    b"", b" ", b"01", b"+1", b".5", b"1.", b"1e", b"-", b"0x10", b"1_000", b"tru", b"True", b"nul", b"undefined",
    b"'a'",
    b'"', b'"\\"', b'"\\q"', b'"\\u12"', b'"\\u12g4"', b'"a\nb"', b'"a\x00"', b'"\\ud800"', b'"\\udc00"',
    b"{", b"}", b'{"a"}', b'{"a":}', b'{"a":1,}', b"{,}", b'{1:1}', b'{"a" 1}', b'{"a":1 "b":2}', b'{a:1}',
    b"[", b"]", b"[1", b"[1,]", b"[,1]", b"[1 2]", b"[1,,2]", b"[1}", b'["a":1]', b"[1]]", b"/* */1", b"1//", b"1\x00",
    b"\xef\xbb\xbf1", b"1\x0b", b"\xa01",
]  # fmt: skip

#: What TF-Serving and Python write, and JSON does not know.
TOKENS = [b"NaN", b"Infinity", b"-Infinity"]

BROKEN_TOKENS = [
    b"-NaN", b"+NaN", b"+Infinity", b"--Infinity", b"NaN1", b"1NaN", b"NaNNaN", b"NaN NaN", b"nan", b"NAN", b"Infinit",
    b"infinity", b"Infinity.", b".NaN", b"NaN.0", b"NaNe5", b"- Infinity", b"{NaN:1}", b'"a"NaN', b'NaN"a"', b"[NaN",
    b"[NaN,]", b'["NaN]', b'{"a":NaN,NaN}', b"[]NaN", b"nullNaN",
]  # fmt: skip


@pytest.mark.parametrize("value", [*VALUES, *TOKENS, b'{"a":NaN}', b"[-Infinity,NaN]", b'{"a":"NaN","b":[NaN]}'])
def test_every_value_is_taken_and_comes_out_as_it_went_in(value: bytes) -> None:
    check_value(value)
    assert split_elements(b"[%b]" % value) == [value]
    assert split_elements(b"[ 1,\t%b\r\n, [%b] ]" % (value, value)) == [b"1", value, b"[%b]" % value]
    assert split_members(b'{"a":%b}' % value) == {"a": Span(5, 5 + len(value))}


@pytest.mark.parametrize("text", [*BROKEN, *BROKEN_TOKENS])
def test_what_is_not_json_is_refused_whatever_stands_around_it(text: bytes) -> None:
    with pytest.raises(JsonError):
        check_value(text)
    if text.strip():
        with pytest.raises(JsonError):
            count_elements(b"[1, %b]" % text)
        with pytest.raises(JsonError):
            split_members(b'{"a": %b}' % text)


@pytest.mark.parametrize("text", [text for text in BROKEN if text.strip()])
def test_a_token_that_is_tolerated_elsewhere_does_not_excuse_a_fault(text: bytes) -> None:
    with pytest.raises(JsonError):
        count_elements(b"[NaN, [%b], Infinity]" % text)
    with pytest.raises(JsonError):
        check_value(b'{"a": NaN, "b": [1, %b]}' % text)


@pytest.mark.parametrize("text", [b"{}", b'{"a":[1]}', b"1", b'"[1]"', b"null", b"[1][2]", b"[1],[2]", b"[1]x", b"NaN"])
def test_elements_are_those_of_exactly_one_array(text: bytes) -> None:
    for take in (count_elements, split_elements):
        with pytest.raises(JsonError):
            take(text)


@pytest.mark.parametrize("text", [b"[]", b"1", b'"{}"', b"null", b"{}{}", b'{"a":1},{"b":2}', b'{"a":1}}', b"NaN"])
def test_members_are_those_of_exactly_one_object(text: bytes) -> None:
    with pytest.raises(JsonError):
        split_members(text)


def test_an_array_is_counted_in_its_own_elements() -> None:
    assert count_elements(b"[]") == count_elements(b" [ \n] ") == 0
    assert count_elements(b"[[1,2,3]]") == 1
    assert count_elements(b'["a,b", {"c": [1, 2]}, null]') == 3
    assert count_elements(b"[NaN,[NaN,NaN],-Infinity]") == 3


def test_a_view_into_a_larger_text_is_cut_without_its_surroundings() -> None:
    view = memoryview(b'xx[1, "]", NaN]yy')[2:-2]
    assert count_elements(view) == 3
    assert split_elements(view) == [b"1", b'"]"', b"NaN"]


def test_words_inside_strings_are_text_and_not_tokens() -> None:
    array = b'["NaN", "a\\"NaN", NaN, "-Infinity\\\\", -Infinity, {"Infinity": Infinity}]'
    assert split_elements(array) == [
        b'"NaN"', b'"a\\"NaN"', b"NaN", b'"-Infinity\\\\"', b"-Infinity", b'{"Infinity": Infinity}',
    ]  # fmt: skip


def test_members_are_found_where_they_stand_in_any_layout() -> None:
    text = b' { "a" :1 ,\n"b\\u0063": [NaN, "}"]\t, "" :{"a":2} } '
    spans = split_members(text)
    assert {key: text[span.start : span.end] for key, span in spans.items()} == {
        "a": b"1", "bc": b'[NaN, "}"]', "": b'{"a":2}',
    }  # fmt: skip
    assert split_members(b"{}") == split_members(b" { } ") == {}


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'{"a":1,"b":2,"a":3}',
        b'{"a":[1],"\\u0061":[1]}',
        b'{"a":NaN,"a":NaN}',
        b'{"":1,"":1}',
        # The walk steps over the first value by the length of the last one; here it lands on something like a key.
        b'{"a":1,"b":22222,"a":{                               "b":12  }}',
        b'{"a":{"k":"x",\n":":1},"b":0,"a":1234567}',
        b'{"a":1,"b":22222,"a":{"c":0      ,"b":12  }}',
        b'{"a":{"b":[1],"x":1},"b":[2],"a":[]}',
    ],
)  # fmt: skip
def test_a_key_that_stands_twice_is_refused_however_it_is_spelt_and_whatever_it_holds(text: bytes) -> None:
    with pytest.raises(JsonError, match="twice"):
        split_members(text)


def test_a_key_that_is_called_like_a_token_keeps_its_name() -> None:
    assert list(split_members(b'{"NaN": NaN, "1.0": 1.0, "Infinity": "-Infinity"}')) == ["NaN", "1.0", "Infinity"]


def test_a_key_may_stand_again_at_another_depth() -> None:
    assert list(split_members(b'{"a":{"a":1},"b":{"a":2,"b":3}}')) == ["a", "b"]


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b"[NaN,", b"[[NaN],"])
def test_nesting_without_end_is_refused_and_not_a_crash(opening: bytes) -> None:
    text = opening * 100_000
    for take in (check_value, count_elements, split_elements, split_members):
        with pytest.raises(JsonError):
            take(text)


def test_nesting_that_is_closed_again_is_refused_and_not_a_crash() -> None:
    with pytest.raises(JsonError, match="nested too deeply"):
        count_elements(b"[" * 100_000 + b"]" * 100_000)


def test_moderate_nesting_is_taken() -> None:
    assert count_elements(b"[" * 100 + b"]" * 100) == 1


def test_a_long_string_without_an_end_is_refused_in_one_pass() -> None:
    with pytest.raises(JsonError):
        check_value(b'[NaN, "' + b'\\"' * 500_000)


@pytest.mark.parametrize("key", [b"\xff", b"\xed\xa0\x80", b"\xc3"])
def test_a_key_that_is_not_utf8_is_refused(key: bytes) -> None:
    with pytest.raises(JsonError):
        split_members(b'{"%b":1}' % key)


@pytest.mark.parametrize("text", [b"", b"abc", "é€😀".encode(), b"\x00"])
def test_utf8_passes(text: bytes) -> None:
    check_utf8(text)


@pytest.mark.parametrize(
    "text", [b"abc\xff", b"abc\xc0\xaf", b"abc\xed\xa0\x80", b"abc\xf5\x80\x80\x80", b"abc\xe2\x82"]
)
def test_other_encodings_are_refused_with_the_place(text: bytes) -> None:
    with pytest.raises(JsonError, match="not UTF-8 at byte 3"):
        check_utf8(text)


def test_more_elements_than_any_queue_takes_are_refused_before_they_are_made() -> None:
    zeros = b"[%b]" % b",".join([b"0"] * (MOST_ELEMENTS + 1))
    for read in (count_elements, split_elements):
        with pytest.raises(JsonError, match="more than 262144 elements"):
            read(zeros)
    assert count_elements(zeros[:-3] + b"]") == MOST_ELEMENTS


@pytest.mark.parametrize(
    "element",
    [
        b"[%b]",
        b'{"a": [[[[[%b]]]]]}',
        b'["]", {"}": ["[", [[%b]], {"\\"[": 0}]}]',
        b'[[[[0]]], {}, %b, {"b": [[[[]]]]}]',
    ],
)
def test_commas_within_elements_are_not_counted(element: bytes) -> None:
    many = b",".join([b"0"] * MOST_ELEMENTS)
    assert count_elements(b'[1, %b, "%b"]' % (element % many, b"," * MOST_ELEMENTS)) == 3


@pytest.mark.parametrize("text", [b"[%b", b"[[%b]", b'["%b]', b"[[%b}]", b"%b]", b"{%b}"])
def test_commas_in_what_is_no_array_are_no_way_around_its_check(text: bytes) -> None:
    with pytest.raises(JsonError):
        count_elements(text % b",".join([b"0"] * 2 * MOST_ELEMENTS))
