"""Where a connection stands: what the words of its state mean together. **Pure.**

The words themselves are few and each has one writer, because they are on the hot path and because Uvicorn reads some
of them: ``in_head`` (the parser is between a message's first byte and the end of its head), ``discarding`` (nothing
that still comes counts), ``cycle`` (the latest request, whether it is being served or waits behind others).
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from workers.ingress.cycle import PredictCycle

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Phase(Enum):
    """Whose move it is. The watchdog has a limit for each but `ANSWERING`."""

    IDLE = "idle"  #: the caller's: everything that it asked is answered
    HEAD = "in a head"  #: the caller's
    PREDICTION_BODY = "in the body of a prediction"  #: the caller's
    PASSING_BODY = "in a body that passes through"  #: the caller's
    ANSWERING = "answering"  #: this side's
    DISCARDING = "discarding"  #: nobody's: what comes is thrown away until the connection is closed

    @property
    def in_body(self) -> bool:
        """The latest request is not whole yet."""
        return self is Phase.PREDICTION_BODY or self is Phase.PASSING_BODY


# Bound once: to look up a member of an Enum costs 72 ns in Python 3.11, a global 6, and every connection is asked once
# per second.
_IDLE, _HEAD, _PREDICTION_BODY, _PASSING_BODY, _ANSWERING, _DISCARDING = Phase


def phase_of(in_head: bool, discarding: bool, cycle: RequestResponseCycle | PredictCycle | None) -> Phase:
    """The phase that these words say."""
    if cycle is None or cycle.response_complete:
        return _DISCARDING if discarding else _HEAD if in_head else _IDLE
    if discarding:
        return _ANSWERING  # an earlier request, of which something is due
    if in_head:
        return _HEAD
    if isinstance(cycle, PredictCycle):
        return _ANSWERING if cycle.body_complete else _PREDICTION_BODY
    return _PASSING_BODY if cycle.more_body else _ANSWERING
