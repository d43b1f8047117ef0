"""A process's seat: what stays while one process after the other fills it. **Effects.**

Invariant: at most one process is in a seat, and only that one writes the seat's metric page.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace

from mlproxy.config import Configuration
from mlproxy.observe import MetricPage, PageLayout, PageState
from workers.launch import Launch, process_name
from workers.supervisor.backoff import BackOff
from workers.supervisor.sockets import Sockets

#: glibc gives memory back to the kernel after every large body and faults it in again for the next: 57 instead of
#: 90 CPU-µs per request in the batcher at 150 KiB. Beyond these 32 MiB it still does; musl ignores both.
_ALLOCATION = {"MALLOC_TRIM_THRESHOLD_": "33554432", "MALLOC_MMAP_THRESHOLD_": "8388608"}

logger = logging.getLogger("mlproxy.supervisor")


class Seat:
    """One role (and index), its metric page, and the process that fills it now, if any."""

    def __init__(self, launch: Launch, page: MetricPage, module: str) -> None:
        self.name = launch.name
        self.role = launch.role
        self.page = page
        self._launch = launch
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._back_off = BackOff()
        self.started_ns = 0  #: when the process was started
        self.was_ready = False
        self._served = False  # one of its processes has been ready
        self.start_failures = 0  #: in a row: deaths of processes that were never ready, and first starts that failed
        self.due_ns: int | None = 0  #: when to start the next process; None: not to be started

    def __repr__(self) -> str:
        return f"<Seat {self.name}: {f'process {self.pid}' if self.pid else 'empty'}>"

    @property
    def pid(self) -> int | None:
        """The process in the seat."""
        return self._process.pid if self._process else None

    @property
    def ready(self) -> bool:
        """The process has said that it is."""
        return self.pid is not None and self.page.pid == self.pid and self.page.state >= PageState.READY

    @property
    def busy(self) -> bool:
        """There is a process, and it has not said that everybody has been answered."""
        drained = self.page.pid == self.pid and self.page.state is PageState.DRAINED
        return self.pid is not None and not drained

    def start(self, now_ns: int) -> None:
        """Start a process; when there can be none now, be due again after a pause."""
        self.started_ns = now_ns
        self.due_ns = None
        try:
            self._process = self._spawn()
        except OSError as error:  # no process, no memory, no descriptor
            self._could_not_start(error, now_ns)
        else:
            logger.debug("started %s pid=%d", self.name, self._process.pid)

    def _spawn(self) -> subprocess.Popen[bytes]:
        """A fresh interpreter, in a process group of its own: Ctrl-C is for the supervisor."""
        fd = replace(self._launch, supervisor_pid=os.getpid()).write()
        inherited = (fd, self._launch.listen_fd, self._launch.page_fd, *self._launch.page_fds.values())
        try:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", self._module, str(fd)], stdin=subprocess.DEVNULL, pass_fds=inherited,
                process_group=0, env=os.environ | _ALLOCATION,
            )  # fmt: skip
        finally:
            os.close(fd)

    def _could_not_start(self, error: OSError, now_ns: int) -> None:
        if not self._served:  # else it is the machine that is short of something, and not for ever
            self.start_failures += 1
        pause_ns = self._back_off.pause_ns(0)
        self.due_ns = now_ns + pause_ns
        logger.error("cannot start a process for %s, trying again in %.1f s: %s", self.name, pause_ns / 1e9, error)

    def note_ready(self) -> bool:
        """Look once: has the process become ready since the last look?"""
        if self.ready and not self.was_ready:
            self.was_ready = self._served = True
            self.start_failures = 0
            return True
        return False

    def ended(self, status: int, now_ns: int, *, restart: bool) -> None:
        """The process is gone, with this wait status."""
        assert self._process is not None
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if not self.was_ready:
            self.start_failures += 1
        self._process = None
        self.was_ready = False
        if not restart:
            return
        pause_ns = self._back_off.pause_ns(now_ns - self.started_ns)
        self.due_ns = now_ns + pause_ns
        when = f"in {pause_ns / 1e9:.1f} s" if pause_ns else "at once"
        logger.warning("%s %s; its successor starts %s", self.name, how_it_ended(status), when)

    def kill(self) -> None:
        """End the process, hung as it is; its successor starts as after any other death."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send ``number`` to the process, if there is one."""
        self.due_ns = None
        if self._process is not None:
            os.kill(self._process.pid, number)


def make_seats(
    configuration: Configuration, sockets: Sockets, layout: PageLayout, own_page: MetricPage, roles: Mapping[str, str]
) -> list[Seat]:
    """One for the batcher, one for each ingress worker, one for admin."""
    workers = len(sockets.data)
    places = [("batcher", 0), *(("ingress", index) for index in range(workers)), ("admin", 0)]
    pages = {place: MetricPage.create(layout, process_name(*place)) for place in places}
    page_fds = {"supervisor": own_page.fd} | {process_name(*place): page.fd for place, page in pages.items()}
    seen_by = {"admin": page_fds, "ingress": {"batcher": page_fds["batcher"]}, "batcher": {}}
    listeners = {"batcher": [sockets.rendezvous], "ingress": sockets.data, "admin": [sockets.admin]}
    return [
        Seat(
            Launch(
                role=role, index=index, workers=workers, configuration=configuration, supervisor_pid=os.getpid(),
                rendezvous=sockets.rendezvous_name, listen_fd=listeners[role][index].fileno(),
                page_fd=pages[role, index].fd, page_fds=seen_by[role],
            ),
            pages[role, index],
            roles[role],
        )
        for role, index in places
    ]  # fmt: skip


def how_it_ended(status: int) -> str:
    """A wait status in words."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with {code}"
    names = {number.value: number.name for number in signal.Signals}  # of the real-time signals only the ends have one
    return f"killed by {names.get(-code, f'signal {-code}')}"
