"""What a request's head says about a prediction, and which heads are refused before their body is read."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest

from mlproxy.errors import BadRequest, BodyTooLarge, UnsupportedMediaType
from workers.ingress import head
from workers.ingress.cycle import PredictCycle

ARRIVED_NS = 1_000_000_000_000
MS = 1_000_000
S = 1000 * MS

#: What a record's deadline has room for: a signed word of eight bytes.
LATEST_NS = 2**63 - 1


def new_cycle() -> PredictCycle:
    nobody = cast(Any, None)  # neither the connection nor the route matters to a head
    return PredictCycle(nobody, nobody, True, ARRIVED_NS)


def read(*headers: tuple[bytes, bytes], max_body_bytes: int = 1000) -> PredictCycle:
    cycle = new_cycle()
    head.read(cycle, headers, max_body_bytes)
    return cycle


def budget_ns(name: bytes, value: bytes) -> int | None:
    deadline_ns = read((name, value)).deadline_ns
    return deadline_ns - ARRIVED_NS if deadline_ns else None


def test_a_head_that_says_nothing_changes_nothing() -> None:
    cycle = read((b"host", b"iris"), (b"user-agent", b"curl"))
    assert (cycle.request_id, cycle.deadline_ns, cycle.expects_continue, cycle.problem_json) == (b"", 0, False, False)


# --- tensors in binary --------------------------------------------------------------------------------------------


def test_a_head_says_how_much_of_the_body_is_json() -> None:
    assert read((b"inference-header-content-length", b"7"), (b"content-length", b"7")).json_bytes == 7
    assert read((b"inference-header-content-length", b"7"), (b"transfer-encoding", b"chunked")).json_bytes == 7
    assert read((b"content-length", b"7")).json_bytes == 0


@pytest.mark.parametrize("value", [b"0", b"", b"-1", b"+7", b"7.0", b"7, 7", b"0x7", b"07", b"8", b"9" * 12])
def test_a_length_of_json_that_cannot_be_is_refused(value: bytes) -> None:
    with pytest.raises(BadRequest, match="inference-header-content-length"):
        read((b"inference-header-content-length", value), (b"content-length", b"7"))


# --- time budgets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"x-request-timeout-ms", b"x-envoy-expected-rq-timeout-ms"])
@pytest.mark.parametrize(
    ("value", "expected_ns"),
    [(b"200", 200 * MS), (b"1", MS), (b"0.5", MS // 2), (b"1500.25", 1_500_250_000), (b"0", None), (b"0.0", None)],
)
def test_a_budget_in_milliseconds_counts_from_the_arrival(name: bytes, value: bytes, expected_ns: int | None) -> None:
    assert budget_ns(name, value) == expected_ns


@pytest.mark.parametrize(
    ("value", "expected_ns"),
    [
        (b"1H", 3600 * S),
        (b"2M", 120 * S),
        (b"3S", 3 * S),
        (b"200m", 200 * MS),
        (b"5u", 5_000),
        (b"7n", 7),
        (b"99999999S", 99_999_999 * S),
    ],
)
def test_a_grpc_budget_has_its_unit(value: bytes, expected_ns: int) -> None:
    assert budget_ns(b"grpc-timeout", value) == expected_ns


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"grpc-timeout", b"99999999H"),
        (b"grpc-timeout", b"99999999M"),
        (b"x-request-timeout-ms", b"999999999999"),
        (b"x-envoy-expected-rq-timeout-ms", b"999999999999.999999"),
    ],
)
def test_the_longest_budget_that_can_be_written_fits_into_a_record(name: bytes, value: bytes) -> None:
    assert ARRIVED_NS < read((name, value)).deadline_ns <= LATEST_NS


@pytest.mark.parametrize("name", [b"x-request-timeout-ms", b"x-envoy-expected-rq-timeout-ms"])
@pytest.mark.parametrize(
    "value", [b"", b"-1", b"+1", b"1e3", b"1s", b"nan", b"inf", b"1_0", b"1,5", b".5", b"1.", b"9" * 20, b"\xb2"]
)
def test_a_budget_that_is_no_number_of_milliseconds_is_refused_by_name(name: bytes, value: bytes) -> None:
    with pytest.raises(BadRequest, match=name.decode()):
        read((name, value))


@pytest.mark.parametrize("value", [b"", b"5", b"S", b"5s", b"5 S", b"-5S", b"123456789S", b"1.5S", b"5SS", b"\xb2S"])
def test_a_grpc_budget_that_grpc_would_not_write_is_refused(value: bytes) -> None:
    with pytest.raises(BadRequest, match="grpc-timeout"):
        read((b"grpc-timeout", value))


def test_of_several_budgets_the_callers_own_counts_whatever_the_order() -> None:
    headers = [
        (b"grpc-timeout", b"3S"),
        (b"x-envoy-expected-rq-timeout-ms", b"2000"),
        (b"x-request-timeout-ms", b"1000"),
    ]
    assert read(*headers).deadline_ns == ARRIVED_NS + 1 * S
    assert read(*headers[:2]).deadline_ns == ARRIVED_NS + 2 * S
    assert read(*headers[:1]).deadline_ns == ARRIVED_NS + 3 * S


@pytest.mark.parametrize(("value", "stated"), [(b"0", True), (b"5", True), (None, False)])
def test_a_budget_of_none_is_stated_all_the_same(value: bytes | None, stated: bool) -> None:
    headers = [] if value is None else [(b"x-request-timeout-ms", value)]
    assert read(*headers).budget_stated is stated


# --- priority ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "priority"), [(b"0", 0), (b"1", 1), (b"255", 255), (b"256", 255), (b"9" * 20, 255), (b"007", 7)]
)
def test_a_priority_fits_into_a_byte_and_that_there_is_none_is_stated_too(value: bytes, priority: int) -> None:
    cycle = read((b"x-mlproxy-priority", value), (b"content-length", b"7"))
    assert (cycle.priority, cycle.priority_stated) == (priority, True)
    assert not read((b"content-length", b"7")).priority_stated


@pytest.mark.parametrize("value", [b"", b"-1", b"+1", b"1.0", b"high", b"1, 2", b"\xb2", b"9" * 21])
def test_a_priority_that_is_no_number_is_refused_with_what_would_do(value: bytes) -> None:
    with pytest.raises(BadRequest, match=r"x-mlproxy-priority: .* is not a whole number from 0: 1 is the most urgent"):
        read((b"x-mlproxy-priority", value))


# --- body type, encoding, size -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/json",
        b"application/json; charset=utf-8",
        b"Application/JSON;charset=UTF-8",
        b"application/json ;x=y",
        b"text/json",
        b"text/plain",
        b"application/x-www-form-urlencoded",
        b"application/octet-stream",
        b"application/vnd.kserve+json",
        b"application/problem+json; a=b",
    ],
)
def test_whatever_json_travels_as_is_taken(content_type: bytes) -> None:
    read((b"content-type", content_type))


@pytest.mark.parametrize(
    "content_type",
    [b"text/html", b"multipart/form-data; boundary=json", b"application/xml", b"image/png", b"application/jsonp",
     b"text/x+json", b"application/grpc", b"", b"json", b"text/html; application/json", b"\xff"],
)  # fmt: skip
def test_a_type_that_is_not_json_is_refused_by_name(content_type: bytes) -> None:
    essence = content_type.partition(b";")[0].decode("latin-1")
    with pytest.raises(UnsupportedMediaType, match=re.escape(repr(essence))):
        read((b"content-type", content_type))


@pytest.mark.parametrize(
    ("encoding", "coding"), [(b"gzip", b"gzip"), (b"X-GZip", b"x-gzip"), (b"Deflate", b"deflate"), (b"Identity", b"")]
)
def test_a_body_that_can_be_inflated_is_taken(encoding: bytes, coding: bytes) -> None:
    cycle = read((b"content-encoding", encoding), (b"content-length", b"7"))
    assert (cycle.coding, cycle.plain_head) == (coding, False)


def test_the_length_of_the_json_in_an_encoded_body_is_that_of_what_it_is_inflated_to() -> None:
    headers = [(b"inference-header-content-length", b"8"), (b"content-length", b"7")]
    assert read(*headers, (b"content-encoding", b"gzip")).json_bytes == 8


@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"compress", b"identity, gzip", b"gzip, gzip", b"", b"gzip;q=1"])
def test_a_body_of_another_encoding_is_refused_by_name(encoding: bytes) -> None:
    with pytest.raises(UnsupportedMediaType, match=re.escape(repr(encoding.decode()))):
        read((b"content-encoding", encoding))


@pytest.mark.parametrize("encoding", [b"identity", b"Identity"])
def test_a_body_that_says_it_is_not_encoded_is_taken(encoding: bytes) -> None:
    read((b"content-encoding", encoding))


def test_a_body_announced_beyond_the_limit_is_refused_before_it_comes() -> None:
    read((b"content-length", b"1000"))
    with pytest.raises(BodyTooLarge, match=re.escape("limits.body (1000B)")):
        read((b"content-length", b"1001"))
    with pytest.raises(BodyTooLarge, match="16MiB"):
        read((b"content-length", b"9" * 18), max_body_bytes=16 * 2**20)


# --- request id, expect, accept ----------------------------------------------------------------------------------


@pytest.mark.parametrize("request_id", [b"a", b"7f3c-9_x.y:z", b"!~", b"x" * 128])
def test_the_callers_request_id_is_taken_over(request_id: bytes) -> None:
    assert read((b"x-request-id", request_id)).request_id == request_id


@pytest.mark.parametrize(
    "request_id", [b"", b" ", b"a b", b"a\tb", b"a\r\nset-cookie: x", b"\xe4", b"\x7f", b"x" * 129, b"a\n"]
)
def test_a_request_id_that_could_not_be_echoed_safely_is_not_taken_over(request_id: bytes) -> None:
    assert read((b"x-request-id", request_id)).request_id == b""


@pytest.mark.parametrize("value", [b"100-continue", b"100-Continue"])
def test_a_caller_that_waits_for_a_go_ahead_is_noticed(value: bytes) -> None:
    assert read((b"expect", value)).expects_continue
    assert not read((b"expect", b"200-ok")).expects_continue


@pytest.mark.parametrize(
    ("accept", "problem"),
    [
        (b"application/problem+json", True),
        (b"text/html, Application/Problem+JSON;q=0.9", True),
        (b"application/json", False),
        (b"*/*", False),
    ],
)
def test_problem_json_is_sent_to_whoever_accepts_it_by_name(accept: bytes, problem: bool) -> None:
    assert read((b"accept", accept)).problem_json is problem


def test_a_refusal_knows_the_id_and_the_form_of_its_answer() -> None:
    cycle = new_cycle()
    headers = [(b"content-type", b"text/html"), (b"accept", b"application/problem+json"), (b"x-request-id", b"me")]
    with pytest.raises(UnsupportedMediaType):
        head.read(cycle, headers, 1000)
    assert (cycle.request_id, cycle.problem_json) == (b"me", True)


# --- a head that is recognised ----------------------------------------------------------------------------------------


def known(head_bytes: bytes, body: bytes) -> head.KnownHead | None:
    cycle = read((b"content-length", b"%d" % len(body)))
    cycle.received_bytes = len(body)
    return head.known_head(cycle, head_bytes + body)


def test_a_request_with_the_same_head_is_recognised_and_no_other() -> None:
    known_one = known(b"POST / HTTP/1.1\r\n\r\n", b"12")
    assert known_one is not None
    assert known_one.begins(b"POST / HTTP/1.1\r\n\r\n34")
    assert not known_one.begins(b"POST / HTTP/1.1\r\n\r\n345")
    assert not known_one.begins(b"POST /x HTTP/1.1\r\n\r\n3")


def test_a_recognised_head_still_says_how_much_of_the_body_is_json() -> None:
    cycle = read((b"inference-header-content-length", b"2"), (b"content-length", b"3"))
    assert said_again(cycle).json_bytes == 2


def said_again(cycle: PredictCycle) -> PredictCycle:
    """The next one with the same head."""
    cycle.received_bytes = 3
    known_one = head.known_head(cycle, b"POST / HTTP/1.1\r\n\r\n{}\x00")
    assert known_one is not None
    return PredictCycle(cycle.protocol, cycle.route, True, ARRIVED_NS, **known_one.said._asdict())


def test_a_recognised_head_still_says_whose_the_request_is_and_how_urgent() -> None:
    cycle = read((b"x-mlproxy-priority", b"2"), (b"content-length", b"3"))
    cycle.lane_headers = b"whose"
    again = said_again(cycle)
    assert (again.priority, again.priority_stated, again.lane_headers) == (2, True, b"whose")


def test_the_priority_in_one_body_is_not_that_of_the_next() -> None:
    cycle = read((b"content-length", b"3"))
    cycle.priority = 1  # as its body says
    assert (said_again(cycle).priority, said_again(cycle).priority_stated) == (0, False)


@pytest.mark.parametrize("head_bytes", [b"\n\n\n", b"", b"A\r\n\r\nPOST / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\n"])
def test_what_is_not_exactly_one_head_is_not_remembered(head_bytes: bytes) -> None:
    assert known(head_bytes, b"1") is None
