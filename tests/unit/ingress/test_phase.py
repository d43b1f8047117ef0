"""Each combination of a connection's words means one phase."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from workers.ingress.cycle import PredictCycle
from workers.ingress.phase import Phase, phase_of


def prediction(*, body_complete: bool, response_complete: bool = False) -> PredictCycle:
    cycle = PredictCycle(cast(Any, None), cast(Any, None), True, 0)
    cycle.body_complete, cycle.response_complete = body_complete, response_complete
    return cycle


def passing(*, more_body: bool, response_complete: bool = False) -> SimpleNamespace:
    return SimpleNamespace(more_body=more_body, response_complete=response_complete)


COMING, WHOLE = prediction(body_complete=False), prediction(body_complete=True)
ANSWERED, REFUSED = (prediction(body_complete=whole, response_complete=True) for whole in (True, False))


@pytest.mark.parametrize(
    ("in_head", "discarding", "cycle", "phase"),
    [
        (False, False, None, Phase.IDLE),
        (False, False, ANSWERED, Phase.IDLE),
        (False, False, REFUSED, Phase.IDLE),
        (False, False, passing(more_body=False, response_complete=True), Phase.IDLE),
        (True, False, None, Phase.HEAD),
        (True, False, ANSWERED, Phase.HEAD),
        (True, False, WHOLE, Phase.HEAD),  # pipelined behind one that is not answered
        (False, False, COMING, Phase.PREDICTION_BODY),
        (False, False, passing(more_body=True), Phase.PASSING_BODY),
        (False, False, WHOLE, Phase.ANSWERING),
        (False, False, passing(more_body=False), Phase.ANSWERING),
        (False, True, None, Phase.DISCARDING),
        (True, True, ANSWERED, Phase.DISCARDING),
        (False, True, REFUSED, Phase.DISCARDING),
        (False, True, WHOLE, Phase.ANSWERING),  # an earlier request's answer is still due
        (True, True, COMING, Phase.ANSWERING),
    ],
)
def test_the_words_mean_one_phase(in_head: bool, discarding: bool, cycle: Any, phase: Phase) -> None:
    assert phase_of(in_head, discarding, cycle) is phase


def test_a_body_is_one_whichever_way_it_goes() -> None:
    assert {phase for phase in Phase if phase.in_body} == {Phase.PREDICTION_BODY, Phase.PASSING_BODY}
