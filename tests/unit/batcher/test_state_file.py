"""The file of what was learned: whole, private, and never a reason not to start."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from pathlib import Path

import pytest

from mlproxy.engine.slo.controller import Controller
from mlproxy.engine.slo.pods import FixedPods
from mlproxy.engine.slo.state import dump
from mlproxy.units import NS_PER_MS
from workers.batcher import state_file
from workers.batcher.state_file import MAX_BYTES, StateFile, keep_up_to_date


def controller(calls: int = 0) -> Controller:
    new = Controller(500 * NS_PER_MS, 0.01, 128, FixedPods(1))
    for _ in range(calls):
        new.service.learn(8, 55 * NS_PER_MS, 0.01, 0)
    return new


def saved(folder: Path, calls: int = 20) -> StateFile:
    file = StateFile(str(folder), "iris", controller(calls))
    file.write(file.contents())
    return file


def test_what_one_has_written_the_next_goes_on_from(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved(tmp_path)
    successor = controller()
    with caplog.at_level(logging.INFO):
        StateFile(str(tmp_path), "iris", successor).read()
    assert successor.service.mean.samples == 20
    assert caplog.messages == ["going on from what was learned endpoint=iris calls=20"]


def test_nobody_else_can_read_it_and_nothing_else_is_left(tmp_path: Path) -> None:
    (tmp_path / ".iris.json.new").write_bytes(b"somebody was killed while writing this" * 1000)
    (tmp_path / ".iris.json.new").chmod(0o666)
    file = saved(tmp_path)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["iris.json"]
    successor = controller()
    StateFile(str(tmp_path), "iris", successor).read()
    assert successor.service.mean.samples == 20


def test_without_a_file_it_learns_anew_and_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    StateFile(str(tmp_path), "iris", controller()).read()
    assert caplog.messages == []


@pytest.mark.parametrize("kind", ["damaged", "huge", "a folder", "a device", "a pipe"])
def test_a_file_that_is_not_ours_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    path = tmp_path / "iris.json"
    match kind:
        case "damaged":
            path.write_bytes(b'{"version": 1}')
        case "huge":
            path.write_bytes(b" " * MAX_BYTES + dump(controller(20), time.time()))
        case "a folder":
            path.mkdir()
        case "a device":
            path.symlink_to("/dev/zero")
        case _:
            os.mkfifo(path)
    successor = controller()
    StateFile(str(tmp_path), "iris", successor).read()
    assert successor.service.mean.samples == 0
    (message,) = caplog.messages
    assert message.startswith(f"learns anew endpoint=iris file={path}: ")


def test_a_folder_that_went_away_is_told_once_until_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "state"
    file = StateFile(str(folder), "iris", controller())
    for _ in range(3):
        file.write(file.contents())
    folder.mkdir()
    file.write(file.contents())
    folder.rename(tmp_path / "elsewhere")
    file.write(file.contents())
    assert caplog.messages == [f"cannot keep what was learned file={file.path}: No such file or directory"] * 2


class Noted(StateFile):
    """Says when it has been written."""

    def __init__(self, folder: Path, learning: Controller) -> None:
        super().__init__(str(folder), "iris", learning)
        self.written = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def write(self, contents: bytes) -> None:
        super().write(contents)
        self._loop.call_soon_threadsafe(self.written.set)


def test_it_is_written_now_and_then_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_file, "SAVE_EVERY_S", 0.01)

    async def run() -> None:
        learning, stop = controller(), asyncio.Event()
        file = Noted(tmp_path, learning)
        saving = asyncio.create_task(keep_up_to_date([file], stop))
        await asyncio.wait_for(file.written.wait(), 10)
        learning.service.learn(8, 55 * NS_PER_MS, 0.01, 0)
        stop.set()
        await saving

    asyncio.run(run())
    successor = controller()
    StateFile(str(tmp_path), "iris", successor).read()
    assert successor.service.mean.samples == 1


def test_without_files_nothing_waits() -> None:
    asyncio.run(asyncio.wait_for(keep_up_to_date([], asyncio.Event()), 1))
