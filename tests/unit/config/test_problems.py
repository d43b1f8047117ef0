"""A finding becomes one line that says where, what, and what was probably meant."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from mlproxy.config.keys import format_path
from mlproxy.config.problems import findings_of
from mlproxy.config.schema import Configuration
from mlproxy.config.suggest import closest


def problems(document: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Configuration.model_validate(document)
    return [f"{format_path(path)}: {text}" for path, text in findings_of(caught.value, document)]


def endpoint_problems(**keys: Any) -> list[str]:
    return problems({"endpoints": [{"name": "a", "backend": {"urls": ["http://a"]}, **keys}]})


GOOD = {"endpoints": [{"name": "a", "backend": {"urls": ["http://a"]}}]}


def test_a_misspelt_key_gets_its_path_and_a_suggestion_at_every_depth() -> None:
    assert problems({**GOOD, "servr": {}}) == ["servr: unknown key; did you mean server?"]
    assert problems({**GOOD, "server": {"prot": 1}}) == ["server.prot: unknown key; did you mean port?"]
    assert endpoint_problems(batchng={}) == ["endpoints[0].batchng: unknown key; did you mean batching?"]
    assert endpoint_problems(backend={"urls": ["http://a"], "retry": {"attempt": 1}}) == [
        "endpoints[0].backend.retry.attempt: unknown key; did you mean attempts?"
    ]


def test_suggestions_name_keys_as_the_file_spells_them_and_never_a_fields_inner_name() -> None:
    assert endpoint_problems(backend={"urls": ["http://a"], "timeout_ns": 1}) == [
        "endpoints[0].backend.timeout_ns: unknown key; did you mean timeout?"
    ]
    assert endpoint_problems(slo={"latency_ns": 1}) == [
        "endpoints[0].slo.latency_ns: unknown key; did you mean latency?"
    ]  # fmt: skip


def test_a_key_that_resembles_nothing_gets_no_suggestion() -> None:
    assert problems({**GOOD, "zzz": 1}) == ["zzz: unknown key"]


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"compat": {}}, "endpoints[0].compat"),
    ],
)
def test_a_key_of_the_design_that_does_not_act_yet_is_refused_as_such(keys: dict[str, Any], path: str) -> None:
    assert endpoint_problems(**keys) == [f"{path}: this key is planned, but this version does not act on it yet"]


def test_a_value_that_is_no_choice_is_answered_with_the_choices() -> None:
    assert endpoint_problems(batching={"policy": "fast"}) == [
        "endpoints[0].batching.policy: must be slo, aimd, static or none, not 'fast'"
    ]


def test_a_number_or_a_word_is_one_finding_and_not_one_per_alternative() -> None:
    assert problems({**GOOD, "server": {"workers": "many"}}) == [
        "server.workers: must be a whole number from 1 to 256 or auto, such as 2, not 'many'"
    ]
    assert endpoint_problems(batching={"max_inflight": 0}) == [
        "endpoints[0].batching.max_inflight: must be a whole number from 1 or auto, such as 4, not 0"
    ]  # fmt: skip


def test_what_is_missing_is_named_in_the_place_where_it_belongs() -> None:
    assert problems({}) == ["endpoints: is missing"]
    assert problems({"endpoints": [{}]}) == [
        "endpoints[0].name: is missing; write for example name: iris", "endpoints[0].backend: is missing"
    ]  # fmt: skip


def test_a_key_without_a_value_says_so() -> None:
    assert problems({**GOOD, "server": None}) == ["server: has no value; leave the key out to have its default"]
    assert problems({"endpoints": [None]}) == ["endpoints[0]: has no value"]
    assert endpoint_problems(name=None) == ["endpoints[0].name: has no value; write for example name: iris"]


def test_our_own_checks_speak_for_themselves() -> None:
    assert endpoint_problems(slo={"latency": 5}) == [
        "endpoints[0].slo.latency: a duration needs a unit: write 5s or 5ms"
    ]  # fmt: skip


def test_every_other_finding_shows_the_value_that_was_found() -> None:
    assert problems({**GOOD, "server": {"port": 99999}}) == [
        "server.port: must be a whole number from 0 to 65535, such as 8080, not 99999"
    ]  # fmt: skip


def test_findings_about_different_places_are_all_reported() -> None:
    document = {
        "server": {"port": -1},
        "endpoints": [{"name": "a b", "backend": {"urls": ["x"]}}, {"name": "b"}],
        "x": 1,
    }
    assert [problem.partition(":")[0] for problem in problems(document)] == [
        "server.port", "endpoints[0].name", "endpoints[0].backend.urls[0]", "endpoints[1].backend", "x",
    ]  # fmt: skip


def test_a_finding_inside_a_broken_list_does_not_also_call_the_list_too_short() -> None:
    assert problems({"endpoints": [{"name": "a"}]}) == ["endpoints[0].backend: is missing"]


def test_a_value_of_another_type_is_told_as_its_writer_wrote_it_and_with_one_that_would_do() -> None:
    assert endpoint_problems(slo={"share": 2}, backend={"urls": "http://a"}) == [
        "endpoints[0].backend.urls: must be a list of text, such as [http://127.0.0.1:9000], not 'http://a'",
        "endpoints[0].slo.share: must be a number above 0 and below 1, such as 0.99, not 2",
    ]
    assert problems({**GOOD, "logging": {"access": "on"}}) == ["logging.access: must be true or false, not 'on'"]
    assert problems({**GOOD, "server": {"port": True}})[0].endswith("such as 8080, not true")
    assert endpoint_problems(name=7) == ["endpoints[0].name: must be text, such as iris, not 7; put it in quotes"]
    assert endpoint_problems(backend={"urls": [5]}) == [
        "endpoints[0].backend.urls[0]: must be text, not 5; put it in quotes"
    ]


def test_a_long_value_is_cut() -> None:
    (problem,) = problems({**GOOD, "server": {"port": "x" * 1000}})
    assert len(problem) < 200
    assert problem.endswith("x…")


def test_a_key_that_is_no_text_is_told_by_the_key_whatever_stands_behind_it() -> None:
    values: tuple[Any, ...] = (2, {}, {"a": 1}, [])
    for value in values:
        assert problems({**GOOD, 1: value}) == ["[1]: the key 1 is not text; put it in quotes"]  # type: ignore[dict-item]


def test_a_variable_as_a_key_is_told_where_variables_stand() -> None:
    assert problems({**GOOD, "${KEY}": 1}) == ["${KEY}: unknown key; ${…} is replaced in values, not in keys"]


def test_a_url_without_its_scheme_gets_it_proposed() -> None:
    (problem,) = endpoint_problems(backend={"urls": ["model:9000"]})
    assert problem == "endpoints[0].backend.urls[0]: 'model:9000' is not a URL like http://model:9000"


def test_the_closest_word_is_proposed_only_when_it_is_close() -> None:
    assert closest("prot", ["host", "port"]) == "; did you mean port?"
    assert closest("quux", ["host", "port"]) == ""
    assert closest("port", []) == ""


def test_a_section_of_the_wrong_kind_is_told_in_words_of_the_file() -> None:
    found = problems({"server": 5, "endpoints": [{"name": "a", "backend": {"urls": []}}]})
    assert found == [
        "server: must be a mapping with the keys host, port, workers, drain_timeout, ring, state_dir, not 5",
        "endpoints[0].backend.urls: needs at least one, such as [http://127.0.0.1:9000]",
    ]
    assert problems({"endpoints": []}) == ["endpoints: needs at least one"]


@pytest.mark.parametrize("pointer", ["a", "a/b", "/a~", "/a~2", "#/a", "$.a"])
def test_a_place_that_is_no_json_pointer_is_refused(pointer: str) -> None:
    assert endpoint_problems(request={"items": pointer}) == [
        f"endpoints[0].request.items: {pointer!r} is not a JSON pointer (RFC 6901) such as /data/rows or "
        "/results/0/scores"
    ]
    assert "has more than 8 parts" in endpoint_problems(request={"items": "/a" * 9})[0]


@pytest.mark.parametrize("value", [date(2026, 1, 1), float("nan"), {1, 2}])
def test_a_constant_is_something_that_json_can_say(value: Any) -> None:
    (problem,) = endpoint_problems(request={"constants": {"k": value}})
    assert problem.startswith("endpoints[0].request.constants: must be what JSON can say")
