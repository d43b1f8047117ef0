"""How many calls the backend can serve at once, as far as the proxy knows. **Pure.**

Whoever runs the autoscaler knows best; a proxy that is not told runs Knative's algorithm on its own calls in flight,
which is what Knative's activator counts. Simulated, that view gives the same pods and misses as being told.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from mlproxy.engine.autoscaler import TICK_NS, Autoscaler, AutoscalerSpec, ScalingWindows
from mlproxy.units import NS_PER_S

#: A pod that is wanted is counted on after so long: a cold start of a small model.
BELIEVED_AFTER_NS = 4 * NS_PER_S


class Pods(Protocol):
    """A view of the backend's size."""

    #: In-flight time per time that a slot may have before another pod is wanted.
    slot_target: float
    #: Whether more calls in flight bring more pods.
    elastic: bool

    @property
    def coming(self) -> int:
        """Slots that are there or have been asked for."""

    def slots(self, now_ns: int) -> int:
        """Calls that can be served at once; 0: it may have to be woken."""

    def observe(self, in_flight: int, now_ns: int) -> None:
        """From ``now_ns`` on so many calls are in flight."""

    def told(self, ready: int) -> int:
        """So many pods are ready, says somebody who knows; returns the slots that these are."""


class FixedPods:
    """A backend of fixed size: all of it is paid for, whatever is in flight."""

    slot_target = 1.0
    elastic = False

    def __init__(self, slots: int) -> None:
        self._slots = slots

    @property
    def coming(self) -> int:
        return self._slots

    def slots(self, now_ns: int) -> int:
        return self._slots

    def observe(self, in_flight: int, now_ns: int) -> None:
        pass

    def told(self, ready: int) -> int:
        self._slots = ready
        return ready


class ShadowPods:
    """Knative's autoscaler, run on the proxy's own calls, until somebody tells the number of ready pods."""

    def __init__(self, spec: AutoscalerSpec, slots_per_pod: int, max_scale: int = 0) -> None:
        self.slot_target = spec.target.value / slots_per_pod
        self.elastic = True
        self._spec = spec
        self._slots_per_pod = slots_per_pod
        self._max_scale = max_scale
        self._told: int | None = None
        self._ready = 1
        self._wanted: deque[tuple[int, int]] = deque()  # (believed from, pods), rising
        self._in_flight = 0
        self._integrated_ns: int | None = None
        self._area = 0  # in-flight nanoseconds of the second that is running
        self._ticked_ns = 0
        self._windows = ScalingWindows(spec)
        self._autoscaler: Autoscaler | None = None

    def __repr__(self) -> str:
        return f"<ShadowPods {self._ready} ready, {self._in_flight} in flight>"

    @property
    def coming(self) -> int:
        wanted = self._wanted[-1][1] if self._wanted else self._ready
        return max(wanted, self._told or 0) * self._slots_per_pod

    def slots(self, now_ns: int) -> int:
        if self._told is None:
            self.observe(self._in_flight, now_ns)
            while self._wanted and self._wanted[0][0] <= now_ns:
                self._ready = self._wanted.popleft()[1]
        return (self._ready if self._told is None else self._told) * self._slots_per_pod

    def told(self, ready: int) -> int:
        self._told = ready
        return ready * self._slots_per_pod

    def observe(self, in_flight: int, now_ns: int) -> None:
        if self._integrated_ns is None:
            self._integrated_ns = self._ticked_ns = now_ns
            self._autoscaler = Autoscaler(self._spec, ready=1, now_ns=now_ns)
        self._integrate(now_ns)
        self._in_flight = in_flight

    def _integrate(self, now_ns: int) -> None:
        """Report each second that has ended, and look as often as the autoscaler does; nothing older matters."""
        assert self._integrated_ns is not None
        forgotten_ns = now_ns - self._spec.stable_window_ns - 2 * NS_PER_S
        if self._integrated_ns < forgotten_ns and not self._in_flight:  # idle: the windows have emptied
            self._integrated_ns = self._ticked_ns = forgotten_ns
            self._area = 0
        while (second_ns := (self._integrated_ns // NS_PER_S + 1) * NS_PER_S) <= now_ns:
            area = self._area + self._in_flight * (second_ns - self._integrated_ns)
            self._windows.record(second_ns - NS_PER_S, area / NS_PER_S)
            self._area, self._integrated_ns = 0, second_ns
            if second_ns - self._ticked_ns >= TICK_NS:
                self._ticked_ns = second_ns
                self._look(second_ns)
        self._area += self._in_flight * (now_ns - self._integrated_ns)
        self._integrated_ns = now_ns

    def _look(self, now_ns: int) -> None:
        averages = self._windows.averages(now_ns)
        assert self._autoscaler is not None
        if averages is None:
            return
        while self._wanted and self._wanted[0][0] <= now_ns:
            self._ready = self._wanted.popleft()[1]
        want = self._autoscaler.decide(*averages, self._ready, now_ns).pods
        if self._max_scale:
            want = min(want, self._max_scale)
        coming = self._wanted[-1][1] if self._wanted else self._ready
        if want < self._ready:
            self._ready = want
            self._wanted.clear()
        elif want > coming:
            self._wanted.append((now_ns + BELIEVED_AFTER_NS, want))
