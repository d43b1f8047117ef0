"""How the supervisor tells a role what to be. **Effects**: this is the first thing a role's process runs.

A role is started as ``python -m workers.<role> <fd>``; the descriptor is an anonymous file with a `Launch` as JSON.
Nothing is pickled: configuration, numbers of inherited descriptors, names.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from dataclasses import dataclass

import orjson
import setproctitle

from mlproxy.config import Configuration
from mlproxy.observe import configure_logging

_PR_SET_PDEATHSIG = 1  # prctl(2)


def process_name(role: str, index: int) -> str:
    """``ingress-0``, ``batcher``: in logs, in `ps`, in the status and as the label ``process`` of metrics."""
    return f"{role}-{index}" if role == "ingress" else role


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything that a role gets from the supervisor."""

    role: str
    index: int
    workers: int  #: ingress workers in all
    configuration: Configuration
    supervisor_pid: int
    rendezvous: str  #: abstract Unix socket name where the batcher meets the workers
    listen_fd: int  #: ingress: the data port; admin: the admin port; batcher: the rendezvous
    page_fd: int  #: the role's own metric page
    page_fds: dict[str, int]  #: by process name; admin: every one, ingress: the batcher's, batcher: none

    @property
    def name(self) -> str:
        """The process's name."""
        return process_name(self.role, self.index)

    def write(self) -> int:
        """Put it into an anonymous file; its descriptor is the role's argument."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        fields["configuration"] = self.configuration.to_json()
        fd = os.memfd_create("mlproxy-launch", os.MFD_CLOEXEC)
        try:
            os.write(fd, orjson.dumps(fields))
        except OSError:
            os.close(fd)
            raise
        return fd

    @classmethod
    def read(cls, fd: int) -> Launch:
        """The other end of `write`."""
        fields = orjson.loads(os.pread(fd, os.fstat(fd).st_size, 0))
        os.close(fd)
        fields["configuration"] = Configuration.from_json(fields["configuration"])
        return cls(**fields)


def enter_role() -> Launch:
    """Become the role that this process was started as.

    Signals stay blocked, as they are in the supervisor and its children, until `let_signals_through`: none is lost.
    """
    launch = Launch.read(int(sys.argv[1]))
    _die_with(launch.supervisor_pid)
    setproctitle.setproctitle(f"mlproxy: {launch.name.replace('-', ' ')}")
    configure_logging(launch.configuration.logging.level, launch.name)
    return launch


def let_signals_through() -> None:
    """The role's handlers stand; what was sent meanwhile comes in now."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _die_with(supervisor_pid: int) -> None:
    """Ask the kernel to kill this process when the supervisor ends, however it ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != supervisor_pid:  # it ended before the line above
        sys.exit(1)
