"""Knative's pod autoscaler (KPA): how many pods a measured concurrency calls for. **Pure.**

The simulator scales its cluster with it, and a policy that is told nothing about the backend's pods may run it on its
own in-flight counts. The algorithm is that of knative/serving `pkg/autoscaler/scaling`, and agrees with its unit
tests' vectors (`tests/unit/engine/kpa_vectors.json`). Numbers are IEEE doubles in the order in which Knative computes
them: ``2.1 / 0.7`` is a hair above 3, so it wants 4 pods, and Knative does too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from mlproxy.units import NS_PER_S

#: Knative looks every two seconds (`autoscaler.tickInterval`), which is also the grain of the scale-down delay.
TICK_NS = 2 * NS_PER_S
#: Averages are rounded to so many digits, so that what cancels out is zero and does not want a pod.
_DIGITS = 10**6


class Target(NamedTuple):
    """Concurrency per pod: what the autoscaler aims at, and what a pod can take."""

    value: float
    total: float


def resolve_target(
    *, container_concurrency: int = 0, target: float | None = None, utilization: float = 0.7, default_total: float = 100
) -> Target:  # fmt: skip
    """The target of a revision from its ``containerConcurrency`` (0: no limit) and its ``target`` annotation."""
    total = float(container_concurrency or default_total)
    if target is not None:
        total = min(target, total) if container_concurrency else target
    return Target(max(0.01, total * utilization), total)


def scrape_sample_size(ready: int) -> int:
    """How many of ``ready`` pods Knative asks for their concurrency: 95 % confidence, 20 % error."""
    if ready <= 3:
        return ready
    spread = 1.96**2 * 100 / 25
    return math.ceil(ready * spread / (ready + spread - 1))


class Window:
    """One-second buckets over the last ``seconds``; what is written within one second adds up."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self._buckets: dict[int, float] = {}
        self._first = 0
        self._last = -(1 << 62)

    def __repr__(self) -> str:
        return f"<Window of {self.seconds} s: {len(self._buckets)} buckets>"

    def record(self, now_ns: int, value: float) -> None:
        """Add ``value`` to the second of ``now_ns``; ignored when that is a whole window before the last one."""
        second = now_ns // NS_PER_S
        if second <= self._last - self.seconds:
            return
        if second - self._last >= self.seconds:
            self._buckets.clear()
            self._first = second
        self._first = min(self._first, second)
        if second > self._last:
            self._last = second
            oldest = second - self.seconds
            for old in [bucket for bucket in self._buckets if bucket <= oldest]:
                del self._buckets[old]
        self._buckets[second] = self._buckets.get(second, 0.0) + value

    def is_empty(self, now_ns: int) -> bool:
        """Whether nothing was written for longer than the window."""
        return now_ns // NS_PER_S - self._last > self.seconds

    def average(self, now_ns: int) -> float:
        """The mean per second, over the seconds since the first write if the window is not full."""
        silent = max(0, now_ns // NS_PER_S - self._last)
        if silent >= self.seconds:
            return 0.0
        oldest = self._last + silent - self.seconds
        total = sum(value for second, value in self._buckets.items() if second > oldest)
        seconds = min(self._last - self._first + 1, self.seconds - silent)
        return math.floor(total / seconds * _DIGITS + 0.5) / _DIGITS


class RunningMaximum:
    """The largest value recorded over the last ``length`` steps."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._values: dict[int, int] = {}

    def record(self, step: int, value: int) -> int:
        """Take in ``value`` at ``step``; return the maximum."""
        self._values = {at: one for at, one in self._values.items() if at > step - self._length}
        self._values[step] = max(value, self._values.get(step, value))
        return max(self._values.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalerSpec:
    """One revision's scaling parameters; the defaults are Knative's (`config-autoscaler`) at a target of 1."""

    target: Target = Target(0.7, 1.0)  # noqa: RUF009 - a NamedTuple is a value
    target_burst_capacity: float = 211.0  #: -1: always through the activator; 0: only from zero
    stable_window_ns: int = 60 * NS_PER_S
    panic_window_ns: int = 6 * NS_PER_S
    panic_threshold: float = 2.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    scale_down_delay_ns: int = 0
    activation_scale: int = 1
    reachable: bool = True  #: false: no route leads to the revision any more


class Wanted(NamedTuple):
    """What one look at the averages comes to."""

    pods: int
    excess_burst_capacity: int  #: negative: requests go through the activator


class Autoscaler:
    """The decision, with its memory: panic, and the delay before scaling down."""

    def __init__(self, spec: AutoscalerSpec, *, ready: int, now_ns: int) -> None:
        self.spec = spec
        self.panic_since_ns: int | None = None
        self.max_panic_pods = 0
        self.panic_entries = 0
        self._recent: RunningMaximum | None = None
        if ready > 1:  # an autoscaler that was restarted must not scale down before it has seen a window
            self.panic_since_ns = now_ns
            self.max_panic_pods = ready

    def __repr__(self) -> str:
        return f"<Autoscaler: panic since {self.panic_since_ns}, at most {self.max_panic_pods} pods in it>"

    def decide(self, stable: float, panic: float, ready: int, now_ns: int) -> Wanted:
        """How many pods ``ready`` ones should become, given the averages of the two windows."""
        spec, pods = self.spec, max(1, ready)
        wanted_stable = math.ceil(stable / spec.target.value)
        wanted_panic = math.ceil(panic / spec.target.value)
        self._enter_or_leave_panic(wanted_panic / pods >= spec.panic_threshold, now_ns)
        want = self._limited(wanted_stable, pods)
        if self.panic_since_ns is not None:
            self.max_panic_pods = want = max(self.max_panic_pods, want, self._limited(wanted_panic, pods))
        return Wanted(self._delayed(want, now_ns), self._excess_burst_capacity(panic, ready))

    def _limited(self, wanted: int, pods: int) -> int:
        spec = self.spec
        most = math.ceil(spec.max_scale_up_rate * pods)
        least = math.floor(pods / spec.max_scale_down_rate) if spec.reachable else 0
        limited = min(max(wanted, least), most)
        return max(limited, spec.activation_scale) if wanted > 0 else limited

    def _enter_or_leave_panic(self, over_threshold: bool, now_ns: int) -> None:
        if over_threshold:
            self.panic_entries += self.panic_since_ns is None
            self.panic_since_ns = now_ns
        elif self.panic_since_ns is not None and self.panic_since_ns + self.spec.stable_window_ns < now_ns:
            self.panic_since_ns = None
            self.max_panic_pods = 0

    def _delayed(self, want: int, now_ns: int) -> int:
        if not (self.spec.scale_down_delay_ns and self.spec.reachable):
            return want
        if self._recent is None:
            self._recent = RunningMaximum(math.ceil(self.spec.scale_down_delay_ns / TICK_NS))
        return self._recent.record(now_ns // TICK_NS, want)

    def _excess_burst_capacity(self, panic: float, ready: int) -> int:
        burst = self.spec.target_burst_capacity
        if burst <= 0:
            return int(burst)
        return math.floor(ready * self.spec.target.total - burst - panic)


class ScalingWindows:
    """The stable and the panic window, which take in the same reports."""

    def __init__(self, spec: AutoscalerSpec) -> None:
        self._stable = Window(spec.stable_window_ns // NS_PER_S)
        self._panic = Window(spec.panic_window_ns // NS_PER_S)

    def record(self, now_ns: int, concurrency: float) -> None:
        """A report of ``concurrency`` came in."""
        self._stable.record(now_ns, concurrency)
        self._panic.record(now_ns, concurrency)

    def averages(self, now_ns: int) -> tuple[float, float] | None:
        """Stable and panic average; None: nothing was reported for a whole stable window, so nothing is decided."""
        if self._stable.is_empty(now_ns):
            return None
        return self._stable.average(now_ns), self._panic.average(now_ns)
