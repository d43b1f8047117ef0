"""Callers that stall, leave or dawdle: told so or forgotten, at nobody else's cost."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack

from bench.processes import Proxy, wait_until
from tests.system.backends import Backend, Exchange, echo, in_turn, never
from tests.system.conftest import BODY_BYTES
from tests.system.iris import answer_to, assert_error, body_of, predict, predict_in_chunks
from tests.system.raw_http import WITHIN_S, Caller, ask, read_metric, request


def assert_timed_out(caller: Caller) -> None:
    response = caller.read_response()
    assert_error(response, 408, "request-timeout")
    assert response.header("connection") == "close"
    assert caller.read_to_end() == b""


def test_callers_that_stall_in_a_head_or_a_body_are_told_408(proxy: Proxy, backend: Backend) -> None:
    head, body, in_chunks = predict(b"1")[:40], predict(b"1")[:-3], predict_in_chunks([body_of(b"1")])[:-8]
    with ExitStack() as stack:
        callers = [stack.enter_context(Caller(proxy.url)) for _ in range(4)]
        assert callers[3].call(predict(b"1")).status == 200
        for caller, stalled in zip(callers, (head, body, in_chunks, body), strict=True):
            caller.send(stalled)
        for caller in callers:
            assert_timed_out(caller)
    assert len(backend.predictions) == 1


def test_a_caller_that_stalls_in_a_body_that_passes_through_is_told_408(proxy: Proxy, backend: Backend) -> None:
    with Caller(proxy.url) as caller:
        caller.send(request("POST", "/v1/models/iris/x", ("Content-Length: 10",)) + b"12345")
        assert_timed_out(caller)
    assert backend.predictions == []


def test_a_caller_that_waits_for_a_slow_backend_is_not_stalled(proxy: Proxy, backend: Backend) -> None:
    with backend.held() as gate, Caller(proxy.url) as waiting, Caller(proxy.url) as stalled:
        waiting.send(predict(b'"waits"'))
        assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
        assert stalled.call(b"POST ").status == 408  # longer than header_timeout has passed
        gate.open()
        assert waiting.read_response().body == answer_to(b'"waits"')


# --- callers that leave or dawdle ------------------------------------------------------------------------------


def queue_depth(proxy: Proxy) -> int:
    return int(read_metric(proxy.admin_url, 'mlproxy_queue_depth{endpoint="iris"}'))


def cancelled(proxy: Proxy) -> int:
    return int(read_metric(proxy.admin_url, 'mlproxy_cancelled_total{endpoint="iris"}'))


def one_served_and_queued(stack: ExitStack, proxy: Proxy, backend: Backend, *, queued: int) -> list[Caller]:
    """Callers of the instances "0", "1" and so on: the call of the first is held, the others wait for the slot."""
    callers = [stack.enter_context(Caller(proxy.url)) for _ in range(queued + 1)]
    callers[0].send(predict(b'"0"'))
    assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
    for number, caller in enumerate(callers[1:], start=1):
        caller.send(predict(b'"%d"' % number))
    assert wait_until(lambda: queue_depth(proxy) == queued, WITHIN_S)
    return callers


def test_a_caller_that_leaves_the_queue_takes_nobody_along_and_is_not_sent(proxy: Proxy, backend: Backend) -> None:
    before = cancelled(proxy)
    with backend.held() as gate, ExitStack() as stack:
        callers = one_served_and_queued(stack, proxy, backend, queued=5)
        callers[1].close()
        callers[3].close()
        assert wait_until(lambda: queue_depth(proxy) == 3, WITHIN_S)
        gate.open()
        for number in (0, 2, 4, 5):
            assert callers[number].read_response().body == answer_to(b'"%d"' % number)
    sent = {instance for call in backend.predictions for instance in call.instances}
    assert sent == {b'"0"', b'"2"', b'"4"', b'"5"'}
    assert cancelled(proxy) - before == 2


def test_a_caller_that_leaves_a_batch_in_flight_does_not_disturb_its_siblings(proxy: Proxy, backend: Backend) -> None:
    before = cancelled(proxy)
    with backend.held() as gate, ExitStack() as stack:
        callers = one_served_and_queued(stack, proxy, backend, queued=4)
        gate.let()
        assert wait_until(lambda: len(backend.predictions) == 2, WITHIN_S)
        callers[1].close()
        callers[4].close()
        assert wait_until(lambda: cancelled(proxy) - before == 2, WITHIN_S)
        gate.open()
        for number in (0, 2, 3):
            assert callers[number].read_response().body == answer_to(b'"%d"' % number)
    assert len(backend.predictions[1].instances) == 4


def test_a_call_that_nobody_waits_for_any_more_frees_its_slot(proxy: Proxy, backend: Backend) -> None:
    backend.script = never
    with Caller(proxy.url) as leaving:
        leaving.send(predict(b'"leaves"'))
        assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
    backend.forget()
    assert ask(proxy.url, predict(b'"next"')).body == answer_to(b'"next"')  # long before backend.timeout


def test_a_call_is_broken_off_when_the_last_of_its_callers_leaves_and_not_before(
    proxy: Proxy, backend: Backend
) -> None:
    ended = threading.Event()

    def until_it_ends(exchange: Exchange) -> None:
        exchange.wait(exchange.left)
        ended.set()
        exchange.end()

    backend.script = in_turn(echo, until_it_ends, echo)
    before = cancelled(proxy)
    with backend.held() as gate, ExitStack() as stack:
        callers = one_served_and_queued(stack, proxy, backend, queued=3)
        gate.open()
        assert wait_until(lambda: len(backend.predictions) == 2, WITHIN_S)
        callers[1].close()
        callers[3].close()
        assert wait_until(lambda: cancelled(proxy) - before == 2, WITHIN_S)
        assert not ended.wait(0.2)
        callers[2].close()
        assert ended.wait(WITHIN_S)
    assert len(backend.predictions[1].instances) == 3
    assert ask(proxy.url, predict(b'"next"')).body == answer_to(b'"next"')


def test_a_caller_that_leaves_in_the_middle_of_its_body_is_forgotten(proxy: Proxy, backend: Backend) -> None:
    before = cancelled(proxy)
    with Caller(proxy.url) as leaving:
        leaving.send(predict(b'"half"')[:-4])
    assert wait_until(lambda: cancelled(proxy) - before == 1, WITHIN_S)
    assert backend.requests == []


def test_a_slow_reader_gets_its_whole_answer_and_delays_nobody(proxy: Proxy, backend: Backend) -> None:
    instance = json.dumps("slow " * (BODY_BYTES // 6)).encode()
    with Caller(proxy.url, receive_buffer_bytes=4096) as slow:
        slow.send(predict(instance))
        assert wait_until(lambda: len(backend.predictions) == 1, WITHIN_S)
        for number in range(20):
            assert ask(proxy.url, predict(b'"%d"' % number)).body == answer_to(b'"%d"' % number)
        assert slow.read_response().body == answer_to(instance)
        assert slow.call(predict(b'"and on"')).body == answer_to(b'"and on"')
