"""Backends over TLS: called when their certificate is accepted, and not sent a byte of a request when it is not."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest
import trustme

from bench.processes import Proxy, wait_until
from tests.system.backends import Backend, running_backend
from tests.system.conftest import StartProxy
from tests.system.endpoint import Endpoint, assert_answer, assert_error
from tests.system.raw_http import WITHIN_S, ask, request


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def named(authority: trustme.CA) -> Iterator[dict[str, Backend]]:
    """Backends by the name of their endpoint."""
    with ExitStack() as stack:
        good, elsewhere = _server_context(authority, "127.0.0.1"), _server_context(authority, "other.example")
        expired = _server_context(authority, "127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=UTC))
        yield {
            "secure": stack.enter_context(running_backend(tls=good)),
            "stranger": stack.enter_context(running_backend(tls=good)),
            "trusting": stack.enter_context(running_backend(tls=good)),
            "misnamed": stack.enter_context(running_backend(tls=elsewhere)),
            "expired": stack.enter_context(running_backend(tls=expired)),
        }


def _server_context(authority: trustme.CA, host: str, not_after: datetime | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host, not_after=not_after).configure_cert(context)
    return context


@pytest.fixture(scope="module")
def proxy(
    start_proxy: StartProxy, named: dict[str, Backend], authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Proxy:
    ca_file = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    known = {"ca_file": str(ca_file)}
    tls = {"secure": known, "misnamed": known, "expired": known, "trusting": {"verify": False}}
    return start_proxy(
        {
            "endpoints": [
                {"name": name, "backend": {"urls": [backend.url], "timeout": "10s", "tls": tls.get(name, {})}}
                for name, backend in named.items()
            ]
        }
    )


@pytest.mark.parametrize("name", ["secure", "trusting"])
def test_an_https_backend_is_called_when_its_certificate_is_accepted(
    proxy: Proxy, named: dict[str, Backend], name: str
) -> None:
    secure = Endpoint(name, proxy, named[name])
    for number in range(3):
        assert_answer(secure.ask(b"%d" % number), b"%d" % number)
    assert secure.backend.connections == 1
    assert ask(proxy.url, request("GET", f"/v1/models/{name}")).status == 200


REFUSALS = {
    "stranger": "unable to get local issuer certificate",
    "misnamed": "IP address mismatch",
    "expired": "certificate has expired",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_an_https_backend_is_refused_when_its_certificate_is_not_verified(
    proxy: Proxy, named: dict[str, Backend], name: str
) -> None:
    refused = Endpoint(name, proxy, named[name])
    assert_error(refused.ask(b"1"), 502, "backend-unavailable")
    assert_error(ask(proxy.url, request("GET", f"/v1/models/{name}")), 502, "backend-unavailable")
    assert refused.backend.requests == []
    line = f"backend unhealthy endpoint={name} url={refused.backend.url} reason="
    assert wait_until(lambda: line in proxy.log_text(), WITHIN_S)
    assert REFUSALS[name] in proxy.log_text().partition(line)[2].partition("\n")[0]
