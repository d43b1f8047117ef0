"""An endpoint of a running proxy together with its scripted backend, and what its answers are. **Effects**: sockets."""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple

from bench.processes import Proxy, wait_until
from tests.system.backends import Backend, echo
from tests.system.raw_http import WITHIN_S, Caller, Response, ask, read_metric, request


class Endpoint(NamedTuple):
    """A route of the proxy with a backend of its own, and so with an engine and a retry budget of its own."""

    name: str
    proxy: Proxy
    backend: Backend

    def data(self, instance: bytes) -> bytes:
        body = b'{"instances": [%b]}' % instance
        return request("POST", f"/v1/models/{self.name}:predict", ("Content-Type: application/json",), body)

    def ask(self, instance: bytes) -> Response:
        return ask(self.proxy.url, self.data(instance))

    def metric(self, name: str, **labels: str) -> int:
        text = ",".join(f'{key}="{value}"' for key, value in sorted({**labels, "endpoint": self.name}.items()))
        return int(read_metric(self.proxy.admin_url, f"mlproxy_{name}{{{text}}}"))

    def queue_depth(self) -> int:
        listed = ask(self.proxy.admin_url, request("GET", "/api/v1/endpoints")).json()
        return next(int(endpoint["queue_depth"]) for endpoint in listed if endpoint["name"] == self.name)

    def ask_as_one_batch(self, *instances: bytes) -> list[Response]:
        """The answers to requests that leave together, behind a call that is answered rightly and not counted."""
        script, self.backend.script = self.backend.script, echo
        with self.backend.held() as gate, ExitStack() as stack:
            callers = [stack.enter_context(Caller(self.proxy.url)) for _ in range(len(instances) + 1)]
            callers[0].send(self.data(b'"occupies the slot"'))
            assert wait_until(lambda: len(self.backend.predictions) == 1, WITHIN_S)
            for caller, instance in zip(callers[1:], instances, strict=True):
                caller.send(self.data(instance))
            assert wait_until(lambda: self.queue_depth() == len(instances), WITHIN_S)
            gate.let()
            assert callers[0].read_response().status == 200
            assert wait_until(lambda: len(self.backend.predictions) == 2, WITHIN_S)
            assert sorted(self.backend.predictions[1].instances) == sorted(instances)
            del self.backend.requests[0]
            self.backend.script = script
            gate.open()
            return [caller.read_response() for caller in callers[1:]]


def assert_answer(response: Response, instance: bytes) -> None:
    assert (response.status, response.body) == (200, b'{"predictions": [%b]}' % instance)


def assert_error(response: Response, status: int, slug: str) -> None:
    assert (response.status, response.json()["type"]) == (status, f"urn:mlproxy:error:{slug}")
    assert response.json()["error"]
