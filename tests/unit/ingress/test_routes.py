"""Which endpoint a path belongs to."""

from __future__ import annotations

from typing import Any

import pytest

from mlproxy.config import Endpoint
from workers.ingress.routes import RouteTable


def table(*endpoints: dict[str, Any]) -> RouteTable:
    return RouteTable([Endpoint.model_validate({"backend": {"urls": ["http://a"]}, **one}) for one in endpoints])


TABLE = table(
    {"name": "iris"}, {"name": "iris2"}, {"name": "list", "protocol": "json-list"}, {"name": "x", "route": "/score"}
)


def predicted(target: bytes) -> str | None:
    route = TABLE.predict(target)
    return route.endpoint.name if route else None


def passed(routes: RouteTable, path: str) -> str | None:
    route = routes.passing(path)
    return route.endpoint.name if route else None


def test_a_route_knows_its_place_its_protocol_and_its_paths() -> None:
    assert [route.index for route in TABLE.routes] == [0, 1, 2, 3]
    assert [route.codec.name for route in TABLE.routes] == ["kserve-v1", "kserve-v1", "json-list", "kserve-v1"]
    assert TABLE.routes[0].predict_path == "/v1/models/iris:predict"
    assert TABLE.routes[2].prefix == "/list"


def test_the_usual_spelling_of_every_predict_route_is_found_in_one_look() -> None:
    assert {target: route.endpoint.name for target, route in TABLE.by_target.items()} == {
        b"/v1/models/iris:predict": "iris", b"/v1/models/iris2:predict": "iris2", b"/list/predict": "list",
        b"/score": "x",
    }  # fmt: skip


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/models/iris:predict",
        b"/v1/models/iris:predict?",
        b"/v1/models/iris:predict?a=b?c",
        b"/v1/models/iris%3Apredict",
        b"/v1/models/iris%3apredict?a=%ff",
        b"/%76%31/models/iris:predict",
    ],
)
def test_a_predict_route_is_found_in_any_spelling(target: bytes) -> None:
    assert predicted(target) == "iris"


@pytest.mark.parametrize(
    "target",
    [
        b"", b"/", b"*", b"?", b"/v1/models/iris", b"/v1/models/iris:predict/", b"/v1/models/iris:predictor",
        b"/v1/models/Iris:predict", b"/v1/models/iris3:predict", b"//v1/models/iris:predict", b"/v1/models/%",
        b"/v1/models/iris%253Apredict", b"/v1/models/iris:predict\xff", b"/v1/models/x:predict", b"/%ff%fe",
    ],
)  # fmt: skip
def test_any_other_target_is_no_predict_route(target: bytes) -> None:
    assert predicted(target) is None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/models/iris", "iris"),
        ("/v1/models/iris/", "iris"),
        ("/v1/models/iris/metadata", "iris"),
        ("/v1/models/iris:explain", "iris"),
        ("/v1/models/iris2/metadata", "iris2"),
        ("/list/docs.json", "list"),
        ("/v1/models/x/versions/1", "x"),
    ],
)
def test_what_lies_under_an_endpoints_prefix_passes_to_its_backend(path: str, name: str) -> None:
    assert passed(TABLE, path) == name


@pytest.mark.parametrize(
    "path", ["", "/", "/v1/models", "/v1/models/", "/v1/models/iris3", "/v1/models/iri", "/lists", "/metrics"]
)
def test_what_lies_under_no_prefix_passes_nowhere(path: str) -> None:
    assert passed(TABLE, path) is None


@pytest.mark.parametrize("reverse", [False, True])
def test_of_two_prefixes_the_longer_one_wins_whatever_the_order(reverse: bool) -> None:
    endpoints: list[dict[str, Any]] = [{"name": "v1", "protocol": "json-list"}, {"name": "iris"}]
    routes = table(*(endpoints[::-1] if reverse else endpoints))
    assert passed(routes, "/v1/models/iris/metadata") == "iris"
    assert passed(routes, "/v1/models/other") == "v1"


# --- KServe v2 ---------------------------------------------------------------------------------------------------

V2 = table(
    {"name": "a"},
    {"name": "b", "protocol": "kserve-v2"},
    {"name": "c", "protocol": "kserve-v2", "route": "/score"},
)


@pytest.mark.parametrize("version", ["1", "2.0-rc_1", "latest", "1" * 128])
def test_a_path_may_name_a_version_of_the_model(version: str) -> None:
    target = f"/v2/models/b/versions/{version}/infer"
    route = V2.predict(target.encode() + b"?a=b")
    assert route is not None
    assert (route.index, route.endpoint.name, route.predict_path) == (1, "b", target)
    body = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}'
    lane_key = route.codec.parse_request(body).lane_key
    assert lane_key != V2.routes[1].codec.parse_request(body).lane_key
    assert route.codec.join(lane_key, []).version == version


@pytest.mark.parametrize(
    "target",
    [
        b"/v2/models/b/versions/1/infer/", b"/v2/models/b/versions//infer", b"/v2/models/b/versions/../infer",
        b"/v2/models/b/versions/1/2/infer", b"/v2/models/b/versions/1%0d%0aX:/infer", b"/v2/models/b/versions/1",
        b"/v2/models/b/versions/1/ready", b"/v2/models/c/versions/1/infer", b"/v2/models/d/versions/1/infer",
        b"/v1/models/a/versions/1/infer", b"/v2/models/b/versions/" + b"1" * 129 + b"/infer",
        b"/v2/models/b/versions/\xc3\xa9/infer",
    ],
)  # fmt: skip
def test_any_other_path_names_no_version(target: bytes) -> None:
    assert V2.predict(target) is None


def test_what_a_server_says_about_itself_comes_from_the_first_endpoint_of_kserve_v2() -> None:
    for path in ("/v2", "/v2/health/live", "/v2/health/ready"):
        assert passed(V2, path) == "b"
        assert passed(TABLE, path) is None
    assert passed(V2, "/v2/models/c/ready") == "c"
    assert passed(V2, "/v2/models/d/ready") is None
    assert passed(V2, "/v2/") is None
    assert passed(V2, "/v2x") is None
