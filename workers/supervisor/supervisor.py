"""The supervisor's loop. **Effects.**

A plain process without threads or an event loop: every signal that matters is blocked and taken with
``sigtimedwait``, so nothing ever interrupts anything. It works as PID 1 and reaps whatever ends up with it.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Mapping, Sequence

import setproctitle

from mlproxy import __version__
from mlproxy.config import Configuration, advice
from mlproxy.observe import MetricPage, PageLayout, PageState, configure_logging
from mlproxy.units import NS_PER_MS, NS_PER_S, format_duration
from workers.launch import Launch
from workers.supervisor.cpu_quota import worker_count
from workers.supervisor.descriptors import raise_descriptor_limit
from workers.supervisor.liveness import Liveness, Patience, Verdict
from workers.supervisor.slot import Slot, how_it_ended
from workers.supervisor.sockets import Sockets, bind

logger = logging.getLogger("mlproxy.supervisor")

ROLES: Mapping[str, str] = {"ingress": "workers.ingress", "batcher": "workers.batcher", "admin": "workers.admin"}
#: Stages of a clean stop: whoever takes requests in first, whoever answers them next, whoever is looked at last.
_DRAIN_ORDER = ("ingress", "batcher", "admin")
_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD})
#: A role that dies this often in a row without ever becoming ready will not become so.
MAX_START_FAILURES = 5
#: While something is expected to change without a signal (start, restart), look this often.
_LOOK_NS = 20 * NS_PER_MS
_QUIET_LOOK_NS = NS_PER_S


def run(
    configuration: Configuration,
    roles: Mapping[str, str] = ROLES,
    patience: Patience = Patience(),  # noqa: B008 - frozen
) -> int:
    """Serve until told to stop. Returns the exit code: 0 after a clean drain, 1 if anything had to be killed."""
    setproctitle.setproctitle("mlproxy: supervisor")
    configure_logging(configuration.logging.level, "supervisor")
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    for note in advice(configuration):
        logger.warning("%s", note)
    raise_descriptor_limit()
    try:
        sockets = bind(configuration, workers_of(configuration))
    except OSError as error:
        logger.error("%s", error.strerror)
        return 1
    workers = len(sockets.data)
    logger.info("mlproxy %s starts %d worker%s, batcher and admin", __version__, workers, "" if workers == 1 else "s")
    supervisor = Supervisor(configuration, sockets, roles, patience)
    try:
        return supervisor.run()
    finally:
        supervisor.kill_all()
        sockets.close()


def workers_of(configuration: Configuration) -> int:
    """How many ingress workers to start; with auto never so many that one's share of the queue is below a body."""
    workers = configuration.server.workers
    return min(worker_count(), configuration.most_workers) if workers == "auto" else workers


def make_slots(
    configuration: Configuration, sockets: Sockets, layout: PageLayout, own_page: MetricPage, roles: Mapping[str, str]
) -> list[Slot]:
    """A slot per process: the batcher, the ingress workers, admin."""
    workers = len(sockets.data)
    names = [("batcher", 0), *(("ingress", index) for index in range(workers)), ("admin", 0)]
    pages = {name: MetricPage.create(layout, f"{name[0]}-{name[1]}") for name in names}
    labels = {name: f"{name[0]}-{name[1]}" if name[0] == "ingress" else name[0] for name in names}
    page_fds = {"supervisor": own_page.fd} | {labels[name]: page.fd for name, page in pages.items()}
    seen_by = {"admin": page_fds, "ingress": {"batcher": page_fds["batcher"]}, "batcher": {}}
    listeners = {"batcher": [sockets.rendezvous], "ingress": sockets.data, "admin": [sockets.admin]}
    return [
        Slot(
            Launch(
                role=role, index=index, workers=workers, configuration=configuration, supervisor_pid=os.getpid(),
                rendezvous=sockets.rendezvous_name, listen_fd=listeners[role][index].fileno(),
                page_fd=pages[role, index].fd, page_fds=seen_by[role],
            ),
            pages[role, index],
            roles[role],
        )
        for role, index in names
    ]  # fmt: skip


