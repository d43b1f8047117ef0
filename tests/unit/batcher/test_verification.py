"""Who is checked, and what follows."""

from __future__ import annotations

from collections import Counter
from typing import cast

import pytest

from mlproxy.engine import Piece
from mlproxy.errors import BackendContract, Draining
from mlproxy.observe import BatcherMetrics
from mlproxy.protocols.kserve_v1 import KServeV1
from workers.batcher.apart import Apart, UnbatchedLanes
from workers.batcher.link import LinkedRequest
from workers.batcher.verification import MOST_ANSWER_BYTES, MOST_OUTSTANDING, MOST_REQUEST_BYTES, Verification

CODEC = KServeV1()


class Metrics:
    """Counts verdicts."""

    def __init__(self) -> None:
        self.verdicts: Counter[str] = Counter()
        self.lanes = 0

    def verified(self, verdict: str) -> None:
        self.verdicts[verdict] += 1

    def unbatched_lanes(self, count: int) -> None:
        self.lanes = count


class Checks:
    """A verification, and the checks that it has sent."""

    def __init__(self, share: float) -> None:
        self.sent: list[LinkedRequest] = []
        self.metrics = Metrics()
        metrics = cast(BatcherMetrics, self.metrics)
        self.apart = Apart(metrics)
        self.unbatched = self.apart.unbatched
        self.verification = Verification("m", share, 1e-3, CODEC, self.apart, metrics, self.sent.append)

    def batch(self, *items: bytes, lane: bytes = b"", reply: bytes = b"") -> None:
        """A batch with these single instances was answered, by echoing unless ``reply`` says otherwise."""
        text = b'{"predictions": [%b]}' % (reply or b", ".join(items))
        split = CODEC.split_reply(b"", text)
        answers: list[tuple[LinkedRequest, list[Piece]]] = [
            (request(item, lane), [(split, at, 1)]) for at, item in enumerate(items)
        ]
        self.verification.sample(answers)

    def answer(self, item: bytes) -> None:
        """The oldest check is answered."""
        reply = CODEC.split_reply(b"", b'{"predictions": [%b]}' % item)
        self.verification.judge(self.sent.pop(0), [(reply, 0, 1)])


def request(items: bytes, lane: bytes) -> LinkedRequest:
    return LinkedRequest(7, lane, 1, len(items), 0, endpoint=3, items=items)


def test_one_in_so_many_is_checked_wherever_it_stood() -> None:
    checks = Checks(0.1)
    seen = Counter[bytes]()
    for _ in range(200):
        checks.batch(b"1", b"2", b"3", b"4", b"5")
        for check in list(checks.sent):
            seen[check.items] += 1
            checks.answer(check.items)
    assert sum(seen.values()) == 100
    assert set(seen) == {b"1", b"2", b"3", b"4", b"5"}
    assert checks.metrics.verdicts == {"same": 100}


def test_few_are_outstanding_and_none_is_made_up_for() -> None:
    checks = Checks(1.0)
    for _ in range(10):
        checks.batch(b"1", b"2")
    assert len(checks.sent) == MOST_OUTSTANDING
    for _ in range(MOST_OUTSTANDING):
        checks.answer(b"1")
    checks.batch(b"1", b"2")
    assert len(checks.sent) == 1


@pytest.mark.parametrize("large", [(b"1" * (MOST_REQUEST_BYTES + 1), b"1"), (b"1", b"1" * MOST_ANSWER_BYTES)])
def test_what_is_large_is_not_checked(large: tuple[bytes, bytes]) -> None:
    checks = Checks(1.0)
    item, prediction = large
    checks.batch(item, reply=prediction)
    assert checks.sent == []


def test_another_answer_ends_batching_in_its_lane_and_tells_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    checks = Checks(1.0)
    checks.batch(b'{"a": "private"}', lane=b"secret", reply=b'{"a": "wrong"}')
    checks.answer(b'{"a": "private"}')
    assert checks.unbatched.holds(b"secret")
    assert not checks.unbatched.holds(b"")
    assert (checks.metrics.lanes, checks.metrics.verdicts) == (1, {"different": 1})
    assert "at=[0]['a']" in caplog.text
    assert not any(word in caplog.text for word in ("secret", "private", "wrong"))
    assert checks.apart.some
    assert checks.apart.resume_batching() == 1
    assert checks.metrics.lanes == 0
    assert not checks.unbatched.holds(b"secret")


def test_a_check_without_an_answer_is_no_difference() -> None:
    checks = Checks(1.0)
    for _ in range(3):
        checks.batch(b"1", b"2")
    checks.verification.reject(checks.sent[0], BackendContract("no"))
    checks.verification.relay(checks.sent[1], 500, b"", b"no")
    checks.verification.reject(checks.sent[2], Draining("no"))
    assert checks.metrics.verdicts == {"failed": 2}
    assert not checks.unbatched


@pytest.mark.parametrize("item", [b"1e999", b"[" * 900 + b"]" * 900])
def test_what_cannot_be_compared_is_no_difference(item: bytes) -> None:
    checks = Checks(1.0)
    checks.batch(item, item)
    if checks.sent:
        checks.answer(item)
    assert checks.metrics.verdicts == {"failed": 1}
    assert not checks.unbatched


def test_a_defect_of_the_codec_costs_a_check_and_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> object:
        raise KeyError("missing")

    checks = Checks(1.0)
    monkeypatch.setattr(KServeV1, "values", broken)
    checks.batch(b"1", b"2")
    assert checks.metrics.verdicts == {"failed": 1}
    assert "defect while comparing" in caplog.text


def test_with_too_many_lanes_none_batches() -> None:
    lanes = UnbatchedLanes()
    for number in range(UnbatchedLanes.MOST + 5):
        lanes.add(b"%d" % number)
    assert len(lanes) == UnbatchedLanes.MOST
    assert lanes.holds(b"never seen")
