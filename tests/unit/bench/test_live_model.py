"""What emulated pods answer."""

from __future__ import annotations

import orjson

from bench.iris import SPECIES, train
from bench.live.model import ECHO, of_flowers


def test_an_echo_gives_every_instance_back_in_order() -> None:
    assert ECHO.predict([3, "a", None]) == [3, "a", None]
    assert len(set(ECHO.bodies)) == len(ECHO.bodies)


def test_flowers_are_asked_for_one_by_one_and_most_are_named_rightly() -> None:
    model = of_flowers(train())
    flowers = [orjson.loads(body)["instances"] for body in model.bodies]
    assert len(flowers) == 150
    assert {len(instances) for instances in flowers} == {1}
    named = model.predict([flower for [flower] in flowers])
    assert [name for [name] in map(model.predict, flowers)] == named  # each alone as all together
    rightly = [name == SPECIES[index // 50] for index, name in enumerate(named)]
    assert sum(rightly) / len(rightly) > 0.95
