"""A call on its way through the cluster. **Pure.**"""

from __future__ import annotations

from enum import IntEnum


class Place(IntEnum):
    """Where a call is."""

    UNDER_WAY = 0  #: between the proxy and the activator
    ACTIVATOR = 1  #: waiting for a pod with a place
    POD = 2  #: waiting in a pod
    WORKED_ON = 3
    DONE = 4


class Call:
    """One batch between the proxy and a pod. Whoever sends calls extends it by what the cluster never looks at."""

    __slots__ = ("abandoned", "failed", "instances", "place")

    def __init__(self, instances: int) -> None:
        self.instances = instances
        self.place = Place.UNDER_WAY
        self.failed = False  #: the answer is a 503
        self.abandoned = False  #: the proxy does not wait for it any more

    def __repr__(self) -> str:
        abandoned = ", abandoned" if self.abandoned else ""
        return f"<{type(self).__name__} of {self.instances} instances, {self.place.name.lower()}{abandoned}>"
