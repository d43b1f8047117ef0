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
from mlproxy.observe import MetricPage, PageLayout, PageState, SupervisorMetrics, configure_logging
from mlproxy.units import NS_PER_MS, NS_PER_S, format_duration
from workers.supervisor.cpu_quota import worker_count
from workers.supervisor.descriptors import raise_descriptor_limit
from workers.supervisor.liveness import Liveness, Patience, Verdict
from workers.supervisor.seat import Seat, how_it_ended, make_seats
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


class Supervisor:
    """Keeps every seat filled, until asked to empty them."""

    def __init__(
        self, configuration: Configuration, sockets: Sockets, roles: Mapping[str, str], patience: Patience
    ) -> None:
        self._configuration = configuration
        self._sockets = sockets
        layout = PageLayout.of(configuration)
        self._page = MetricPage.create(layout, "supervisor")
        self._metrics = SupervisorMetrics(self._page)
        self._seats = make_seats(configuration, sockets, layout, self._page, roles)
        self._announced = False
        self._liveness = Liveness(patience)
        self._stages: list[str] = []  # of the drain still to come
        self._drain_until_ns: int | None = None
        self._clean = True  # whoever was admitted was served
        self._ending = False  # nothing is started any more

    def __repr__(self) -> str:
        return f"<Supervisor {'draining' if self._draining else 'serving'}, {self._seats!r}>"

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
        for seat in self._seats:
            seat.signal(signal.SIGKILL)
        while any(seat.pid for seat in self._seats):
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
            for seat in self._seats:
                if seat.pid == pid:
                    self._seat_ended(seat, status)
            block = False

    def _seat_ended(self, seat: Seat, status: int) -> None:
        # Workers that still finish their requests need a batcher.
        needed = not self._draining or (seat.role == "batcher" and self._stages[:1] == ["ingress"])
        restart = needed and not self._ending
        served = seat.was_ready or seat.ready
        seat.ended(status, time.monotonic_ns(), restart=restart)
        if self._draining and not self._ending and seat.role == "ingress" and served and status:
            self._clean = False  # its callers were cut off, or told that time was over
            logger.warning("%s %s while draining", seat.name, how_it_ended(status))
        if restart:
            self._metrics.restarted(seat.role)

    def _hopeless(self) -> bool:
        for seat in self._seats:
            if seat.start_failures >= MAX_START_FAILURES:
                logger.error("%s failed to start %d times in a row; giving up", seat.name, seat.start_failures)
                return True
        return False

    # --- what is due -----------------------------------------------------------------------------------------

    def _start_due(self, now_ns: int) -> None:
        for seat in self._seats:
            if seat.due_ns is not None and seat.due_ns <= now_ns:
                seat.start(now_ns)

    def _look(self, now_ns: int) -> None:
        self._liveness.look(now_ns)
        for seat in self._seats:
            if seat.note_ready() and self._announced:
                logger.info("%s is ready again pid=%d", seat.name, seat.pid)
            if not self._draining:  # whose end has its own time-out
                self._check(seat)
        if not (self._announced or self._draining) and all(seat.ready for seat in self._seats):
            self._announced = True
            self._page.set_state(PageState.READY)
            self._announce()

    def _check(self, seat: Seat) -> None:
        patience = self._liveness.patience
        if seat.ready:
            verdict, late_ns = self._liveness.judge_ready(seat.name, seat.page.heartbeat_ns), patience.hung_ns
        elif seat.pid is not None:
            verdict, late_ns = self._liveness.judge_starting(seat.started_ns), patience.start_ns
        else:
            return
        match verdict:
            case Verdict.SILENT:
                logger.warning("%s has not turned its loop for %s", seat.name, format_duration(patience.silent_ns))
            case Verdict.HUNG:
                logger.error("%s hangs: not a turn of its loop in %s; killing it", seat.name, format_duration(late_ns))
                seat.kill()

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
        settled = self._announced and not self._draining and all(seat.ready for seat in self._seats)
        due = [seat.due_ns for seat in self._seats if seat.due_ns is not None]
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
        for seat in self._of_stage():
            seat.signal(signal.SIGTERM)

    def _of_stage(self) -> Sequence[Seat]:
        return [seat for seat in self._seats if seat.role == self._stages[0]]

    def _drain_step(self, now_ns: int) -> bool:
        """Go on to the next stage when one has nothing left to do; True when everybody is gone."""
        assert self._drain_until_ns is not None
        if now_ns >= self._drain_until_ns:
            remaining = [seat.name for seat in self._seats if seat.pid]
            if remaining:
                logger.error("not drained in time, killing: %s", ", ".join(remaining))
                # Who has answered everybody only exits, which takes long on a loaded machine; for admin nobody waits.
                self._clean = self._clean and not any(seat.busy for seat in self._seats if seat.role != "admin")
                self.kill_all()
            return True
        while self._stages and not any(seat.busy for seat in self._of_stage()):
            self._stages.pop(0)
            if self._stages:
                self._signal_stage()
        return not (self._stages or any(seat.pid for seat in self._seats))
