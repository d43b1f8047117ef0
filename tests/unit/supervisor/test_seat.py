"""A seat whose process cannot be started, or has ended, with a clock and an operating system that the test owns."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from mlproxy.config import Configuration
from mlproxy.observe import MetricPage, PageLayout, PageState
from mlproxy.units import NS_PER_MS, NS_PER_S
from workers.launch import Launch
from workers.supervisor.backoff import LONGEST_PAUSE_NS
from workers.supervisor.seat import Seat, how_it_ended

PID = 2**22 + 1  # beyond what the kernel gives


class Machine:
    """Starts processes, or fails to."""

    def __init__(self) -> None:
        self.out_of = 0  #: errno; 0: of nothing

    def popen(self, *_: object, **__: object) -> subprocess.Popen[bytes]:
        if self.out_of:
            raise OSError(self.out_of, os.strerror(self.out_of))
        process = object.__new__(subprocess.Popen)
        process.pid, process.returncode = PID, 0
        return process


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(subprocess, "Popen", type("Popen", (), {"__new__": lambda cls, *_, **__: machine.popen()}))
    return machine


@pytest.fixture
def page() -> Iterator[MetricPage]:
    page = MetricPage.create(PageLayout(urls=()), "test")
    yield page
    page.words.release()
    os.close(page.fd)


@pytest.fixture
def seat(page: MetricPage) -> Seat:
    document = {"endpoints": [{"name": "m", "backend": {"urls": ["http://127.0.0.1:9"]}}]}
    launch = Launch(
        role="batcher", index=0, workers=1, configuration=Configuration.model_validate(document),
        supervisor_pid=os.getpid(), rendezvous="", listen_fd=0, page_fd=page.fd, page_fds={},
    )  # fmt: skip
    return Seat(launch, page, "no.such.module")


def pauses_ms(seat: Seat, starts: int) -> list[int]:
    """Between one start and the next."""
    pauses, now_ns = [], 7 * NS_PER_S
    for _ in range(starts):
        seat.start(now_ns)
        assert seat.due_ns is not None
        pauses.append((seat.due_ns - now_ns) // NS_PER_MS)
        now_ns = seat.due_ns
    return pauses


@pytest.mark.parametrize("out_of", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE])
def test_a_start_that_the_machine_refuses_is_tried_again_after_growing_pauses(
    seat: Seat, machine: Machine, out_of: int
) -> None:
    machine.out_of = out_of
    assert pauses_ms(seat, 5) == [0, 100, 200, 400, 800]
    assert seat.start_failures == 5
    assert repr(seat) == "<Seat batcher: empty>"
    machine.out_of = 0
    seat.start(9 * NS_PER_S)
    assert repr(seat) == f"<Seat batcher: process {PID}>"
    assert seat.due_ns is None


def test_a_seat_that_was_filled_once_is_never_given_up_for_want_of_room(
    seat: Seat, machine: Machine, page: MetricPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seat.start(NS_PER_S)
    monkeypatch.setattr(os, "getpid", lambda: PID)
    page.begin(NS_PER_S)
    page.set_state(PageState.READY)
    assert seat.note_ready()
    seat.ended(0, 3 * NS_PER_S, restart=True)
    machine.out_of = errno.EAGAIN
    assert pauses_ms(seat, 20)[-1] == LONGEST_PAUSE_NS // NS_PER_MS
    assert seat.start_failures == 0


def test_the_log_says_when_a_successor_starts(seat: Seat, machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        seat.start(NS_PER_S)
        seat.ended(signal.SIGKILL, NS_PER_S, restart=True)
    assert caplog.messages == [
        "batcher killed by SIGKILL; its successor starts at once",
        "batcher killed by SIGKILL; its successor starts in 0.1 s",
    ]


def test_a_configuration_that_cannot_be_passed_on_leaves_no_descriptor(
    seat: Seat, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no memory")

    monkeypatch.setattr(os, "write", full)
    before = os.listdir("/proc/self/fd")
    seat.start(NS_PER_S)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert seat.start_failures == 1


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exited with 0"), (70 << 8, "exited with 70"), (signal.SIGKILL, "killed by SIGKILL"),
     (signal.SIGSEGV | 0x80, "killed by SIGSEGV"), (signal.SIGRTMIN + 2, f"killed by signal {signal.SIGRTMIN + 2}")],
)  # fmt: skip
def test_every_end_has_words(status: int, words: str) -> None:
    assert how_it_ended(status) == words


def test_a_process_that_has_answered_everybody_is_not_busy_while_it_exits(
    seat: Seat, machine: Machine, page: MetricPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not seat.busy
    seat.start(NS_PER_S)
    monkeypatch.setattr(os, "getpid", lambda: PID)
    page.begin(NS_PER_S)
    for state, busy in ((PageState.READY, True), (PageState.DRAINING, True), (PageState.DRAINED, False)):
        page.set_state(state)
        assert seat.busy == busy
    seat.ended(0, 2 * NS_PER_S, restart=True)
    seat.start(3 * NS_PER_S)
    page.words[0] = 0  # the successor has not taken the page over yet: its predecessor's state is not its own
    assert seat.busy
