"""How a worker and the batcher meet: descriptors over a Unix socket, whose end is the notice of death. **Effects.**

The supervisor holds the listening socket (an abstract name: no file to leave behind, none needed on a read-only root),
so it outlives any batcher. A worker makes both directions, connects and passes the six descriptors; the batcher answers
one byte. From then on the socket carries nothing: when it ends, the peer is gone, and the answer to that is a new
channel from zero. Commands come over the same listening socket (`mlproxy.ipc.control`).
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import ExitStack
from typing import NamedTuple

from mlproxy.ipc.channel import DirectionFds

WELCOME = b"\x01"
_GREETING = struct.Struct("<4sI")  # magic with layout version, worker index
_MAGIC = b"MLP1"
_PEER_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


class Offer(NamedTuple):
    """What a worker brings: its index, and the two directions of the channel."""

    worker: int
    requests: DirectionFds
    answers: DirectionFds


class RendezvousError(Exception):
    """The peer is not one of ours, or speaks another layout."""


def offer_channel(address: str, worker: int, ring_bytes: int) -> tuple[socket.socket, Offer]:
    """Connect to the batcher's listening socket and pass it a new channel. OSError when nobody listens."""
    with ExitStack() as undo:
        directions = []
        for name in ("requests", "answers"):
            directions.append(DirectionFds.create(f"mlproxy-{name}-{worker}", ring_bytes))
            undo.callback(directions[-1].close)
        peer = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        peer.connect(address)
        socket.send_fds(peer, [_GREETING.pack(_MAGIC, worker)], [fd for fds in directions for fd in fds])
        undo.pop_all()
    return peer, Offer(worker, *directions)


def check_user(peer: socket.socket) -> None:
    """Only processes of this user may take part: RendezvousError for all others."""
    _, uid, _ = _PEER_CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size))
    if uid != os.getuid():
        raise RendezvousError(f"a process of user {uid} offered a channel")


def accept_offer(peer: socket.socket) -> Offer:
    """Read the offer from a connection that has become readable, and welcome the worker."""
    check_user(peer)
    greeting, fds, flags, _ = socket.recv_fds(peer, _GREETING.size, 6)
    if len(greeting) != _GREETING.size or len(fds) != 6 or greeting[:4] != _MAGIC:
        for fd in fds:
            os.close(fd)
        if flags & socket.MSG_CTRUNC:
            raise RendezvousError(f"no room for more than {len(fds)} of its descriptors (ulimit -n)")
        raise RendezvousError(f"not a channel offer: {greeting!r} with {len(fds)} descriptors")
    _, worker = _GREETING.unpack(greeting)
    offer = Offer(worker, DirectionFds(*fds[:3]), DirectionFds(*fds[3:]))
    try:
        peer.send(WELCOME)
    except OSError:
        offer.requests.close()
        offer.answers.close()
        raise
    return offer
