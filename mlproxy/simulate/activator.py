"""Knative's activator: gives calls to pods, and keeps those for which there is no place. **Pure.**

With a ``containerConcurrency`` calls wait here, in order, and go to whichever pod has a place first; without one they
go to the less loaded of two pods drawn at random and wait there. A pod without a limit works on one call at a time: a
model server with one CPU, as in the paper's experiments.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush

from mlproxy.simulate.call import Call, Place
from mlproxy.simulate.fleet import Fleet, Pod
from mlproxy.simulate.model import Model
from mlproxy.simulate.reports import ConcurrencyReports
from mlproxy.simulate.settings import ClusterSettings
from mlproxy.simulate.timeline import Timeline

#: Up to this limit Knative's activator tries the pods in order, above it by turns.
_FIRST_FREE_UP_TO = 3


class Activator:
    """Every call goes through it, which is so in Knative while the target burst capacity exceeds the fleet's."""

    def __init__(
        self, settings: ClusterSettings, timeline: Timeline, model: Model, seed: int, on_done: Callable[[Call], None]
    ) -> None:
        self._timeline = timeline
        self._model = model
        self._on_done = on_done
        self._random = random.Random(seed)
        self._limit = settings.container_concurrency
        self._places = self._limit or 1
        self._queue_bound = settings.activator_queue if self._limit else None
        self._waiting: deque[Call] = deque()
        self._gave_up = 0  # of those in the queue
        self._offers: list[tuple[float, int, Pod]] = []
        self._turn = 0
        self.reports = ConcurrencyReports()
        self._meter = self.reports.meter
        self.fleet = Fleet(settings, timeline, seed + 1, self._pod_ready)

    def __repr__(self) -> str:
        return f"<Activator: {self.waiting} waiting, {self._meter.current} under way, {self.fleet!r}>"

    @property
    def waiting(self) -> int:
        """Calls for which no pod has a place."""
        return len(self._waiting) - self._gave_up

    def receive(self, call: Call) -> None:
        """``call`` came from the proxy."""
        if self._queue_bound is not None and self.waiting >= self._queue_bound:
            call.failed = True
            self._on_done(call)
            return
        self._meter.change(1, self._timeline.now_ns)
        if self._limit:
            pod = self._free_pod()
            if pod is None:
                self._wait(call)
            else:
                self._start(pod, call)
        elif self.fleet.ready:
            self._to_less_loaded(call)
        else:
            self._wait(call)

    def give_up(self, call: Call) -> None:
        """The proxy does not wait any more. A call that waits is dropped; a pod that works on one does not notice."""
        call.abandoned = True
        self._gave_up += call.place is Place.ACTIVATOR
        if call.place in (Place.ACTIVATOR, Place.POD):
            self._meter.change(-1, self._timeline.now_ns)

    def _wait(self, call: Call) -> None:
        call.place = Place.ACTIVATOR
        self._waiting.append(call)

    # --- routing ---------------------------------------------------------------------------------------------

    def _pod_ready(self, pod: Pod) -> None:
        if self._limit:
            self._offer(pod)
            while self._waiting and (free := self._free_pod()) is not None and (call := self._next_waiting()):
                self._start(free, call)
        else:
            while call := self._next_waiting():
                self._to_less_loaded(call)

    def _offer(self, pod: Pod) -> None:
        """``pod`` has a free place."""
        if not pod.offered:
            pod.offered = True
            self._turn += 1
            key = pod.address if self._limit <= _FIRST_FREE_UP_TO else float(self._turn)
            heappush(self._offers, (key, self._turn, pod))

    def _free_pod(self) -> Pod | None:
        offers = self._offers
        while offers:
            pod = offers[0][2]
            if pod.ready and pod.running < self._limit:
                if self._limit > _FIRST_FREE_UP_TO:  # by turns: it goes to the end of the line
                    heappop(offers)
                    pod.offered = False
                    self._offer(pod)
                return pod
            heappop(offers)
            pod.offered = False
        return None

    def _to_less_loaded(self, call: Call) -> None:
        ready, draw = self.fleet.ready, self._random.random
        pod = ready[int(draw() * len(ready))]
        if len(ready) > 1:
            other = pod
            while other is pod:
                other = ready[int(draw() * len(ready))]
            if other.calls < pod.calls or (other.calls == pod.calls and draw() < 0.5):
                pod = other
        if pod.running < self._places:
            self._start(pod, call)
        else:
            call.place = Place.POD
            pod.queue.append(call)

    def _next_waiting(self) -> Call | None:
        while self._waiting:
            call = self._waiting.popleft()
            if not call.abandoned:
                return call
            self._gave_up -= 1
        return None

    # --- a pod's work ----------------------------------------------------------------------------------------

    def _start(self, pod: Pod, call: Call) -> None:
        now_ns = self._timeline.now_ns
        call.place = Place.WORKED_ON
        pod.running += 1
        if pod.running == 1:
            self.fleet.busy.change(1, now_ns)
        slow = bool(self.fleet.ready) and pod is self.fleet.ready[0]
        duration_ns = self._model.duration_ns(call.instances, slow, now_ns)
        self._timeline.at(now_ns + duration_ns, self._finished, (pod, call))

    def _finished(self, finished: tuple[Pod, Call]) -> None:
        pod, call = finished
        now_ns = self._timeline.now_ns
        self._meter.change(-1, now_ns)
        call.place = Place.DONE
        call.failed = self._model.fails(now_ns)
        self._on_done(call)
        following = self._next_for(pod)
        if following is not None:
            self._start(pod, following)
        pod.running -= 1
        if pod.running == 0:
            self.fleet.busy.change(-1, now_ns)
            if pod.terminating:
                self.fleet.drained(pod)

    def _next_for(self, pod: Pod) -> Call | None:
        """The next call for a pod that has just finished one."""
        while pod.queue:
            call = pod.queue.popleft()
            if not call.abandoned:
                return call
        if not (self._limit and pod.ready):
            return None
        call_or_none = self._next_waiting()
        if call_or_none is None:
            self._offer(pod)
        return call_or_none
