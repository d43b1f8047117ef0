"""Pods: starting, ready, terminating, gone. **Pure.**"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from mlproxy.simulate.call import Call
from mlproxy.simulate.settings import ClusterSettings
from mlproxy.simulate.timeline import Level, Timeline


class Pod:
    """One copy of the model server. It works on as many calls at once as its limit says, or on one if there is none."""

    __slots__ = ("address", "cancelled", "offered", "queue", "ready", "running", "terminating")

    def __init__(self, address: float) -> None:
        self.address = address  #: Knative's activator tries pods in the order of their addresses
        self.ready = self.cancelled = self.terminating = False
        self.offered = False  #: among the activator's pods with a free place
        self.running = 0
        self.queue: deque[Call] = deque()

    def __repr__(self) -> str:
        return f"<Pod {self.running} running, {len(self.queue)} waiting, ready {self.ready}>"

    @property
    def calls(self) -> int:
        """Calls that it holds."""
        return self.running + len(self.queue)


class Fleet:
    """The pods of a revision, and how many there are of each kind over time."""

    def __init__(
        self, settings: ClusterSettings, timeline: Timeline, seed: int, on_ready: Callable[[Pod], None]
    ) -> None:
        self._settings = settings
        self._timeline = timeline
        self._random = random.Random(seed)
        self._on_ready = on_ready
        self._starting: list[Pod] = []
        self.ready: list[Pod] = []  #: oldest first
        self.ready_level, self.provisioned, self.busy = Level(), Level(), Level()

    def __repr__(self) -> str:
        return f"<Fleet: {len(self._starting)} starting, {len(self.ready)} ready, {self.provisioned.now} provisioned>"

    @property
    def size(self) -> int:
        """Pods that are ready or will be."""
        return len(self._starting) + len(self.ready)

    def begin_with(self, pods: int) -> None:
        """So many pods are ready from the start."""
        for _ in range(pods):
            self._become_ready(self._new())

    def scale_to(self, pods: int) -> None:
        """Start what is missing; of what is too much, those not ready go first, then the youngest, as in Kubernetes."""
        low_ns, high_ns = self._settings.cold_start_ns
        for _ in range(pods - self.size):
            pod = self._new()
            self._starting.append(pod)
            self._timeline.at(self._timeline.now_ns + round(self._random.uniform(low_ns, high_ns)), self._started, pod)
        while self.size > pods:
            if self._starting:
                self._starting.pop().cancelled = True
                self.provisioned.change(-1, self._timeline.now_ns)
            else:
                self._terminate(self.ready.pop())

    def _new(self) -> Pod:
        self.provisioned.change(1, self._timeline.now_ns)
        return Pod(self._random.random())

    def _started(self, pod: Pod) -> None:
        if not pod.cancelled:
            self._starting.remove(pod)
            self._become_ready(pod)

    def _become_ready(self, pod: Pod) -> None:
        pod.ready = True
        self.ready.append(pod)
        self.ready_level.change(1, self._timeline.now_ns)
        self._on_ready(pod)

    def _terminate(self, pod: Pod) -> None:
        """No new calls; those that it has are finished, and it goes when it has been quiet for a while."""
        pod.ready, pod.terminating = False, True
        self.ready_level.change(-1, self._timeline.now_ns)
        if not pod.calls:
            self.drained(pod)

    def drained(self, pod: Pod) -> None:
        """A terminating pod has finished its last call."""
        self._timeline.at(self._timeline.now_ns + self._settings.drain_quiet_ns, self._gone)

    def _gone(self, _: None) -> None:
        self.provisioned.change(-1, self._timeline.now_ns)
