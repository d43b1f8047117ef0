"""A closed loop: so many outstanding, the others in order when somebody is free."""

from __future__ import annotations

from mlproxy.simulate.callers import Callers


def test_beyond_the_callers_requests_are_held_back_and_sent_in_order_as_answers_come() -> None:
    callers = Callers(2)
    assert [callers.take(request_id) for request_id in range(5)] == [True, True, False, False, False]
    assert callers.held == 3
    assert callers.answered(2) == [2, 3]
    assert callers.answered(2) == [4]
    assert callers.held == 0
    assert callers.take(5)  # one of the two is free
    assert not callers.take(6)
