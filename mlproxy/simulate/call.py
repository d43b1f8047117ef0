"""A call on its way through the cluster. **Pure.**"""

from __future__ import annotations

from enum import IntEnum

from mlproxy.engine import Batch


class Place(IntEnum):
    """Where a call is."""

    UNDER_WAY = 0  #: between the proxy and the activator
    ACTIVATOR = 1  #: waiting for a pod with a place
    POD = 2  #: waiting in a pod
    WORKED_ON = 3
    DONE = 4


class Call:
    """One batch between the proxy and a pod."""

    __slots__ = ("abandoned", "answered", "batch", "deadline_ns", "failed", "place")

    def __init__(self, batch: Batch, deadline_ns: int) -> None:
        self.batch = batch
        self.deadline_ns = deadline_ns  #: when the proxy gives it up
        self.place = Place.UNDER_WAY
        self.failed = False  #: the answer is a 503
        self.answered = False  #: the proxy has its answer
        self.abandoned = False  #: the proxy does not wait for it any more

    def __repr__(self) -> str:
        return f"<Call of {self.batch!r}, {self.place.name.lower()}{', abandoned' if self.abandoned else ''}>"
