"""What a start is made of: how many workers, on which sockets."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from mlproxy.config import Configuration
from workers.supervisor import sockets, supervisor
from workers.supervisor.supervisor import workers_of


def configuration(**sections: Any) -> Configuration:
    endpoint = {"name": "iris", "backend": {"urls": ["http://127.0.0.1:9"]}}
    return Configuration.model_validate({"endpoints": [endpoint], **sections})


@pytest.mark.parametrize(("cpus", "workers"), [(1, 1), (16, 16), (64, 16)])
def test_auto_follows_the_cpus_until_a_share_of_the_queue_holds_no_largest_body(
    cpus: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "worker_count", lambda: cpus)
    assert workers_of(configuration()) == workers


def test_a_number_of_workers_is_that_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "worker_count", lambda: 64)
    assert workers_of(configuration(server={"workers": 3})) == 3


class NameServerless(socket.socket):
    """A socket on a machine that knows no names."""

    def bind(self, address: Any) -> None:
        if address[0] == "model.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        super().bind(address)


@pytest.mark.parametrize("section", ["server", "admin"])
def test_a_host_that_does_not_resolve_is_told_in_words_and_not_by_a_number(
    section: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, dict[str, Any]] = {"server": {"port": 0}, "admin": {"port": 0}}
    given[section] = {"host": "model.example", "port": 8099}
    monkeypatch.setattr(socket, "socket", NameServerless)
    with pytest.raises(OSError) as caught:
        sockets.bind(configuration(**given), 1)
    assert caught.value.strerror == "cannot listen on model.example:8099: Name or service not known"
