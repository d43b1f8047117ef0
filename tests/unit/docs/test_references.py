"""The generated references are what the code says, and complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from docs import references
from mlproxy.config import Configuration, advice
from mlproxy.config.keys import keys_of
from mlproxy.config.load import load_configuration
from mlproxy.config.sources import environment_variables
from mlproxy.observe import METRICS, MetricPage, PageLayout
from mlproxy.observe.prometheus import PageCollector


def leaves(value: Any, above: str = "") -> Iterator[str]:
    """The path of every value of a configuration as it is written, lists as ``[]``."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, f"{above}.{key}".lstrip("."))
    elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        yield from leaves(value[0], f"{above}[]")
    else:
        yield above


@pytest.fixture
def configuration() -> Configuration:
    return Configuration.model_validate({"endpoints": [{"name": "iris", "backend": {"urls": ["http://127.0.0.1:1"]}}]})


def test_the_pages_are_in_step_with_the_code() -> None:
    assert references.out_of_step() == [], "run: make docs"


def test_every_key_that_a_configuration_writes_is_listed_once(configuration: Configuration) -> None:
    written = list(leaves(configuration.model_dump(mode="json", by_alias=True)))
    assert [key.path for key in keys_of(Configuration)] == written


def test_every_key_has_a_kind_and_a_meaning() -> None:
    assert [key.path for key in keys_of(Configuration) if not (key.kind and key.meaning)] == []


@pytest.mark.parametrize(
    ("path", "kind", "default"),
    [
        ("server.drain_timeout", "duration above 0s", "30s"),
        ("server.ring", "size from 64KiB to 1GiB", "8MiB"),
        ("server.workers", "whole number from 1 to 256 or `auto`", "auto"),
        ("logging.access", "`true` or `false`", "false"),
        ("endpoints[].slo.share", "number above 0 and below 1", "0.99"),
        ("endpoints[].backend.urls", "list of text", "required"),
        ("endpoints[].batching.policy", "`slo`, `aimd`, `static` or `none`", "slo"),
        ("endpoints[].batching.max_linger", "duration or `null`", "null"),
    ],
)
def test_units_bounds_and_defaults_are_told_as_people_write_them(path: str, kind: str, default: str) -> None:
    key = next(key for key in keys_of(Configuration) if key.path == path)
    assert (key.kind, key.default) == (kind, default)


def test_the_example_can_be_pasted(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    file = tmp_path / "mlproxy.yaml"
    file.write_text(references.EXAMPLE.replace("/etc/mlproxy/ca.pem", str(authority)))
    configuration = load_configuration(file, {}, {})
    for endpoint in configuration.endpoints:
        assert f"POST {endpoint.predict_path}\n" in references.EXAMPLE
    assert list(advice(configuration)) == []


def test_the_values_of_labels_that_are_explained_are_those_that_there_are() -> None:
    by_name = {metric.name: metric for metric in METRICS}
    for name, meanings in references.LABEL_VALUES.items():
        [label] = by_name[name].labels
        words = [value for value in label.values if not value.isdigit()]
        assert list(meanings) == words


def test_every_environment_variable_is_listed() -> None:
    page = references.configuration_page()
    assert [name for name in ("MLPROXY_CONFIG", *environment_variables()) if f"| `{name}` |" not in page] == []


def test_every_exposed_metric_is_listed_with_its_kind(configuration: Configuration) -> None:
    page = references.metrics_page()
    metrics = MetricPage.create(PageLayout.of(configuration), "supervisor")
    try:
        families = list(PageCollector(["iris"], {"supervisor": metrics}).collect())
    finally:
        metrics.words.release()
        os.close(metrics.fd)
    assert families
    for family in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        assert f"| `{name}` | {family.type} |" in page


def test_a_stale_or_missing_page_fails_the_check_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert references.main([], tmp_path) == 0
    (tmp_path / "metrics.md").unlink()
    (tmp_path / "configuration.md").write_text("old")
    assert references.main(["--check"], tmp_path) == 1
    assert (tmp_path / "configuration.md").read_text() == "old"
    assert not (tmp_path / "metrics.md").exists()
    assert "docs/metrics.md is out of step" in capsys.readouterr().err


def test_writing_brings_the_pages_into_step(tmp_path: Path) -> None:
    (tmp_path / "metrics.md").write_text("old")
    references.main([], tmp_path)
    assert references.out_of_step(tmp_path) == []
    assert references.main(["--check"], tmp_path) == 0
