"""One backend connection against a scripted wire: whatever comes, a call ends exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlproxy.backend import BackendCall, BackendFailure, BackendReply
from mlproxy.backend.connection import JOIN_BELOW_BYTES, MAX_AROUND_BYTES, BackendConnection

MAX_REPLY_BYTES = 100
OK = BackendReply(200, b"content-type: application/json\r\n", b'{"a": 1}')
WITH_LENGTH = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{"a": 1}'
IN_CHUNKS = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\ncontent-type: application/json\r\n\r\n"
    b'3\r\n{"a\r\n5;x=y\r\n": 1}\r\n0\r\nTrailer: t\r\n\r\n'
)
UNTIL_THE_END = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"a": 1}'
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Type: text/html\r\n\r\n"
KEPT = [WITH_LENGTH, IN_CHUNKS, CONTINUE + WITH_LENGTH, CONTINUE + HINTS + IN_CHUNKS]

Result = BackendReply | BackendFailure


class Wire(asyncio.Transport):
    """The far end: remembers what was written, and ends when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.lines_written = 0
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.lines_written += 1
        self.written += [bytes(data) for data in list_of_data]

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


class Bench:
    """A connection on its wire, with what it told its pool and its callers."""

    def __init__(self, max_reply_bytes: int = MAX_REPLY_BYTES) -> None:
        self.idle: list[BackendConnection] = []
        self.lost: list[BackendConnection] = []
        self.stale: list[BackendCall] = []
        self.results: list[Result] = []
        self.wire = Wire()
        self.connection = BackendConnection(max_reply_bytes, self.idle.append, self.lost.append, self.stale.append)
        self.connection.connection_made(self.wire)

    def call(self, *request: bytes) -> BackendCall:
        call = BackendCall(request or (b"POST / HTTP/1.1\r\n\r\n",), self.results.append)
        self.connection.start(call)
        return call

    def feed(self, *pieces: bytes) -> None:
        """Bytes arrive until the connection is closed, as with a real transport."""
        for piece in pieces:
            if not self.wire.aborted:
                self.connection.data_received(piece)

    def end(self, error: Exception | None = None) -> None:
        """The transport's last words, due after EOF, reset and `abort` alike."""
        self.connection.connection_lost(error)

    def failure(self) -> str:
        """The kind of the only result."""
        [result] = self.results
        assert isinstance(result, BackendFailure)
        assert result.detail
        return result.kind


@pytest.mark.parametrize("reply", KEPT)
def test_a_delimited_reply_leaves_the_connection_for_the_next_call(reply: bytes) -> None:
    bench = Bench()
    for calls in (1, 2, 3):
        bench.call()
        bench.feed(reply)
        assert bench.results == [OK] * calls
        assert bench.idle == [bench.connection] * calls
        assert not bench.connection.closing


@given(reply=st.sampled_from(KEPT), cuts=st.sets(st.integers(1, len(CONTINUE + HINTS + IN_CHUNKS)), max_size=8))
def test_how_a_reply_is_cut_into_reads_makes_no_difference(reply: bytes, cuts: set[int]) -> None:
    bench = Bench()
    bench.call()
    edges = [0, *sorted(cut for cut in cuts if cut < len(reply)), len(reply)]
    for start, end in pairwise(edges):
        assert bench.results == []
        bench.feed(reply[start:end])
    assert bench.results == [OK]
    assert bench.idle == [bench.connection]


def test_a_reply_without_length_ends_with_the_connection() -> None:
    bench = Bench()
    bench.call()
    bench.feed(UNTIL_THE_END[:-3], UNTIL_THE_END[-3:])
    assert bench.results == []
    assert not bench.connection.eof_received()
    bench.end()
    assert bench.results == [OK]
    assert bench.idle == []
    assert bench.lost == [bench.connection]


def test_a_reply_without_length_that_breaks_off_is_no_reply() -> None:
    bench = Bench()
    bench.call()
    bench.feed(UNTIL_THE_END)
    bench.end(ConnectionResetError("reset by peer"))
    assert bench.failure() == "reset"


