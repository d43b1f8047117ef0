"""Why a backend call is made and how one can end: words that the engine, the client and the metrics share. **Pure.**

On their own, so that a role that only counts by these words does not load the engine.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

#: Why a batch left: at its size cap, at its latest instant, at once because nothing was in flight, because a slot was
#: free, because nothing more will come, as one half of a batch that failed, early because the time it takes was paid
#: for, late already, because its one member is not to be batched, or only to see what the backend says to it alone.
FlushReason: TypeAlias = Literal[
    "full", "deadline", "idle", "slot", "drain", "split", "paced", "late", "alone", "verify"
]  # fmt: skip

#: How a call can end without a reply: nobody there, connection lost, time over, not HTTP, more bytes than allowed.
CallFailureKind: TypeAlias = Literal["connect", "reset", "timeout", "protocol", "too_large"]

#: Statuses of a gateway, rather than of the model behind it.
GATEWAY_STATUSES = frozenset({502, 503, 504})
