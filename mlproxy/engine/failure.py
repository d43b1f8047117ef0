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
    is tried again only if nobody was there: that the rest failed twice was known before; so it is of who is remembered.
    """
    if failure.kind == "connect":
        return True
    if batch.isolating or batch.remembered:
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
    """Bounds the calls beyond the first that failures may cause: a token bucket (Envoy's retry budget, with refunds).

    Each first call earns `EARNED`, each extra call costs 1, and any call that is answered brings `ANSWERED`, for it
    shows that the backend lives. So one that fails everything gets at most `START` + `EARNED` per first call, which is
    1.2 times the calls from the 67th on; one that worked before, at most `CAPACITY` + `EARNED` per call.

    Isolation has to pay for itself for ever, also where each batch has several poison requests in it. If F batches and
    halves of several members fail on the way to k poison requests, 2 F extra calls are made, of which F + 1 - k are
    answered. 2 per answer would pay for one poison request exactly, and leave two of them with a loss: simulated, 97 %
    of the siblings got an error over 200 batches of 128 with 3 % poison, 47 % in batches of 32. With 5,
    F >= 5/3 (k - 1) is enough, which holds up to about every second request.

    Between the failures above and the answers below, tokens run out. So halves wait for them while an extra call is in
    flight that may bring some; and below `DOUBT` one extra call is made at a time, the smallest half first, which
    comes to an answer, if there is any, within 2 log2(n) calls, instead of spending all on the upper levels of
    several batches, which cost 17 % of the siblings with 3 % poison in batches of 128 in 16 slots. In doubt a batch
    is also halved at once, instead of being sent again as it is. tests/simulation/test_isolation.py holds all of this
    to no sibling lost.

    Retries have a bucket of their own besides, for a backend that is overloaded answers some calls and fails others:
    beyond the first they get at most `RETRIES_EARNED` / (1 - the share of them that is answered) of the calls.
    """

    EARNED = 0.05
    ANSWERED = 5.0
    START = 10.0
    CAPACITY = 20.0
    DOUBT = 10.0
    RETRIES_EARNED = 0.1
    RETRIES = 20.0

    def __init__(self) -> None:
        self.tokens = self.START
        self.retries = self.RETRIES

    def __repr__(self) -> str:
        return f"<ExtraCallBudget {self.tokens:.1f}/{self.CAPACITY:.0f}, {self.retries:.1f} for retries>"

    @property
    def in_doubt(self) -> bool:
        """Much has been spent, and not answered."""
        return self.tokens < self.DOUBT

    def earn(self) -> None:
        """A first call was made."""
        if self.tokens < self.CAPACITY:  # mostly both are full
            self.tokens = min(self.CAPACITY, self.tokens + self.EARNED)
        if self.retries < self.RETRIES:
            self.retries = min(self.RETRIES, self.retries + self.RETRIES_EARNED)

    def spend(self, in_flight: int) -> bool:
        """Pay for half a batch, to be sent beside the extra calls in flight; or take nothing, and False."""
        if self.tokens < 1 or (in_flight and self.in_doubt):
            return False
        self.tokens -= 1
        return True

    def spend_retry(self) -> bool:
        """Pay for a batch to be sent again as it is; or take nothing, and False."""
        if self.tokens < 1 or self.retries < 1:
            return False
        self.tokens -= 1
        self.retries -= 1
        return True

    def answered(self, batch: Batch) -> None:
        """The call of ``batch`` was answered."""
        if self.tokens < self.CAPACITY:
            self.tokens = min(self.CAPACITY, self.tokens + self.ANSWERED)
        if batch.attempt:
            self.retries = min(self.RETRIES, self.retries + 1)
