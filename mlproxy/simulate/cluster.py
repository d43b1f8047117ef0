"""A Knative revision in virtual time: what the activator reports, and what the autoscaler makes of it. **Pure.**"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mlproxy.engine.autoscaler import TICK_NS, Autoscaler, ScalingWindows
from mlproxy.simulate.activator import Activator
from mlproxy.simulate.call import Call
from mlproxy.simulate.faults import Fault
from mlproxy.simulate.fleet import Fleet
from mlproxy.simulate.model import Model
from mlproxy.simulate.profiles import Profile
from mlproxy.simulate.settings import ClusterSettings
from mlproxy.simulate.timeline import Timeline
from mlproxy.simulate.zero import ScaleToZero
from mlproxy.units import NS_PER_S

#: How often the activator reports its concurrency.
REPORT_NS = NS_PER_S


class Cluster:
    """Takes calls and answers them; grows and shrinks with what is under way."""

    def __init__(
        self,
        settings: ClusterSettings,
        profile: Profile,
        faults: Sequence[Fault],
        timeline: Timeline,
        rng: np.random.Generator,
        on_done: Callable[[Call], None],
    ) -> None:
        self._settings = settings
        self._timeline = timeline
        model = Model(profile, faults, rng)
        self._activator = Activator(settings, timeline, model, int(rng.integers(2**62)), on_done)
        self.fleet.begin_with(max(1, settings.min_scale))
        spec = settings.autoscaler_spec()
        self.autoscaler = Autoscaler(spec, ready=self.fleet.size, now_ns=0)
        self._windows = ScalingWindows(spec)
        self._zero = ScaleToZero(spec.stable_window_ns, settings.scale_to_zero_grace_ns)
        self._proxying_since_ns: int | None = 0
        timeline.at(REPORT_NS, self._every_second)

    def __repr__(self) -> str:
        return f"<Cluster: {self._activator!r}, {self.autoscaler!r}>"

    @property
    def fleet(self) -> Fleet:
        """The pods."""
        return self._activator.fleet

    @property
    def waiting(self) -> int:
        """Calls in the activator that no pod works on."""
        return self._activator.waiting

    def receive(self, call: Call) -> None:
        """``call`` came from the proxy."""
        if not call.abandoned:
            at_once = self._activator.reports.first_call(self._timeline.now_ns)
            if at_once is not None:
                self._poke(at_once)
            self._activator.receive(call)

    def give_up(self, call: Call) -> None:
        """The proxy does not wait for ``call`` any more."""
        self._activator.give_up(call)

    # --- autoscaling -----------------------------------------------------------------------------------------

    def _poke(self, concurrency: float) -> None:
        """A report out of turn; from zero pods it is acted on at once."""
        self._windows.record(self._timeline.now_ns, concurrency)
        if self.fleet.size == 0:
            self._tick()

    def _every_second(self, _: None) -> None:
        now_ns = self._timeline.now_ns
        concurrency = self._activator.reports.report(now_ns)
        if concurrency is not None:
            self._windows.record(now_ns, concurrency)
        if self.fleet.ready:  # ready pods are asked too; what came through the activator they do not count
            self._windows.record(now_ns, 0.0)
        if now_ns % TICK_NS == 0:
            self._tick()
        self._timeline.at(now_ns + REPORT_NS, self._every_second)

    def _tick(self) -> None:
        now_ns = self._timeline.now_ns
        averages = self._windows.averages(now_ns)
        if averages is None:
            return
        wanted = self.autoscaler.decide(*averages, self.fleet.ready_level.now, now_ns)
        pods = min(max(wanted.pods, self._settings.min_scale), self._settings.max_pods)
        self._note_path(pods, wanted.excess_burst_capacity)
        allowed = self._zero.allowed(pods, now_ns, self._proxying_since_ns)
        if allowed is not None:
            self.fleet.scale_to(allowed)

    def _note_path(self, pods: int, excess_burst_capacity: int) -> None:
        if pods > 0 and excess_burst_capacity >= 0:
            self._proxying_since_ns = None
        elif self._proxying_since_ns is None:
            self._proxying_since_ns = self._timeline.now_ns
