"""What a failed call means for the members of its batch: try again, isolate, or give up. **Pure.**"""

from __future__ import annotations

from mlproxy.calls import GATEWAY_STATUSES
from mlproxy.engine.events import Failure
from mlproxy.engine.request import Batch
from mlproxy.errors import BackendContract, BackendTimeout, BackendUnavailable, ProxyError
from mlproxy.units import NS_PER_MS

#: First pause before a retry; each further one is four times as long. The first covers a connection lost to a pod
#: that just went away, the later ones a gateway that still routes to it.
RETRY_PAUSE_NS = 25 * NS_PER_MS
RETRY_PAUSE_FACTOR = 4

#: Statuses about the call as a whole, whatever its instances: elsewhere, not allowed, not there, too many calls.
_ABOUT_THE_CALL = frozenset({*range(300, 400), 401, 402, 403, 404, 405, 407, 410, 429})


def may_help(failure: Failure, batch: Batch) -> bool:
    """Whether the same call may succeed a moment later: nothing answered, or only a gateway did.

    A timeout is not among them: the backend has had its time once, and the callers wait. A half of a batch that failed
    is tried again only if nobody was there: that the rest failed twice was known before.
    """
    if failure.kind == "connect":
        return True
    if batch.isolating:
        return False
    return failure.kind == "reset" or (failure.kind == "status" and failure.status in GATEWAY_STATUSES)


def may_be_one_members(failure: Failure) -> bool:
    """Whether one member may be the cause: somebody received the batch, and gave up on it within its time."""
    return failure.kind not in ("connect", "timeout") and not is_about_the_call(failure)


def is_about_the_call(failure: Failure) -> bool:
    """Whether the backend's answer holds for every member alike, so that each gets it as it is."""
    return failure.kind == "status" and failure.status in _ABOUT_THE_CALL


def retry_pause_ns(attempt: int) -> int:
    """How long to wait before call number ``attempt`` (1 for the first retry)."""
    return int(RETRY_PAUSE_NS * RETRY_PAUSE_FACTOR ** (attempt - 1))


def to_error(failure: Failure) -> ProxyError:
    """The error of one caller whose batch failed for good."""
    match failure.kind:
        case "timeout":
            return BackendTimeout(failure.detail)
        case "contract":
            return BackendContract(failure.detail)
        case "status":
            return BackendUnavailable(f"the backend answered {failure.status}: {failure.detail}".rstrip(": "))
        case _:
            return BackendUnavailable(failure.detail)


class ExtraCallBudget:
    """Bounds the calls beyond the first that failures may cause (Envoy's retry budget, with refunds).

    Each first call earns `EARNED`, each extra call costs 1, and an extra call that succeeds refunds two: it proves
    that the backend is alive, and in a bisection exactly one half of each level succeeds, so isolating a poison
    request is free while a backend that fails everything gets at most `1 + EARNED` times the calls, plus `CAPACITY`.
    """

    EARNED = 0.1
    CAPACITY = 20.0

    def __init__(self) -> None:
        self.tokens = self.CAPACITY

    def __repr__(self) -> str:
        return f"<ExtraCallBudget {self.tokens:.1f}/{self.CAPACITY:.0f}>"

    def earn(self) -> None:
        """A first call was made."""
        self.tokens = min(self.CAPACITY, self.tokens + self.EARNED)

    def spend(self, calls: int) -> bool:
        """Take ``calls`` extra calls, or none and False."""
        if self.tokens < calls:
            return False
        self.tokens -= calls
        return True

    def refund(self) -> None:
        """An extra call succeeded."""
        self.tokens = min(self.CAPACITY, self.tokens + 2.0)
