"""What policy slo has learned survives a restart and a killed batcher; a file that does not help does no harm."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from bench.processes import Proxy, wait_until
from tests.crash.callers import Callers, Load, kill_batcher, proxy_before, slow_echo
from tests.system.backends import Backend, running_backend
from tests.system.raw_http import WITHIN_S


def learn(proxy: Proxy) -> None:
    with Callers(proxy, Load(), count=4) as callers:
        assert wait_until(callers.all_answered(5), WITHIN_S)
    assert callers.wrong == []


def run_once(backend: Backend, folder: Path, state: Path, *, kill: bool = False) -> str:
    """A proxy that learns, and ends cleanly; its log."""
    folder.mkdir()
    with proxy_before(backend, folder, state_dir=str(state)) as proxy:
        learn(proxy)
        if kill:
            kill_batcher(proxy)
            learn(proxy)
        assert proxy.stop() == 0
        return proxy.log_text()


def test_a_proxy_goes_on_from_what_the_one_before_has_learned_and_so_does_a_killed_batcher(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with running_backend(slow_echo) as backend:
        assert "learned" not in run_once(backend, tmp_path / "first", state)
        file = state / "m.json"
        calls = json.loads(file.read_bytes())["calls"]
        assert calls >= 5
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        log = run_once(backend, tmp_path / "second", state, kill=True)
        assert (
            log.count(f"going on from what was learned endpoint=m calls={calls}") == 2
        )  # at the start, after the kill
        assert json.loads(file.read_bytes())["calls"] > calls
        assert [path.name for path in state.iterdir()] == ["m.json"]


@pytest.mark.parametrize("garbage", [b"", b"\x00" * 4096, b'{"version": 99}', b'{"version": 1, "level": NaN}'])
def test_a_damaged_file_is_one_warning_and_replaced(tmp_path: Path, garbage: bytes) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "m.json").write_bytes(garbage)
    with running_backend(slow_echo) as backend:
        log = run_once(backend, tmp_path / "proxy", state)
    assert log.count("learns anew endpoint=m") == 1
    assert "Traceback" not in log
    assert json.loads((state / "m.json").read_bytes())["calls"] >= 5
