"""Whether requests get the same answer in a batch as they get alone: asked of a few, now and then. **Effects**: logs.

A model without a batch dimension, or one whose padding or order is wrong, answers every batch with the right number of
wrong items, which nothing else here would notice. What differs ends batching in its lane, until somebody has looked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, cast
from zlib import crc32

from mlproxy.engine import Piece, Request
from mlproxy.errors import BackendContract, Draining, ProxyError
from mlproxy.observe import BatcherMetrics
from mlproxy.protocols import Codec
from mlproxy.protocols.compare import difference
from workers.batcher.apart import Apart
from workers.batcher.link import LinkedRequest, WorkerLink

logger = logging.getLogger("mlproxy.batcher")

#: Checks that have not been answered, each with a request and an answer in memory.
MOST_OUTSTANDING = 4
#: Larger requests are not checked: they would be kept in memory.
MOST_REQUEST_BYTES = 4 * 2**20
#: Larger answers are not checked: to compare so much takes up to 35 ms, for which everybody waits.
MOST_ANSWER_BYTES = 128 * 2**10
#: Raised for an answer that is none of its protocol's, whoever made it so; anything else is a defect.
UNREADABLE = (ValueError, TypeError, BackendContract)


class Verification:
    """Of one endpoint: chooses who is asked about, and compares. To the endpoint it is one more link, whose requests
    are the checks."""

    def __init__(
        self, endpoint: str, share: float, relative: float, codec: Codec[Any], apart: Apart,
        metrics: BatcherMetrics, send: Callable[[LinkedRequest], None],
    ) -> None:  # fmt: skip
        self._endpoint = endpoint
        self._share = share
        self._relative = relative
        self._codec = codec
        self._apart = apart
        self._metrics = metrics
        self._send = send
        self._due = 0.0  # checks that the answers so far have called for
        self._made = 0
        self._expected: dict[int, Any] = {}  # by the check's number: the values of the answer in the batch

    def __repr__(self) -> str:
        return f"<Verification of {self._endpoint}: {len(self._expected)} outstanding>"

    def sample(self, answers: Sequence[tuple[LinkedRequest, list[Piece]]]) -> None:
        """These requests were answered from one batch. By counting, every 1/share-th is checked, wherever it stood."""
        self._due += self._share * len(answers)
        if self._due < 1:
            return
        self._due -= int(self._due)  # of one batch one is enough, and what could not be checked is not made up for
        request, pieces = answers[self._made % len(answers)]
        if len(self._expected) >= MOST_OUTSTANDING or request.parts or len(request.items) > MOST_REQUEST_BYTES:
            return
        expected = self._values(pieces)
        if expected is None:
            return
        self._made += 1
        self._expected[self._made] = expected
        self._send(
            LinkedRequest(
                self._made, request.lane_key, request.count, len(request.items), 0,
                link=cast(WorkerLink, self), endpoint=request.endpoint, items=request.items,
            )
        )  # fmt: skip

    def judge(self, request: Request, pieces: list[Piece]) -> None:
        """The answer to a check."""
        expected, values = self._expected.pop(request.id), self._values(pieces)
        if values is None:
            return
        try:
            where = difference(expected, values, self._relative)
        except RecursionError:  # nested hundreds of times
            self._metrics.verified("failed")
            return
        except Exception:  # must not end the batcher
            self._metrics.verified("failed")
            logger.exception("defect while comparing answers of %s", self._endpoint)
            return
        self._metrics.verified("same" if where is None else "different")
        if where is not None and not self._apart.unbatched.holds(request.lane_key):
            self._apart.stop_batching(request.lane_key)
            # The key may hold what callers keep secret.
            logger.error(
                "lane stops batching: a request got another answer alone than in its batch endpoint=%s lane=%08x at=%s",
                self._endpoint, crc32(request.lane_key), where,
            )  # fmt: skip

    def _values(self, pieces: Sequence[Piece]) -> Any:
        """What is compared of an answer; None, which no codec's are: it cannot be."""
        try:
            if len(self._codec.render(pieces, b"")[1]) <= MOST_ANSWER_BYTES:
                return self._codec.values(pieces)
        except UNREADABLE:
            self._metrics.verified("failed")
        except Exception:  # must not cost others their answers
            self._metrics.verified("failed")
            logger.exception("defect while comparing answers of %s", self._endpoint)
        return None

    def reject(self, request: Request, error: ProxyError) -> None:
        """The check was not answered; while draining it was not made."""
        del self._expected[request.id]
        if not isinstance(error, Draining):
            self._metrics.verified("failed")

    def relay(self, request: Request, status: int, headers: bytes, body: bytes) -> None:
        """The backend did not answer the request alone."""
        del self._expected[request.id]
        self._metrics.verified("failed")

    def flush(self) -> None:
        """Nobody waits."""
