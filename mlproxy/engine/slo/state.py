"""What a controller has learned, as bytes that outlive it. **Pure.**

Invariant: a state is taken over whole or not at all. Whatever is not exactly what `dump` writes, is too old, or was
learned under other settings is refused: a controller that knows nothing learns within seconds, one that believes
nonsense may not.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from mlproxy.engine.slo.controller import Controller
from mlproxy.engine.slo.feedback import CARE_BOUNDS
from mlproxy.engine.slo.quantiles import BUCKETS, LOG_BOUNDS

VERSION = 1
#: What is older is not believed: traffic and backend have changed since.
MAX_AGE_S = 3600

_Amount = Annotated[float, Meta(ge=0, le=1e30)]
_Positive = Annotated[float, Meta(gt=0, le=1e30)]
_Log = Annotated[float, Meta(ge=LOG_BOUNDS[0], le=LOG_BOUNDS[1])]
_PerBucket = Meta(min_length=BUCKETS, max_length=BUCKETS)


class StateRefused(ValueError):
    """A state that is not taken over; the text says why."""


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    version: int
    saved_at_s: float  #: Unix time: the monotonic clock begins anew with the machine
    slo_ns: int
    max_size: int
    base_ns: _Amount
    slope_ns: _Amount
    level: _Positive
    calls: Annotated[int, Meta(ge=0)]
    sums: Annotated[list[_Amount], Meta(min_length=5, max_length=5)]
    factor_logs: Annotated[list[_Log], _PerBucket]
    factor_calls: Annotated[list[Annotated[int, Meta(ge=0)]], _PerBucket]
    largest_seen: Annotated[int, Meta(ge=0)]
    tolerance: Annotated[float, Meta(ge=CARE_BOUNDS[0], le=CARE_BOUNDS[1])]
    reserve: Annotated[float, Meta(ge=0, le=1)]
    peak: _Amount


class _Version(msgspec.Struct):
    version: int


def dump(controller: Controller, now_s: float) -> bytes:
    """What ``controller`` has learned up to ``now_s`` (Unix time)."""
    service, feedback = controller.service, controller.feedback
    base_ns, slope_ns, level, calls, *sums = service.mean.state()
    factor_logs, factor_calls = service.factors.state()
    state = _State(
        version=VERSION, saved_at_s=now_s, slo_ns=controller.slo_ns, max_size=service.size_cap.max_size,
        base_ns=base_ns, slope_ns=slope_ns, level=level, calls=int(calls), sums=sums,
        factor_logs=factor_logs, factor_calls=factor_calls,
        largest_seen=service.size_cap.largest_seen, tolerance=feedback.tolerance, reserve=feedback.reserve,
        peak=controller.demand.peak,
    )  # fmt: skip
    return msgspec.json.format(msgspec.json.encode(state))


def restore(controller: Controller, data: bytes, now_s: float) -> int:
    """Have ``controller`` go on from what `dump` wrote; returns how many calls that is learned from.

    `StateRefused` if it is not to be believed; then nothing has changed.
    """
    state = _believable(controller, data, now_s)
    service, feedback = controller.service, controller.feedback
    service.mean.restore([state.base_ns, state.slope_ns, state.level, state.calls, *state.sums])
    service.factors.restore(state.factor_logs, state.factor_calls)
    service.size_cap.seen(min(state.largest_seen, state.max_size))
    feedback.tolerance, feedback.reserve = state.tolerance, state.reserve
    controller.demand.peak = state.peak
    return state.calls


def _believable(controller: Controller, data: bytes, now_s: float) -> _State:
    try:
        version = msgspec.json.decode(data, type=_Version).version
        if version != VERSION:
            raise StateRefused(f"it is of version {version}, and this is {VERSION}")
        state = msgspec.json.decode(data, type=_State)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StateRefused(f"it is damaged: {error}") from error
    if (state.slo_ns, state.max_size) != (controller.slo_ns, controller.service.size_cap.max_size):
        raise StateRefused("it was learned under another slo.latency or batching.max_size")
    if state.base_ns + state.slope_ns <= 0:
        raise StateRefused("it is damaged: a call cannot take no time")
    if abs(now_s - state.saved_at_s) >= MAX_AGE_S:
        raise StateRefused("it is older than an hour")
    return state
