"""The shadow autoscaler beside Knative's algorithm fed by hand, second by second."""

from __future__ import annotations

import random
from unittest.mock import patch

import pytest

from mlproxy.engine.autoscaler import TICK_NS, Autoscaler, AutoscalerSpec, ScalingWindows, Target, Window
from mlproxy.engine.slo.pods import BELIEVED_AFTER_NS, FixedPods, ShadowPods
from mlproxy.units import NS_PER_MS, NS_PER_S

SPEC = AutoscalerSpec(target=Target(0.7, 1.0))
Steps = list[tuple[int, int]]  # from when on, how many calls are in flight


def random_load(seed: int, seconds: int) -> Steps:
    """Calls come and go, with a quiet minute and a storm."""
    rng, now_ns, steps = random.Random(seed), 0, [(0, 0)]
    while now_ns < seconds * NS_PER_S:
        now_ns += int(rng.expovariate(3) * NS_PER_S)
        minute = now_ns // (60 * NS_PER_S)
        most = 0 if minute % 4 == 2 else 20 if minute % 4 == 1 else 3
        steps.append((now_ns, rng.randint(0, most)))
    return steps


def by_hand(steps: Steps, seconds: int) -> list[int]:
    """Ready pods after each second: the area under ``steps``, the windows, the decision, the belief."""
    windows, autoscaler, ready = ScalingWindows(SPEC), Autoscaler(SPEC, ready=1, now_ns=0), 1
    wanted: list[tuple[int, int]] = []
    seen = []
    for second in range(1, seconds + 1):
        now_ns = second * NS_PER_S
        windows.record(now_ns - NS_PER_S, area_ns(steps, now_ns - NS_PER_S, now_ns) / NS_PER_S)
        if now_ns % TICK_NS == 0:
            for believed_ns, pods in list(wanted):
                if believed_ns <= now_ns:
                    ready = pods
                    wanted.remove((believed_ns, pods))
            averages = windows.averages(now_ns)
            assert averages is not None
            want = autoscaler.decide(*averages, ready, now_ns).pods
            if want < ready:
                ready, wanted = want, []
            elif want > max([ready, *(pods for _, pods in wanted)]):
                wanted.append((now_ns + BELIEVED_AFTER_NS, want))
        seen.append(max([ready, *(pods for believed_ns, pods in wanted if believed_ns <= now_ns)]))
    return seen


def area_ns(steps: Steps, start_ns: int, end_ns: int) -> int:
    area = 0
    for (at_ns, level), (until_ns, _) in zip(steps, [*steps[1:], (1 << 62, 0)], strict=True):
        area += level * max(0, min(until_ns, end_ns) - max(at_ns, start_ns))
    return area


def shadow(steps: Steps, seconds: int, *, look_every_s: int = 1) -> list[int]:
    pods, seen, pending = ShadowPods(SPEC, 1), [], list(steps)
    for second in range(1, seconds + 1):
        while pending and pending[0][0] < second * NS_PER_S:
            at_ns, level = pending.pop(0)
            pods.observe(level, at_ns)
        if second % look_every_s == 0:
            seen.append(pods.slots(second * NS_PER_S))
    return seen


@pytest.mark.parametrize("seed", range(4))
def test_the_shadow_is_knatives_algorithm_on_the_calls_in_flight(seed: int) -> None:
    steps = random_load(seed, 480)
    expected = by_hand(steps, 480)
    assert shadow(steps, 480) == expected
    assert max(expected) > 3  # the storm was one


@pytest.mark.parametrize("seed", range(2))
def test_it_does_not_matter_how_often_it_is_asked(seed: int) -> None:
    steps = random_load(seed, 300)
    assert shadow(steps, 300, look_every_s=10) == shadow(steps, 300)[9::10]


def test_an_idle_hour_is_cheap_and_leads_where_every_second_of_it_would() -> None:
    hour = 3600
    before, after = random_load(1, 100)[:-1], [(100 * NS_PER_S, 0)]
    burst = [((100 + hour) * NS_PER_S + step * 700 * NS_PER_MS, 5) for step in range(40)]
    steps = [*before, *after, *burst]
    with patch.object(Window, "record", autospec=True, side_effect=Window.record) as record:
        one_look = ShadowPods(SPEC, 1)
        for at_ns, level in [*before, *after]:
            one_look.observe(level, at_ns)
        calls = record.call_count
        one_look.slots((100 + hour) * NS_PER_S)
        assert record.call_count - calls < 2 * 70  # two windows, a minute and a little
    for at_ns, level in burst:
        one_look.observe(level, at_ns)
    end_s = 100 + hour + 28
    assert one_look.slots(end_s * NS_PER_S) == shadow(steps, end_s)[-1]


def test_a_pod_that_is_wanted_is_counted_on_after_a_cold_start() -> None:
    pods = ShadowPods(SPEC, 1)
    pods.observe(3, 0)
    ready = [pods.slots(tenth * NS_PER_S // 10) for tenth in range(81)]
    assert ready[:60] == [1] * 60  # looked at after 2 s, believed 4 s later
    assert ready[60:] == [5] * 21  # ceil(3 / 0.7)


def test_pods_that_are_wanted_are_coming_at_once() -> None:
    pods = ShadowPods(SPEC, 2)
    pods.observe(3, 0)
    assert (pods.slots(2 * NS_PER_S), pods.coming) == (2, 2 * 5)
    assert (pods.slots(6 * NS_PER_S), pods.coming) == (2 * 5, 2 * 5)
    pods.told(7)
    assert pods.coming == 2 * 7
    assert FixedPods(4).coming == 4


def test_no_more_pods_are_believed_in_than_there_may_be() -> None:
    pods = ShadowPods(SPEC, 1, max_scale=2)
    pods.observe(30, 0)
    assert pods.slots(20 * NS_PER_S) == 2


def test_who_knows_is_believed_instead() -> None:
    pods = ShadowPods(SPEC, 2)
    assert pods.told(3) == 6
    pods.observe(50, 0)
    assert pods.slots(60 * NS_PER_S) == 6
    pods.told(0)
    assert pods.slots(60 * NS_PER_S) == 0


def test_a_pod_of_several_places_has_its_target_divided_among_them() -> None:
    assert ShadowPods(AutoscalerSpec(target=Target(5.6, 8.0)), 8).slot_target == pytest.approx(0.7)


def test_a_fixed_backend_is_as_large_as_configured_until_somebody_says_otherwise() -> None:
    pods = FixedPods(4)
    pods.observe(100, 0)
    assert pods.slots(3600 * NS_PER_S) == 4
    assert not pods.elastic
    assert pods.told(2) == pods.slots(0) == 2
