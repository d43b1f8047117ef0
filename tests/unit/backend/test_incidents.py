"""What the log says about a backend URL, with a clock that the test owns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlproxy.backend.incidents import QUIET_NS, Incidents
from mlproxy.units import NS_PER_MS, NS_PER_S

WHERE = "endpoint=m url=http://model:9000"
NOW_NS = 500 * NS_PER_S


def incidents() -> Incidents:
    return Incidents("m", "http://model:9000")


def test_an_outage_is_told_when_it_begins_while_it_lasts_and_when_it_ends() -> None:
    about = incidents()
    told = [about.could_not_connect("refused", NOW_NS + second * NS_PER_S // 10) for second in range(250)]
    assert [line for line in told if line is not None] == [
        f"backend unhealthy {WHERE} reason='refused'",
        f"backend still unhealthy {WHERE} reason='refused' (99 more since the last such line)",
        f"backend still unhealthy {WHERE} reason='refused' (99 more since the last such line)",
    ]
    assert about.connected(NOW_NS + 25 * NS_PER_S) == f"backend healthy again {WHERE} after=25.0s"
    assert about.connected(NOW_NS + 26 * NS_PER_S) is None


def test_failed_calls_are_told_once_in_a_while_with_the_latest_reason() -> None:
    about = incidents()
    assert (
        about.call_failed("no answer within 5s", NOW_NS) == f"backend call failed {WHERE} reason='no answer within 5s'"
    )
    assert about.call_failed("it answered 503", NOW_NS + QUIET_NS - 1) is None
    line = about.call_failed("it answered 500", NOW_NS + QUIET_NS)
    assert line == f"backend call failed {WHERE} reason='it answered 500' (1 more since the last such line)"


def test_failed_calls_do_not_hide_an_outage() -> None:
    about = incidents()
    about.call_failed("it answered 503", NOW_NS)
    assert about.could_not_connect("refused", NOW_NS + 1) is not None


def test_a_reason_stays_on_its_line() -> None:
    line = incidents().call_failed("two\nlines", NOW_NS)
    assert line is not None
    assert "\n" not in line


@given(st.lists(st.tuples(st.sampled_from(["down", "up", "bad"]), st.integers(0, 5000)), max_size=200))
def test_the_log_is_bounded_and_true_whatever_happens(happenings: list[tuple[str, int]]) -> None:
    about, now_ns, told, healthy_as_told, healthy = incidents(), NOW_NS, 0, True, True
    for happening, pause_ms in happenings:
        now_ns += pause_ms * NS_PER_MS
        match happening:
            case "down":
                line, healthy = about.could_not_connect("refused", now_ns), False
                healthy_as_told &= line is None
            case "up":
                line, healthy = about.connected(now_ns), True
                assert (line is not None) is (not healthy_as_told)
                healthy_as_told = True
            case _:
                line = about.call_failed("it answered 503", now_ns)
        told += line is not None
        assert healthy_as_told or not healthy  # nobody reads "unhealthy" last of a URL that is well
    assert told <= 3 * (1 + (now_ns - NOW_NS) // QUIET_NS)
