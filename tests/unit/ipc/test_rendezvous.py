"""How a worker and the batcher meet, over real Unix sockets."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count, islice

import pytest

from mlproxy.ipc.channel import DirectionFds, Receiver, Sender
from mlproxy.ipc.records import ANSWER_HEADER, Kind
from mlproxy.ipc.rendezvous import WELCOME, RendezvousError, accept_offer, offer_channel

RING_BYTES = 64 * 1024


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    before = open_fds()
    yield
    assert open_fds() == before


@pytest.fixture
def listener(nothing_is_left_open: None) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(f"\0mlproxy-test-{os.getpid()}-{os.urandom(8).hex()}")
        listening.listen(4)
        yield listening


def address(listening: socket.socket) -> str:
    name: bytes = listening.getsockname()
    return name.decode()


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@contextmanager
def room_for(descriptors: int) -> Iterator[None]:
    """This process may open so many more, and no other."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = (number for number in count() if not is_open(number))
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(islice(free, descriptors, None)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def close(*directions: DirectionFds) -> None:
    for direction in directions:
        for fd in direction:
            os.close(fd)


class Meeting:
    """Both ends of one channel."""

    def __init__(self, listening: socket.socket, worker: int) -> None:
        self.worker_end, self.offered = offer_channel(address(listening), worker, RING_BYTES)
        self.batcher_end, _ = listening.accept()
        self.accepted = accept_offer(self.batcher_end)

    def close(self) -> None:
        self.worker_end.close()
        self.batcher_end.close()
        for offer in (self.offered, self.accepted):
            close(offer.requests, offer.answers)


@pytest.fixture
def meeting(listener: socket.socket) -> Iterator[Meeting]:
    both = Meeting(listener, worker=3)
    yield both
    both.close()


def test_the_batcher_learns_which_worker_it_is_and_welcomes_it(meeting: Meeting) -> None:
    assert meeting.accepted.worker == meeting.offered.worker == 3
    assert meeting.worker_end.recv(64) == WELCOME


def test_the_worker_never_blocks_on_its_end(meeting: Meeting) -> None:
    meeting.worker_end.recv(64)
    with pytest.raises(BlockingIOError):
        meeting.worker_end.recv(64)


def _send_through(sending: DirectionFds, receiving: DirectionFds, body: bytes) -> bytes:
    sender = Sender(DirectionFds(*map(os.dup, sending)), ANSWER_HEADER)
    receiver = Receiver(DirectionFds(*map(os.dup, receiving)), ANSWER_HEADER)
    sender.send(ANSWER_HEADER.pack(len(body), Kind.ANSWERS, 200, 1, 1, 0, 0), body)
    sender.publish()
    [(_, received)] = receiver.receive()
    sender.close()
    receiver.close()
    return received


def test_both_directions_lead_to_the_other_end_and_are_two(meeting: Meeting) -> None:
    worker, batcher = meeting.offered, meeting.accepted
    assert _send_through(worker.requests, batcher.requests, b"a request") == b"a request"
    assert _send_through(batcher.answers, worker.answers, b"an answer") == b"an answer"
    for direction in (batcher.requests, batcher.answers):
        assert os.fstat(direction.memory).st_size == RING_BYTES
    assert os.fstat(batcher.requests.memory).st_ino != os.fstat(batcher.answers.memory).st_ino


@pytest.mark.parametrize("dying", ["worker_end", "batcher_end"])
def test_the_death_of_either_end_is_the_end_of_the_others_socket(meeting: Meeting, dying: str) -> None:
    meeting.worker_end.recv(64)
    survivor = meeting.batcher_end if dying == "worker_end" else meeting.worker_end
    getattr(meeting, dying).close()
    assert survivor.recv(64) == b""


def test_an_offer_waits_for_a_batcher_that_is_not_there_yet(listener: socket.socket) -> None:
    worker_end, offered = offer_channel(address(listener), 0, RING_BYTES)
    batcher_end, _ = listener.accept()  # much later
    accepted = accept_offer(batcher_end)
    assert accepted.worker == 0
    assert worker_end.recv(64) == WELCOME
    worker_end.close()
    batcher_end.close()
    close(offered.requests, offered.answers, accepted.requests, accepted.answers)


def test_without_a_listener_nothing_is_left_behind() -> None:
    with pytest.raises(ConnectionRefusedError):
        offer_channel(f"\0mlproxy-test-nobody-{os.urandom(8).hex()}", 0, RING_BYTES)


def test_a_full_line_of_workers_is_an_error_to_try_again_after(listener: socket.socket) -> None:
    listener.listen(0)
    with ExitStack() as waiting:
        for _ in range(8):
            try:
                worker_end, offered = offer_channel(address(listener), 0, RING_BYTES)
            except OSError:
                return
            waiting.enter_context(worker_end)
            waiting.callback(close, offered.requests, offered.answers)
        pytest.fail("the line never became full")


# --- too few descriptors -------------------------------------------------------------------------------------

OFFERED = 6


@pytest.mark.parametrize("room", range(OFFERED + 1))
def test_a_worker_that_has_no_room_for_a_channel_and_its_socket_keeps_nothing(
    listener: socket.socket, room: int
) -> None:
    with room_for(room), pytest.raises(OSError, match="Too many open files"):
        offer_channel(address(listener), 0, RING_BYTES)


def test_a_worker_that_has_just_enough_room_makes_its_offer(listener: socket.socket) -> None:
    with room_for(OFFERED + 1):
        worker_end, offered = offer_channel(address(listener), 0, RING_BYTES)
    worker_end.close()
    close(offered.requests, offered.answers)


@pytest.mark.parametrize("room", range(OFFERED + 1))
def test_a_batcher_that_has_no_room_for_all_of_an_offer_keeps_nothing_of_it(listener: socket.socket, room: int) -> None:
    worker_end, offered = offer_channel(address(listener), 0, RING_BYTES)
    batcher_end, _ = listener.accept()
    try:
        if room < OFFERED:
            with room_for(room), pytest.raises(RendezvousError, match=f"no room for more than {room} of its"):
                accept_offer(batcher_end)
        else:
            with room_for(room):
                accepted = accept_offer(batcher_end)
            close(accepted.requests, accepted.answers)
    finally:
        worker_end.close()
        batcher_end.close()
        close(offered.requests, offered.answers)


# --- strangers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("greeting", "descriptors"),
    [
        (b"MLP1\0\0\0\0", 0),
        (b"MLP1\0\0\0\0", 5),
        (b"MLP0\0\0\0\0", 6),
        (b"MLP1\0\0", 6),
        (b"GET / HT", 0),
        (b"", 0),
    ],
)
def test_what_is_not_an_offer_is_refused_and_its_descriptors_are_closed(greeting: bytes, descriptors: int) -> None:
    stranger, batcher_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with stranger, batcher_end:
        if greeting:
            socket.send_fds(stranger, [greeting], [0] * descriptors)
        stranger.shutdown(socket.SHUT_WR)
        with pytest.raises(RendezvousError, match="not a channel offer"):
            accept_offer(batcher_end)


def test_another_users_process_is_refused(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    worker_end, offered = offer_channel(address(listener), 0, RING_BYTES)
    batcher_end, _ = listener.accept()
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with pytest.raises(RendezvousError, match=f"user {uid}"):
        accept_offer(batcher_end)
    worker_end.close()
    batcher_end.close()
    close(offered.requests, offered.answers)
