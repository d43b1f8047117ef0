"""Hundreds of malformed requests against one running proxy, while good neighbours share its batches."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import psutil
import pytest

from bench.processes import Proxy, wait_until
from tests.system.backends import Backend
from tests.system.conftest import StartProxy
from tests.system.iris import IRIS, JSON
from tests.system.raw_http import WITHIN_S, Caller, ConnectionEnded, Response, ask, chunked, request

TAGS = "/tags/predict"
BODY_BYTES = 2**20
NEIGHBOURS = 4


class Bad(NamedTuple):
    """A malformed request and what becomes of it."""

    kind: str
    data: bytes
    status: int = 400
    closes: bool = True  #: the connection ends, as HTTP wants when it is no longer clear where a request begins
    silently: bool = False  #: it may also end without an answer: one to something else may have begun


@pytest.fixture(scope="module")
def proxy(start_proxy: StartProxy, shared_backend: Backend) -> Proxy:
    batching = {"policy": "static", "max_size": 64, "max_linger": "20ms", "max_inflight": 2}
    backend = {"urls": [shared_backend.url]}
    return start_proxy({
        "server": {"workers": 2},
        "limits": {"body": BODY_BYTES, "header_timeout": "2s"},
        "endpoints": [
            {"name": "iris", "backend": backend, "batching": batching},
            {"name": "tags", "protocol": "json-list", "backend": backend, "batching": batching},
        ],
    })  # fmt: skip


# --- bodies that are not what the protocol takes ---------------------------------------------------------------

SAMPLE = '{"signature_name": "s", "instances": [[1.5, -2e3], {"a": "é\\n", "b": []}, null, true, "x"]}'.encode()
LIST_SAMPLE = '[[1.5, -2e3], {"a": "é\\u00e9"}, null, "x"]'.encode()


def body_of(instance: bytes) -> bytes:
    return b'{"instances": [1, ' + instance + b", 2]}"


def bad_instances() -> Iterator[tuple[str, bytes]]:
    """Texts that are no JSON value: in either protocol, wherever they stand."""
    numbers = (b"01 1. .5 +1 1e 1e+ 0x10 --1 1_000 -01 00 - 1.e5 Inf nan +Infinity -NaN +NaN Infinit NaNNaN 1.5.5 1a "
               b"infinity -Inf NaN1 1NaN").split()  # fmt: skip
    yield from (("bad number", number) for number in [*numbers, b"- 1", b"1 000", b"1. 5"])
    yield from (("control character in a string", b'"a%cb"' % code) for code in range(0x20))
    yield from (("control character between values", b"%c 1" % code) for code in [0, 1, 7, 0x0B, 0x0C, 0x1F, 0x7F])
    for escape in (rb"\x41", rb"\'", rb"\u12", rb"\u12G4", rb"\U0001F600", rb"\0", rb"\a", b"\\\n"):
        yield "bad escape", b'"%b"' % escape
    # The grammar allows these and Unicode does not; both answers exist in the wild, here it is always the refusal.
    for lone in (rb"\ud800", rb"\udc00", rb"\ud800x", rb"x\udfff", rb"\ud800\ud800", rb"\udc00\ud800", rb"\ud800\n"):
        yield "lone surrogate", b'"%b"' % lone
    for text in (
        b"\xff",
        b"\xc0\xaf",
        b"\xe2\x82",
        b"\x80",
        b"\xed\xa0\x80",
        b"\xf5\x80\x80\x80",
        b"\xe9",
        b"\xfe\xff",
    ):
        yield "bad UTF-8 in a string", b'"a%bz"' % text
        yield "bad UTF-8 in a key", b'{"a%bz": 1}' % text
        yield "bad UTF-8 outside strings", text
    for text in (
        b"", b",", b"1,", b",1", b"1,,2", b"1 2", b"'a'", b"a", b"[1,]", b'{"a": 1,}', b'{"a"}', b'{"a":}', b"{a: 1}",
        b"{1: 2}", b'{"a": 1 "b": 2}', b"{,}", b"[1 2]", b"[1}", b"{]", b"[", b"{", b'"', b"]", b"}", b"tru", b"True",
        b"nul", b"None", b"undefined", b"1 // note", b"1 /* note */", b"(1)", b"1;", b":", b'"a" "b"', b"1]}, {[1",
        b'1], "instances": [2', b'1]} {"instances": [2', b"\xef\xbb\xbf1", b"truefalse", b'{"a": 1}{"b": 2}',
    ):  # fmt: skip
        yield "bad structure", text
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        yield "nested 10,000 deep", opening * 10_000 + b"1" + closing * 10_000
        yield "nested 100,000 deep", opening * 100_000 + b"1" + closing * 100_000
        yield "nested without an end", opening * 100_000


def bad_bodies() -> Iterator[tuple[str, str, bytes]]:
    """Kind, target, body."""
    yield from (("truncated", IRIS, SAMPLE[:length]) for length in range(len(SAMPLE)))
    yield from (("truncated", TAGS, LIST_SAMPLE[:length]) for length in range(len(LIST_SAMPLE)))
    for kind, instance in bad_instances():
        yield kind, IRIS, body_of(instance)
        yield kind, TAGS, b"[1, " + instance + b", 2]"
    for text in (
        b"[]", b"[1]", b"1", b'"instances"', b"null", b"true", b"{}", b'{"instances": {}}', b'{"instances": 1}',
        b'{"instances": null}', b'{"instances": "[1]"}', b'{"instances": []}', b'{"inputs": 1}', b"   ", b"NaN",
        b'{"inputs": {"a": [1], "b": 2}}',
        b'{"Instances": [1]}', b'{"instances ": [1]}', b'{"predictions": [1]}',
    ):  # fmt: skip
        yield "wrong shape", IRIS, text
    for text in (b"[]", b"1", b'"a"', b"null", b"true", b"NaN", b"  \n", b"[ ]"):
        yield "wrong shape", TAGS, text
    for text in (b'{"instances": [1], "instances": [2]}', b'{"instances": [1], "a": 1, "instances": [2]}',
                 b'{"a": 1, "instances": [1], "a": 2}', b'{"a": 1, "a": 1, "instances": [1]}',
                 b'{"instances": [1], "instanc\\u0065s": [2]}', b'{"": 1, "": 2, "instances": [1]}'):  # fmt: skip
        yield "a key twice", IRIS, text
    for tail in (b"}", b"]", b"x", b"\0", b",", b"{}", b" 1", b'{"instances": [9]}', b"//", b"\x1a", b"\xff", b"]}"):
        yield "trailing garbage", IRIS, SAMPLE + tail
        yield "trailing garbage", TAGS, LIST_SAMPLE + tail
    for encoding in ("utf-16", "utf-16-le", "utf-32", "utf-8-sig"):
        yield f"in {encoding}", IRIS, SAMPLE.decode().encode(encoding)
        yield f"in {encoding}", TAGS, LIST_SAMPLE.decode().encode(encoding)


# --- requests that are not HTTP --------------------------------------------------------------------------------

HEAD = b"POST /v1/models/iris:predict HTTP/1.1\r\nHost: proxy\r\nContent-Type: application/json\r\n"
GOOD = b'{"instances": [7]}'
#: What a smuggler hides in a body, hoping that somebody takes it for the next request.
HIDDEN = request("POST", IRIS, (JSON,), b'{"instances": ["smuggled"]}')


def with_headers(*lines: bytes, body: bytes = GOOD) -> bytes:
    return HEAD + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def bad_requests() -> Iterator[Bad]:
    length, chunks = b"Content-Length: %d" % len(GOOD), chunked([GOOD])
    te = b"Transfer-Encoding: chunked"
    for lines in ((length, te), (te, length), (b"Content-Length: 0", te), (te, b"Content-Length: 4"),
                  (length, b"transfer-encoding:\tchunked"),
                  (length, b"Transfer-Encoding: identity, chunked")):  # fmt: skip
        yield Bad("both lengths", with_headers(*lines, body=chunks + HIDDEN))
    for coding in (b"xchunked", b"chunked, identity", b"gzip", b"identity", b"chunked chunked", b'"chunked"', b"",
                   b"chunked;q=1", b"chun\x00ked", b"chunked, gzip"):  # fmt: skip
        yield Bad("bad transfer coding", with_headers(b"Transfer-Encoding: " + coding, body=chunks + HIDDEN))
    yield Bad("bad transfer coding", with_headers(te, b"Transfer-Encoding: identity", body=chunks + HIDDEN))
    yield Bad("bad transfer coding", with_headers(b"Transfer-Encoding: gzip", te + b"x", body=chunks + HIDDEN))
    for other in (b"0", b"17", b"19", b"%d" % len(GOOD + HIDDEN)):
        yield Bad("two lengths", with_headers(length, b"Content-Length: " + other, body=GOOD + HIDDEN))
        yield Bad("two lengths", with_headers(b"Content-Length: " + other, length, body=GOOD + HIDDEN))
        yield Bad("two lengths", with_headers(length + b", " + other, body=GOOD + HIDDEN))
    for number in (b"-1", b"+18", b"0x12", b"1e1", b"18 18", b"", b" ", b"18;", b"1_8", b"\xb2", b"18.0", b"a",
                   b"18446744073709551634", b"99999999999999999999999", b'"18"'):  # fmt: skip
        yield Bad("bad length", with_headers(b"Content-Length: " + number))
    for line in (b"X-Folded: a\r\n b", b"X-Folded: a\r\n\tb", b" X-First: a"):
        yield Bad("folded header", with_headers(line, length))
        yield Bad("folded header", with_headers(length, line))
    for line in (b"X-Name : a", b"X-Name\t: a", b"Transfer-Encoding : chunked", b"Content-Length : 18", b"X Name: a",
                 b": a", b"no colon", b"X-N\x00ame: a", b"X-N\xe4me: a", b"X(Name): a", b"X@Name: a", b"{}: 1",
                 b"\x7f: a"):  # fmt: skip
        yield Bad("bad header name", with_headers(line, length))
        yield Bad("bad header name", with_headers(length, line))
    for value in (b"a\x00b", b"a\rb", b"a\x01b", b"a\x7fb", b"\x00", b"a\nb", b"a\r", b"a\rTransfer-Encoding: chunked"):
        yield Bad("bad header value", with_headers(b"X-Value: " + value, length))
    head = HEAD + length + b"\r\n\r\n"
    yield Bad("bare CR", head.replace(b"\r\n", b"\r") + GOOD)
    yield Bad("bare LF before a smuggled header", with_headers(b"X-A: b\nTransfer-Encoding: chunked", length))
    for size in (b"zz", b"-1", b"+1", b"0x12", b"", b" 12", b"12 12", b"1G", b"g", b"FFFFFFFFFFFFFFFFF", b"\x00",
                 b"1.0", b"10000000000000012", b"12\x0b"):  # fmt: skip
        yield Bad("bad chunk size", with_headers(te, body=size + b"\r\n" + GOOD + b"\r\n0\r\n\r\n"))
        yield Bad("bad chunk size", with_headers(te, body=b"1\r\n{\r\n" + size + b"\r\n" + GOOD + b"\r\n0\r\n\r\n"))
    for body in (b"12\r\n" + GOOD + b"0\r\n\r\n", b"12\r\n" + GOOD + b"xx0\r\n\r\n", b"11\r\n" + GOOD + b"\r\n0\r\n",
                 b"12\r" + GOOD + b"\r\n0\r\n\r\n", b"12;a\x00=1\r\n" + GOOD + b"\r\n0\r\n\r\n",
                 b"12\r\n" + GOOD + b"\r\n0\r\nbad trailer\r\n\r\n"):  # fmt: skip
        yield Bad("bad chunk", with_headers(te, body=body))
    passing = HEAD.replace(b":predict", b"/upload") + te + b"\r\n\r\n"
    for body in (b"zz\r\n", b"1\r\n{xx", b"1\r\n{\r\n-1\r\n"):
        yield Bad("bad chunk in a body that passes through", passing + body, silently=True)
    for method in (
        b"",
        b"P@ST",
        b"post",
        b"FOO",
        b"PO ST",
        b"\x00",
        b"POST\x00",
        b"GET/",
        b"POS",
        b"POSTT",
        b"\xffPOST",
    ):
        yield Bad("bad method", head.replace(b"POST", method, 1) + GOOD)
    for version in (b"HTTP/9.9", b"HTTX/1.1", b"HTTP/1", b"HTTP/1.1x", b"HTTP/11", b"http/1.1", b"HTTP 1.1",
                    b"HTTP/1.2", b"HTTP/-1.1", b"HTTP/", b"HTTP/1.1 HTTP/1.1", b"HTTP/2.0", b"HTTP/0.9",
                    b"XTTP/1.1"):  # fmt: skip
        yield Bad("bad version", head.replace(b"HTTP/1.1", version, 1) + GOOD)
    for target in (
        b"",
        b"v1/models/iris:predict",
        b"/v1/models/iris:pre dict",
        b"/v1/models/\x00",
        b"\xff",
        b"/a\x7fb",
    ):
        yield Bad("bad target", head.replace(b"/v1/models/iris:predict", target, 1) + GOOD)
    for greeting in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32), b"SSH-2.0-client\r\n", bytes(64),
                     b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\xff" * 64, b"HELO proxy\r\n", b"{}\r\n\r\n"):  # fmt: skip
        yield Bad("another protocol", greeting)
    yield Bad("oversized", with_headers(b"Content-Length: %d" % (BODY_BYTES + 1), body=b"{"), 413)
    yield Bad("oversized", with_headers(b"Content-Length: 9000000000000000000", body=b"{"), 413)
    yield Bad("oversized", with_headers(te, body=chunked([b" " * 2**16] * 17)), 413)
    yield Bad("oversized", with_headers(b"X-Long: " + b"x" * 40_000, b"X-More: 1", length), 431)


def every_bad_request() -> list[Bad]:
    bodies = [Bad(kind, request("POST", target, (JSON,), body), closes=False) for kind, target, body in bad_bodies()]
    return [*bodies, *bad_requests()]


# --- the run ---------------------------------------------------------------------------------------------------


@contextmanager
def neighbours(proxy: Proxy) -> Iterator[tuple[list[int], list[str]]]:
    """Callers who send good requests all the time: how many answers each got, and every one that was not its own."""
    counts, complaints, stop = [0] * NEIGHBOURS, list[str](), threading.Event()

    def call(number: int) -> None:
        target, around, answer = (
            (IRIS, b'{"instances": [%b]}', b'{"predictions": [%b]}') if number % 2 else (TAGS, b"[%b]", b"[%b]")
        )
        try:
            with Caller(proxy.url) as caller:
                while not stop.is_set():
                    instance = b'"neighbour %d, %d"' % (number, counts[number])
                    response = caller.call(request("POST", target, (JSON,), around % instance))
                    if (response.status, response.body) != (200, answer % instance):
                        complaints.append(f"{instance!r} got {response}")
                    counts[number] += 1
        except (OSError, ConnectionEnded) as error:
            complaints.append(f"neighbour {number}: {error!r}")

    threads = [threading.Thread(target=call, args=(number,)) for number in range(NEIGHBOURS)]
    for thread in threads:
        thread.start()
    try:
        yield counts, complaints
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def problem_with(bad: Bad, response: Response) -> str:
    """What is wrong with the refusal; empty when nothing is."""
    if response.status != bad.status:
        return f"answered {response.status} {response.body[:120]!r}"
    document = response.json()
    return "" if document["status"] == bad.status and document["error"] else f"error body {document}"


def outcome_on_its_own(url: str, bad: Bad) -> str:
    """What is wrong with what becomes of ``bad`` and of its connection, which ends."""
    with Caller(url, within_s=5.0) as caller:
        try:
            with suppress(ConnectionError):  # refused while it is still being sent; the answer is there
                caller.send(bad.data)
            response = caller.read_response()
            rest = caller.read_to_end()
        except ConnectionEnded as error:
            return "" if bad.silently else f"closed without an answer ({error})"
        except TimeoutError:
            return "not answered, or not closed"
    return problem_with(bad, response) or (f"went on with {rest[:80]!r}" if rest else "")


def outcomes_in_a_row(url: str, bad_ones: Sequence[Bad]) -> Iterator[tuple[Bad, str]]:
    """The same for those that leave their connection as it was: all on one, with good requests in between."""
    with Caller(url) as caller:
        for number, bad in enumerate(bad_ones):
            yield bad, problem_with(bad, caller.call(bad.data))
            if number % 20 == 0:
                good = caller.call(request("POST", IRIS, (JSON,), GOOD))
                yield bad, "" if good.body == b'{"predictions": [7]}' else f"spoiled the next request: {good}"


def pids(proxy: Proxy) -> dict[str, int]:
    return {process["name"]: process["pid"] for process in proxy.status()["processes"]}


def test_malformed_requests_are_refused_and_disturb_nobody(proxy: Proxy, backend: Backend) -> None:
    bad_ones = every_bad_request()
    assert len(bad_ones) >= 200
    before = pids(proxy)
    with neighbours(proxy) as (counts, complaints):
        assert wait_until(lambda: all(counts), WITHIN_S)
        outcomes = [
            *outcomes_in_a_row(proxy.url, [bad for bad in bad_ones if not bad.closes]),
            *((bad, outcome_on_its_own(proxy.url, bad)) for bad in bad_ones if bad.closes),
        ]
        reached = list(counts)
        assert wait_until(lambda: all(now > then for now, then in zip(counts, reached, strict=True)), WITHIN_S)
    wrong = [f"{bad.kind}, {bad.status} due: {bad.data[:200]!r} {problem}" for bad, problem in outcomes if problem]
    if wrong:
        pytest.fail("\n".join(wrong))
    assert complaints == []
    assert pids(proxy) == before
    assert all(psutil.pid_exists(pid) for pid in before.values())
    assert proxy.status()["restarts"] == {"ingress": 0, "batcher": 0, "admin": 0}
    batches = [call.instances for call in backend.predictions]  # raises if one is no batch
    assert max(len(batch) for batch in batches) >= 2, "nobody shared a batch"
    allowed = {b"7"}
    strangers = [item for batch in batches for item in batch if item not in allowed and b"neighbour" not in item]
    assert strangers == [], "malformed or smuggled requests reached the backend"


def test_a_body_that_is_never_finished_holds_nobody_up(proxy: Proxy, backend: Backend) -> None:
    with Caller(proxy.url) as stalled:
        stalled.send(request("POST", IRIS, (JSON,), GOOD)[:-1])
        for _ in range(5):
            assert ask(proxy.url, request("POST", IRIS, (JSON,), GOOD)).body == b'{"predictions": [7]}'
        assert stalled.read_response().status == 408


def nested(depth: int, instances: int = 1) -> bytes:
    """A request one of whose instances is so deep."""
    deep = b"[" * depth + b"]" * depth
    return request("POST", IRIS, (JSON,), b'{"instances": [%b]}' % b", ".join([b"1"] * (instances - 1) + [deep]))


@pytest.fixture
def deep_reading() -> Iterator[None]:
    """The backend, which is in this process, reads everything that the proxy accepts."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10 * before)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("deep_reading")
def test_what_is_nested_as_deep_as_a_worker_accepts_is_sent_in_parts_too(proxy: Proxy, backend: Backend) -> None:
    before = pids(proxy)
    accepted, refused = 1, 100_000
    while refused - accepted > 1:
        middle = (accepted + refused) // 2
        status = ask(proxy.url, nested(middle)).status
        assert status in (200, 400)
        accepted, refused = (middle, refused) if status == 200 else (accepted, middle)
    for depth in range(accepted - 5, accepted + 1):
        answer = ask(proxy.url, nested(depth, instances=65))  # one more than max_size
        assert (answer.status, answer.body.count(b"[")) == (200, depth + 1)
    assert pids(proxy) == before