@pytest.mark.parametrize("reply", [WITH_LENGTH, IN_CHUNKS], ids=["length", "chunks"])
def test_a_delimited_reply_that_breaks_off_anywhere_is_a_reset(reply: bytes) -> None:
    for end in range(len(reply)):
        bench = Bench()
        bench.call()
        bench.feed(*([reply[:end]] if end else []))
        bench.end()
        assert bench.failure() == "reset", reply[:end]
        assert bench.lost == [bench.connection]


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_a_status_that_has_no_body_needs_no_length(status: bytes) -> None:
    bench = Bench()
    bench.call()
    bench.feed(b"HTTP/1.1 %b\r\n\r\n" % status)
    assert bench.results == [BackendReply(int(status[:3]), b"", b"")]
    assert bench.idle == [bench.connection]


@pytest.mark.parametrize(
    "reply",
    [
        WITH_LENGTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        IN_CHUNKS.replace(b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\nConnection: close"),
        WITH_LENGTH.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=["close", "chunks and close", "HTTP/1.0"],
)
def test_a_backend_that_will_close_is_not_asked_again(reply: bytes) -> None:
    bench = Bench()
    bench.call()
    bench.feed(reply)
    assert bench.results == [OK]
    assert bench.idle == []
    assert bench.connection.closing


def test_a_reply_that_offers_an_upgrade_is_a_reply() -> None:
    bench = Bench()  # Apache httpd advertises h2c in this way
    bench.call()
    bench.feed(WITH_LENGTH.replace(b"200 OK", b"200 OK\r\nUpgrade: h2c\r\nConnection: Upgrade"))
    assert bench.results == [OK]


def test_a_backend_that_switches_protocols_unasked_has_failed() -> None:
    bench = Bench()
    bench.call()
    bench.feed(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n\0\0\0")
    bench.end()
    assert bench.failure() == "protocol"


@pytest.mark.parametrize("surplus", [b"x", WITH_LENGTH, b"\0\xff" * 40, b"HTTP/1.1 200 OK\r\n"])
def test_bytes_after_the_reply_close_the_connection_and_spare_the_reply(surplus: bytes) -> None:
    bench = Bench()
    bench.call()
    bench.feed(WITH_LENGTH + surplus)
    bench.end()
    assert bench.results == [OK]
    assert bench.idle == []
    assert bench.connection.closing


def test_bytes_that_nobody_asked_for_close_an_idle_connection() -> None:
    bench = Bench()
    bench.call()
    bench.feed(WITH_LENGTH)
    bench.feed(WITH_LENGTH)
    bench.end()
    assert bench.connection.closing
    assert bench.results == [OK]


@pytest.mark.parametrize(
    "garbage",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"\0" * 20, b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"],
)
def test_what_is_not_http_is_a_protocol_failure(garbage: bytes) -> None:
    bench = Bench()
    bench.call()
    bench.feed(garbage)
    bench.end()
    assert bench.failure() == "protocol"
    assert bench.connection.closing


@given(pieces=st.lists(st.one_of(st.binary(min_size=1), st.sampled_from([*KEPT, UNTIL_THE_END])), max_size=4))
def test_whatever_comes_a_call_ends_exactly_once(pieces: list[bytes]) -> None:
    bench = Bench()
    bench.call()
    bench.feed(*pieces)
    bench.end()
    assert len(bench.results) == 1
    assert bench.lost == [bench.connection]


def _reply_of(size_bytes: int, *, chunked: bool) -> bytes:
    body = b"x" * size_bytes
    if chunked:
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (size_bytes, body)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size_bytes, body)


@pytest.mark.parametrize("chunked", [False, True])
def test_the_largest_reply_that_is_allowed_is_taken_and_one_byte_more_is_not(chunked: bool) -> None:
    bench = Bench()
    bench.call()
    bench.feed(_reply_of(MAX_REPLY_BYTES, chunked=chunked))
    assert bench.results.pop() == BackendReply(200, b"", b"x" * MAX_REPLY_BYTES)
    bench.call()
    bench.feed(_reply_of(MAX_REPLY_BYTES + 1, chunked=chunked))
    bench.end()
    assert bench.failure() == "too_large"


def test_a_reply_that_grows_too_large_is_not_waited_for() -> None:
    bench = Bench()
    bench.call()
    bench.feed(UNTIL_THE_END, b"x" * MAX_REPLY_BYTES)
    assert bench.failure() == "too_large"
    assert bench.connection.closing


# --- kept alive, and gone ------------------------------------------------------------------------------------


def _bench_with_a_second_call() -> tuple[Bench, BackendCall]:
    bench = Bench()
    bench.call()
    bench.feed(WITH_LENGTH)
    bench.results.clear()
    return bench, bench.call()


def test_a_kept_connection_that_ends_before_the_first_byte_gives_its_call_back() -> None:
    bench, call = _bench_with_a_second_call()
    bench.end()
    assert bench.stale == [call]
    assert call.restarted
    assert bench.results == []
    assert bench.lost == [bench.connection]


def test_a_kept_connection_that_ends_within_the_reply_is_a_reset() -> None:
    bench, _ = _bench_with_a_second_call()
    bench.feed(WITH_LENGTH[:10])
    bench.end()
    assert bench.failure() == "reset"
    assert bench.stale == []


def test_a_call_is_given_back_only_once() -> None:
    first, call = _bench_with_a_second_call()
    first.end()
    second = Bench()
    second.call()
    second.feed(WITH_LENGTH)
    second.connection.start(call)
    second.end()
    assert second.stale == []
    assert first.failure() == "reset"


# --- aborted, sent -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("already_came", [b"", WITH_LENGTH[:30], UNTIL_THE_END])
def test_an_aborted_call_closes_its_connection_and_is_never_answered(already_came: bytes) -> None:
    bench = Bench()
    call = bench.call()
    bench.feed(already_came)
    call.abort()
    assert bench.connection.closing
    bench.connection.data_received(WITH_LENGTH)  # what was in the kernel already
    bench.end()
    call.abort()
    assert (bench.results, bench.idle, bench.stale) == ([], [], [])
    assert bench.lost == [bench.connection]


def test_a_small_request_is_one_write_and_a_large_one_is_not_copied_together() -> None:
    bench = Bench()
    bench.call(b"head", b"body")
    assert bench.wire.written == [b"headbody"]
    bench.feed(WITH_LENGTH)
    bench.call(b"head", b"x" * JOIN_BELOW_BYTES)
    assert bench.wire.lines_written == 1
    assert bench.wire.written[1:] == [b"head", b"x" * JOIN_BELOW_BYTES]


def test_its_repr_says_what_it_is_doing() -> None:
    bench = Bench()
    assert repr(bench.connection) == "<BackendConnection idle, 0 calls>"
    call = bench.call()
    assert repr(bench.connection) == "<BackendConnection busy, 1 calls>"
    assert repr(call) == "<BackendCall on <BackendConnection busy, 1 calls>>"
    call.abort()
    assert repr(bench.connection) == "<BackendConnection closed, 1 calls>"
    assert repr(call) == "<BackendCall done>"


# --- without end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beginning", "again"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"x" * 500 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-More: ", b"x" * 500),
        (b"", CONTINUE * 20),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-More: " + b"x" * 500 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 500),
    ],
    ids=["headers", "a header", "interim heads", "trailers", "an extension of a chunk"],
)
def test_what_is_around_a_body_ends_or_the_call_does(beginning: bytes, again: bytes) -> None:
    bench = Bench()
    bench.call()
    bench.feed(beginning, *[again] * (MAX_AROUND_BYTES // len(again) + 1))
    assert bench.failure() == "too_large"
    assert bench.wire.aborted


def test_a_large_body_may_come_in_the_smallest_of_chunks() -> None:
    bench = Bench(max_reply_bytes=MAX_AROUND_BYTES)
    for calls in (1, 2):
        bench.call()
        bench.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        bench.feed(*[b"1;a=bc\r\nx\r\n"] * MAX_AROUND_BYTES)
        bench.feed(b"0\r\n\r\n")
        assert bench.results == [BackendReply(200, b"", b"x" * MAX_AROUND_BYTES)] * calls
