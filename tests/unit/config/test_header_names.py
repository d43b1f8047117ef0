"""Which headers may separate lanes, and what is said of those that may not."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mlproxy.config import Configuration
from mlproxy.config.problems import findings_of


def lane_headers(*names: object) -> tuple[str, ...]:
    document = {"endpoints": [{"name": "a", "backend": {"urls": ["http://a"]}, "batching": {"lane_headers": names}}]}
    return Configuration.model_validate(document).endpoints[0].batching.lane_headers


def problems(*names: object) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        lane_headers(*names)
    return [text for _, text in findings_of(caught.value, {})]


def test_any_header_that_is_a_callers_own_may_and_its_case_does_not_matter() -> None:
    assert lane_headers("Authorization", "x-tenant", "cookie", "X.1") == ("authorization", "x-tenant", "cookie", "x.1")
    assert lane_headers() == ()


@pytest.mark.parametrize("name", ["", " ", "x tenant", "x-tenant:", "x:y", "é", "a\r\nb", "(x)"])
def test_what_is_no_name_of_a_header_is_refused(name: str) -> None:
    assert problems(name) == [f"{name!r} is not the name of a header, such as authorization"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Transfer-Encoding", "about one connection only"), ("connection", "about one connection only"),
        ("TE", "about one connection only"), ("Expect", "about one connection only"),
        ("Host", "written by MLProxy itself"), ("content-length", "written by MLProxy itself"),
        ("Content-Type", "written by MLProxy itself"), ("accept", "written by MLProxy itself"),
        ("content-encoding", "written by MLProxy itself"), ("x-request-timeout-ms", "written by MLProxy itself"),
        ("X-Request-Id", "about one request"), ("traceparent", "about one request"),
    ],
)  # fmt: skip
def test_what_a_batch_cannot_take_along_is_refused_with_the_reason(name: str, reason: str) -> None:
    [problem] = problems(name)
    assert problem.startswith(f"{name!r} is {reason}")


def test_every_bad_name_is_told_at_once() -> None:
    assert len(problems("host", "x y", "x-tenant", "te")) == 3
    assert problems("x-tenant", "X-Tenant", "x-a") == ["x-tenant: the same header stands twice"]
