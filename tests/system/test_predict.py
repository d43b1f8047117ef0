"""Predictions through a running proxy: what goes in comes back, byte for byte, to the one who asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from bench.processes import Proxy, wait_until
from tests.system.backends import Backend, Gate
from tests.system.conftest import StartProxy
from tests.system.iris import IRIS
from tests.system.raw_http import WITHIN_S, Caller, Response, ask, read_metric, request

TAGS = "/tags/predict"
MAX_SIZE = 8
BUDGETS = ("X-Request-Timeout-Ms: 50", "x-envoy-expected-rq-timeout-ms: 50", "grpc-timeout: 50m")
QUEUE_INSTANCES = 40
QUEUE_BYTES = 4 * 2**20
BODY_BYTES = 2 * 2**20

#: Texts that decoding and encoding again would change, or that a careless check refuses.
EXACT = {
    "int64": b"[9007199254740993, -9223372036854775808, 18446744073709551615]",
    "17-digit floats": b"[0.10000000000000001, 3.1415926535897931, 1.7976931348623157e308, 5e-324, -0.0]",
    "spelling of numbers": b"[1.0, 1.00, 1e0, 1E+00, 100e-2, 123456789012345678901234567890]",
    "key order": b'{"z": 1, "a": {"y": 2, "b": 3}, "m": []}',
    "a key twice inside an instance": b'{"a": 1, "a": 2}',
    "NaN and infinities as TF-Serving writes them": b"[NaN, Infinity, -Infinity, 1.5]",
    "NaN inside a string": b'["NaN", "a NaN, Infinity]", NaN]',
    "unicode as it is": '"Grüße, 東京 🌸 \u2028"'.encode(),
    "unicode escaped": rb'"\u00e9\ud83c\udf38\/\n\"\\"',
    "white space": b'{ "a" :\t[ 1 ,\r\n 2 ] }',
    "brackets in strings": rb'"]}, {\"instances\": [\""',
    "null": b"null",
    "an empty object": b"{}",
    "an empty list": b"[]",
    "an empty string": b'""',
}


@pytest.fixture(scope="module")
def proxy(start_proxy: StartProxy, shared_backend: Backend) -> Proxy:
    """One slot, so that a held call makes all others queue; a ring of the smallest size, so that bodies outgrow it."""
    batching = {"policy": "static", "max_size": MAX_SIZE, "max_inflight": 1}
    return start_proxy({
        "server": {"ring": "64KiB"},
        "limits": {"body": BODY_BYTES, "queue_instances": QUEUE_INSTANCES, "queue_bytes": QUEUE_BYTES},
        "endpoints": [
            {"name": "iris", "backend": {"urls": [shared_backend.url]}, "batching": batching},
            {"name": "tags", "protocol": "json-list", "backend": {"urls": [shared_backend.url]}, "batching": batching},
        ],
    })  # fmt: skip


def predict(*instances: bytes, members: bytes = b"", headers: tuple[str, ...] = ()) -> bytes:
    body = b"{" + members + b'"instances": [' + b", ".join(instances) + b"]}"
    return request("POST", IRIS, ("Content-Type: application/json", *headers), body)


def predictions(*instances: bytes) -> bytes:
    return b'{"predictions": [' + b", ".join(instances) + b"]}"


def tags(body: bytes) -> bytes:
    return request("POST", TAGS, ("Content-Type: application/json",), body)


def queue_depth(proxy: Proxy, endpoint: str = "iris") -> int:
    return int(read_metric(proxy.admin_url, f'mlproxy_queue_depth{{endpoint="{endpoint}"}}'))


@contextmanager
def queued(
    proxy: Proxy, backend: Backend, requests: list[bytes], depth: int, endpoint: str = "iris"
) -> Iterator[tuple[Gate, list[Caller]]]:
    """A held call occupies the slot; then ``requests``, each on its own connection, have been queued in order."""
    first = predict(b'"occupies the slot"') if endpoint == "iris" else tags(b'["occupies the slot"]')
    with backend.held() as gate, ExitStack() as stack:
        callers = [stack.enter_context(Caller(proxy.url)) for _ in range(len(requests) + 1)]
        callers[0].send(first)
        assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
        for caller, data in zip(callers[1:], requests, strict=True):
            caller.send(data)
            # The worker's loop has read what came before it answers a later request: the order of arrival is ours.
            assert ask(proxy.url, request("GET", "/healthz")).status == 200
        assert wait_until(lambda: queue_depth(proxy, endpoint) == depth, WITHIN_S)
        yield gate, callers[1:]
        gate.open()
        assert callers[0].read_response().status == 200
    assert wait_until(lambda: queue_depth(proxy, endpoint) == 0, WITHIN_S)


# --- bytes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("instance", EXACT.values(), ids=EXACT.keys())
def test_a_kserve_instance_and_its_prediction_travel_byte_for_byte(
    proxy: Proxy, backend: Backend, instance: bytes
) -> None:
    response = ask(proxy.url, predict(b'"before"', instance, b'"after"'))
    assert (response.status, response.body) == (200, predictions(b'"before"', instance, b'"after"'))
    assert response.header("content-type") == "application/json"
    assert backend.predictions[0].instances == [b'"before"', instance, b'"after"']


@pytest.mark.parametrize("instance", EXACT.values(), ids=EXACT.keys())
def test_a_json_list_instance_and_its_prediction_travel_byte_for_byte(
    proxy: Proxy, backend: Backend, instance: bytes
) -> None:
    response = ask(proxy.url, tags(b"[ %b,1 ]" % instance))
    assert response.status == 200
    assert response.body in (b"[ %b, 1 ]" % instance, b"[%b, 1]" % instance)
    assert backend.predictions[0].instances == [instance, b"1"]


def test_a_bare_object_is_one_instance_of_a_json_list_and_gets_one_bare_item(proxy: Proxy, backend: Backend) -> None:
    response = ask(proxy.url, tags(b' {"text": "a, b]"} '))
    assert (response.status, response.body) == (200, b'{"text": "a, b]"}')
    assert backend.predictions[0].instances == [b'{"text": "a, b]"}']


def test_bare_objects_and_lists_share_a_batch_and_each_gets_its_own_kind_back(proxy: Proxy, backend: Backend) -> None:
    requests = [tags(b'{"a": 1}'), tags(b'["b", "c"]'), tags(b'{"d": 2}')]
    with queued(proxy, backend, requests, depth=4, endpoint="tags") as (gate, callers):
        gate.open()
        assert [caller.read_response().body for caller in callers] == [b'{"a": 1}', b'["b", "c"]', b'{"d": 2}']
    assert backend.predictions[1].instances == [b'{"a": 1}', b'"b"', b'"c"', b'{"d": 2}']


@pytest.mark.parametrize("data", [predict(), tags(b"[]"), tags(b" [\n] ")], ids=["kserve-v1", "json-list", "spaced"])
def test_zero_instances_are_refused(proxy: Proxy, backend: Backend, data: bytes) -> None:
    response = ask(proxy.url, data)
    assert response.status == 400
    assert "at least one instance" in response.json()["error"]
    assert backend.requests == []


# --- batches ---------------------------------------------------------------------------------------------------


def test_requests_that_wait_share_a_batch_and_each_gets_its_own_answer(proxy: Proxy, backend: Backend) -> None:
    requests = [predict(b'"%d"' % number) for number in range(5)]
    with queued(proxy, backend, requests, depth=5) as (gate, callers):
        gate.open()
        for number, caller in enumerate(callers):
            response = caller.read_response()
            assert response.body == predictions(b'"%d"' % number)
            assert response.header("x-mlproxy-batch-size") == "5"
    assert [len(call.instances) for call in backend.predictions] == [1, 5]


def test_instances_of_several_requests_come_back_in_order(proxy: Proxy, backend: Backend) -> None:
    requests = [predict(b'"a1"', b'"a2"'), predict(b'"b1"'), predict(b'"c1"', b'"c2"', b'"c3"')]
    with queued(proxy, backend, requests, depth=6) as (gate, callers):
        gate.open()
        assert [caller.read_response().body for caller in callers] == [
            predictions(b'"a1"', b'"a2"'),
            predictions(b'"b1"'),
            predictions(b'"c1"', b'"c2"', b'"c3"'),
        ]
    assert len(backend.predictions) == 2


def test_a_batch_never_exceeds_max_size(proxy: Proxy, backend: Backend) -> None:
    requests = [predict(*[b'"%d.%d"' % (number, item) for item in range(3)]) for number in range(6)]
    with queued(proxy, backend, requests, depth=18) as (gate, callers):
        gate.open()
        for number, caller in enumerate(callers):
            assert caller.read_response().body == predictions(*[b'"%d.%d"' % (number, item) for item in range(3)])
    assert max(len(call.instances) for call in backend.predictions) <= MAX_SIZE


@pytest.mark.parametrize("count", [MAX_SIZE, MAX_SIZE + 1, 3 * MAX_SIZE - 1, 3 * MAX_SIZE])
def test_a_request_larger_than_a_batch_is_split_and_joined_again_in_order(
    proxy: Proxy, backend: Backend, count: int
) -> None:
    instances = [b'{"n": %d, "pad": "%b"}' % (number, b"x" * (number % 7)) for number in range(count)]
    assert ask(proxy.url, predict(*instances)).body == predictions(*instances)
    assert ask(proxy.url, tags(b"[%b]" % b",".join(instances))).body == b"[%b]" % b", ".join(instances)
    sizes = [len(call.instances) for call in backend.predictions]
    assert max(sizes) <= MAX_SIZE
    assert sum(sizes) == 2 * count
    assert len(sizes) == 2 * -(-count // MAX_SIZE)


def test_other_members_are_kept_and_only_requests_with_the_same_ones_share_a_batch(
    proxy: Proxy, backend: Backend
) -> None:
    serving, training = b'"signature_name": "serving", ', b'"signature_name": "training", '
    deep = b'"parameters": {"k": [1, 2.50], "instances": [0]}, '
    lanes = [serving, training, b"", deep, serving, training, b"", deep]
    requests = [predict(b'"%d"' % number, members=members) for number, members in enumerate(lanes)]
    with queued(proxy, backend, requests, depth=len(lanes)) as (gate, callers):
        gate.open()
        for number, caller in enumerate(callers):
            assert caller.read_response().body == predictions(b'"%d"' % number)
    batches = {tuple(call.instances): bytes(call.body) for call in backend.predictions[1:]}
    assert sorted(batches) == [(b'"0"', b'"4"'), (b'"1"', b'"5"'), (b'"2"', b'"6"'), (b'"3"', b'"7"')]
    assert b'"signature_name": "serving"' in batches[b'"0"', b'"4"']
    assert b'"signature_name": "training"' in batches[b'"1"', b'"5"']
    assert b"signature_name" not in batches[b'"2"', b'"6"']
    assert b'"parameters": {"k": [1, 2.50], "instances": [0]}' in batches[b'"3"', b'"7"']


# --- response headers ------------------------------------------------------------------------------------------


def test_the_callers_request_id_is_echoed(proxy: Proxy, backend: Backend) -> None:
    response = ask(proxy.url, predict(b"1", headers=("X-Request-Id: a-b/c:42",)))
    assert response.header("x-request-id") == "a-b/c:42"


def test_a_request_without_an_id_gets_one_of_its_own(proxy: Proxy, backend: Backend) -> None:
    ids = {ask(proxy.url, predict(b"1")).header("x-request-id") for _ in range(3)}
    assert len(ids) == 3
    assert None not in ids


@pytest.mark.parametrize("bad_id", ["", "two words", "x" * 129, "caf\xe9"])
def test_an_id_that_has_no_place_in_a_header_is_replaced(proxy: Proxy, backend: Backend, bad_id: str) -> None:
    response = ask(proxy.url, predict(b"1", headers=(f"X-Request-Id: {bad_id}",)))
    assert response.status == 200
    assert response.header("x-request-id") not in (None, bad_id)


def test_an_answer_says_how_long_it_took_and_in_what_company(proxy: Proxy, backend: Backend) -> None:
    response = ask(proxy.url, predict(b"1", b"2", b"3"))
    assert re.fullmatch(r"queue;dur=\d+\.\d+, backend;dur=\d+\.\d+", response.header("server-timing") or "")
    assert response.header("x-mlproxy-batch-size") == "3"
    assert response.header("date") is not None


# --- keep-alive ------------------------------------------------------------------------------------------------


def test_requests_with_the_same_head_on_one_connection_each_get_their_own_answer(
    proxy: Proxy, backend: Backend
) -> None:
    with Caller(proxy.url) as caller:
        for number in range(100, 150):  # bodies of one length: the same head, byte for byte
            response = caller.call(predict(b"%d" % number))
            assert (response.status, response.body) == (200, predictions(b"%d" % number))


def test_alternating_heads_on_one_connection_each_get_their_own_answer(proxy: Proxy, backend: Backend) -> None:
    kinds: list[Callable[[bytes], tuple[bytes, bytes]]] = [
        lambda instance: (predict(instance), predictions(instance)),
        lambda instance: (tags(b"[%b]" % instance), b"[%b]" % instance),
        lambda instance: (predict(instance, headers=("X-Other: yes",)), predictions(instance)),
        lambda instance: (predict(instance, b"0"), predictions(instance, b"0")),
    ]
    with Caller(proxy.url) as caller:
        for number in range(100, 140):
            # Each kind twice, so that its head is known the second time, and the next kind's head is not.
            data, expected = kinds[number // 2 % len(kinds)](b"%d" % number)
            response = caller.call(data)
            assert (response.status, response.body) == (200, expected)


def test_the_same_head_with_a_bad_body_is_refused_and_the_connection_goes_on(proxy: Proxy, backend: Backend) -> None:
    with Caller(proxy.url) as caller:
        for number in range(10):
            assert caller.call(predict(b'"%d"' % number)).body == predictions(b'"%d"' % number)
            assert caller.call(predict(b"}%d}" % number)).status == 400


def test_the_same_head_with_another_id_gets_that_id_back(proxy: Proxy, backend: Backend) -> None:
    with Caller(proxy.url) as caller:
        for number in range(10, 20):
            response = caller.call(predict(b"%d" % number, headers=(f"X-Request-Id: id-{number}",)))
            assert (response.header("x-request-id"), response.body) == (f"id-{number}", predictions(b"%d" % number))


# --- size ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16_000, 65_536, 300_000, BODY_BYTES - 100])
def test_a_body_larger_than_the_ring_works(proxy: Proxy, backend: Backend, size: int) -> None:
    instance = b'"%b"' % (b"0123456789" * (size // 10))
    response = ask(proxy.url, predict(instance))
    assert response.status == 200
    assert response.body == predictions(instance)


def test_large_and_small_bodies_side_by_side_each_get_their_own_answer(proxy: Proxy, backend: Backend) -> None:
    instances = [b'"%d%b"' % (number, b"x" * (0 if number % 2 else 90_000)) for number in range(16)]
    with ExitStack() as stack:
        callers = [stack.enter_context(Caller(proxy.url)) for _ in instances]
        for caller, instance in zip(callers, instances, strict=True):
            caller.send(predict(instance))
        for caller, instance in zip(callers, instances, strict=True):
            assert caller.read_response().body == predictions(instance)


def test_a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(proxy: Proxy, backend: Backend) -> None:
    around = len(b'{"instances": [""]}')
    assert ask(proxy.url, predict(b'"%b"' % (b"x" * (BODY_BYTES - around)))).status == 200
    response = ask(proxy.url, predict(b'"%b"' % (b"x" * (BODY_BYTES - around + 1))))
    assert (response.status, response.header("connection")) == (413, "close")
    assert response.json()["status"] == 413
    assert "2MiB" in response.json()["detail"]


# --- overload --------------------------------------------------------------------------------------------------


def assert_shed(response: Response, connection: str | None = None) -> None:
    assert response.status == 503
    assert 1 <= int(response.header("retry-after") or 0) <= 30
    assert response.json()["type"] == "urn:mlproxy:error:overloaded"
    assert response.header("connection") == connection


def test_a_full_queue_sheds_with_retry_after_and_answers_everything_it_took(proxy: Proxy, backend: Backend) -> None:
    requests = [predict(b"%d" % number) for number in range(QUEUE_INSTANCES)]
    with queued(proxy, backend, requests, depth=QUEUE_INSTANCES) as (gate, callers), Caller(proxy.url) as late:
        assert_shed(late.call(predict(b'"one too many"')))
        gate.open()
        for number, caller in enumerate(callers):
            assert caller.read_response().body == predictions(b"%d" % number)
        assert late.call(predict(b'"again"')).body == predictions(b'"again"')
    assert read_metric(proxy.admin_url, 'mlproxy_shed_total{endpoint="iris",reason="queue_full"}') >= 1


def test_a_request_that_alone_exceeds_the_queue_is_told_that_waiting_will_not_help(
    proxy: Proxy, backend: Backend
) -> None:
    response = ask(proxy.url, predict(*[b"1"] * (QUEUE_INSTANCES + 1)))
    assert (response.status, response.header("retry-after")) == (413, None)
    assert "limits.queue_instances" in response.json()["detail"]
    assert backend.requests == []


@pytest.mark.parametrize("header", BUDGETS)
def test_a_request_whose_budget_ends_in_the_queue_is_504_at_that_moment(
    proxy: Proxy, backend: Backend, header: str
) -> None:
    with queued(proxy, backend, [predict(b'"patient"')], depth=1) as (gate, callers):
        response = ask(proxy.url, predict(b'"hasty"', headers=(header,)))
        assert (response.status, response.json()["type"]) == (504, "urn:mlproxy:error:deadline-exceeded")
        gate.open()
        assert callers[0].read_response().body == predictions(b'"patient"')
    assert b'"hasty"' not in [instance for call in backend.predictions for instance in call.instances]


def test_a_full_ring_waits_then_sheds_and_answers_everything_it_took(proxy: Proxy, backend: Backend) -> None:
    batcher = next(process["pid"] for process in proxy.status()["processes"] if process["name"] == "batcher")
    shed_series = 'mlproxy_shed_total{endpoint="iris",reason="worker_full"}'
    instances = [b'"%02d%b"' % (number, b"x" * 2**18) for number in range(2 * QUEUE_BYTES // 2**18)]
    fitting = QUEUE_BYTES // len(instances[0])
    shed_before = read_metric(proxy.admin_url, shed_series)
    with ExitStack() as stack:
        callers = [stack.enter_context(Caller(proxy.url)) for _ in instances]
        stack.callback(psutil.Process(batcher).resume)
        psutil.Process(batcher).suspend()  # nobody empties the ring now
        for caller, instance in zip(callers, instances, strict=True):
            caller.send(predict(instance))
        excess = len(instances) - fitting
        assert wait_until(lambda: read_metric(proxy.admin_url, shed_series) - shed_before == excess, WITHIN_S)
        psutil.Process(batcher).resume()
        answered = 0
        for caller, instance in zip(callers, instances, strict=True):
            response = caller.read_response()
            if response.status == 200:
                assert response.body == predictions(instance)
                answered += 1
            else:  # before its second read was asked for: it closes, for the rest of the body may still be coming
                assert_shed(response, response.header("connection"))
                if response.header("connection") == "close":
                    continue
            again = instance[:3] + b'"'
            assert caller.call(predict(again)).body == predictions(again)
    assert answered == fitting
    assert proxy.status()["restarts"] == {"ingress": 0, "batcher": 0, "admin": 0}