class Supervisor:
    """Keeps every slot filled, until asked to empty them."""

    def __init__(
        self, configuration: Configuration, sockets: Sockets, roles: Mapping[str, str], patience: Patience
    ) -> None:
        self._configuration = configuration
        self._sockets = sockets
        layout = PageLayout.of(configuration)
        self._page = MetricPage.create(layout, "supervisor")
        self._restarts = layout.offset("worker_restarts_total")
        self._slots = make_slots(configuration, sockets, layout, self._page, roles)
        self._roles = list(roles)
        self._announced = False
        self._liveness = Liveness(patience)
        self._stages: list[str] = []  # of the drain still to come
        self._drain_until_ns: int | None = None
        self._clean = True  # whoever was admitted was served
        self._ending = False  # nothing is started any more

    def __repr__(self) -> str:
        return f"<Supervisor {'draining' if self._draining else 'serving'}, {self._slots!r}>"

    @property
    def _draining(self) -> bool:
        return self._drain_until_ns is not None

    def run(self) -> int:
        """Until everything is stopped."""
        self._page.begin(time.monotonic_ns())
        while True:
            now_ns = time.monotonic_ns()
            self._page.beat(now_ns)
            self._start_due(now_ns)
            self._look(now_ns)
            if self._draining and self._drain_step(now_ns):
                logger.info("stopped")
                return 0 if self._clean else 1
            if self._hopeless():
                return 1
            self._take_signal(self._pause_ns(now_ns))

    def kill_all(self) -> None:
        """Leave nobody behind."""
        self._ending = True
        for slot in self._slots:
            slot.signal(signal.SIGKILL)
        while any(slot.pid for slot in self._slots):
            self._reap(block=True)

    # --- what happens ----------------------------------------------------------------------------------------

    def _take_signal(self, pause_ns: int) -> None:
        caught = signal.sigtimedwait(_SIGNALS, pause_ns / NS_PER_S)
        if caught is None:
            return
        match caught.si_signo:
            case signal.SIGCHLD:
                self._reap()
            case signal.SIGHUP:
                logger.warning("SIGHUP ignored: this version does not reload its configuration; restart it")
            case _ if self._draining:
                logger.warning("asked to stop a second time: killing what remains")
                self._drain_until_ns = 0
            case number:
                self._begin_drain(signal.Signals(number).name)

    def _reap(self, *, block: bool = False) -> None:
        """Take in every process that ended, our own or (as PID 1) anybody's."""
        while True:
            try:
                pid, status = os.waitpid(-1, 0 if block else os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for slot in self._slots:
                if slot.pid == pid:
                    self._slot_ended(slot, status)
            block = False

    def _slot_ended(self, slot: Slot, status: int) -> None:
        # Workers that still finish their requests need a batcher.
        needed = not self._draining or (slot.role == "batcher" and self._stages[:1] == ["ingress"])
        restart = needed and not self._ending
        served = slot.was_ready or slot.ready
        slot.ended(status, time.monotonic_ns(), restart=restart)
        if self._draining and not self._ending and slot.role == "ingress" and served and status:
            self._clean = False  # its callers were cut off, or told that time was over
            logger.warning("%s %s while draining", slot.name, how_it_ended(status))
        if restart:
            self._page.words[self._restarts + self._roles.index(slot.role)] += 1

    def _hopeless(self) -> bool:
        for slot in self._slots:
            if slot.start_failures >= MAX_START_FAILURES:
                logger.error("%s failed to start %d times in a row; giving up", slot.name, slot.start_failures)
                return True
        return False

    # --- what is due -----------------------------------------------------------------------------------------

    def _start_due(self, now_ns: int) -> None:
        for slot in self._slots:
            if slot.due_ns is not None and slot.due_ns <= now_ns:
                slot.start(now_ns)

    def _look(self, now_ns: int) -> None:
        self._liveness.look(now_ns)
        for slot in self._slots:
            if slot.note_ready() and self._announced:
                logger.info("%s is ready again pid=%d", slot.name, slot.pid)
            if not self._draining:  # whose end has its own time-out
                self._check(slot)
        if not (self._announced or self._draining) and all(slot.ready for slot in self._slots):
            self._announced = True
            self._page.set_state(PageState.READY)
            self._announce()

    def _check(self, slot: Slot) -> None:
        patience = self._liveness.patience
        if slot.ready:
            verdict, late_ns = self._liveness.judge_ready(slot.name, slot.page.heartbeat_ns), patience.hung_ns
        elif slot.pid is not None:
            verdict, late_ns = self._liveness.judge_starting(slot.started_ns), patience.start_ns
        else:
            return
        match verdict:
            case Verdict.SILENT:
                logger.warning("%s has not turned its loop for %s", slot.name, format_duration(patience.silent_ns))
            case Verdict.HUNG:
                logger.error("%s hangs: not a turn of its loop in %s; killing it", slot.name, format_duration(late_ns))
                slot.kill()

    def _announce(self) -> None:
        workers = len(self._sockets.data)
        logger.info(
            "listening on http://%s (%d worker%s), admin http://%s",
            self._sockets.address, workers, "" if workers == 1 else "s", self._sockets.admin_address,
        )  # fmt: skip
        for endpoint in self._configuration.endpoints:
            logger.info(
                "endpoint %s: POST http://%s%s -> %s", endpoint.name, self._sockets.address, endpoint.predict_path,
                ", ".join(endpoint.backend.urls),
            )  # fmt: skip

    def _pause_ns(self, now_ns: int) -> int:
        settled = self._announced and not self._draining and all(slot.ready for slot in self._slots)
        due = [slot.due_ns for slot in self._slots if slot.due_ns is not None]
        return max(0, min([_QUIET_LOOK_NS if settled else _LOOK_NS, *(due_ns - now_ns for due_ns in due)]))

    # --- the clean stop --------------------------------------------------------------------------------------

    def _begin_drain(self, why: str) -> None:
        logger.info("%s: draining", why)
        self._drain_until_ns = time.monotonic_ns() + self._configuration.server.drain_timeout_ns
        self._page.set_state(PageState.DRAINING)
        self._sockets.stop_accepting()
        self._stages = list(_DRAIN_ORDER)
        self._signal_stage()

    def _signal_stage(self) -> None:
        for slot in self._of_stage():
            slot.signal(signal.SIGTERM)

    def _of_stage(self) -> Sequence[Slot]:
        return [slot for slot in self._slots if slot.role == self._stages[0]]

    def _drain_step(self, now_ns: int) -> bool:
        """Go on to the next stage when one is empty; True when all are."""
        assert self._drain_until_ns is not None
        if now_ns >= self._drain_until_ns:
            remaining = [slot.name for slot in self._slots if slot.pid]
            if remaining:
                logger.error("not drained in time, killing: %s", ", ".join(remaining))
                self._clean = self._clean and remaining == ["admin"]  # nobody waits for an answer of admin's
                self.kill_all()
            return True
        while self._stages and not any(slot.pid for slot in self._of_stage()):
            self._stages.pop(0)
            if self._stages:
                self._signal_stage()
        return not self._stages
