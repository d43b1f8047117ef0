"""Writes docs/configuration.md and docs/metrics.md from the code that they describe. **Effects** only in `main`.

``python -m docs.references`` writes both; with ``--check`` it writes nothing and ends with 1 when one is out of step.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mlproxy.cli.app import app
from mlproxy.config import Configuration
from mlproxy.config.load import ENDPOINT_KEYS, environment_variables
from mlproxy.observe import METRICS, PROCESS_METRICS, Metric, MetricPage, PageLayout
from mlproxy.observe.prometheus import PREFIX, PageCollector
from mlproxy.units import format_duration, format_size

FOLDER = Path(__file__).parent
_NOTE = "<!-- Written by `make docs` from {source}; do not edit. -->"


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the file."""

    path: str
    kind: str
    default: str
    meaning: str


def configuration_keys(model: type[BaseModel] = Configuration, above: str = "") -> Iterator[Key]:
    """Every key of the schema that has a value of its own, in the file's order."""
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        key = field.alias or name
        path = f"{above}{key}"
        section = _section(field)
        if section is not None:
            yield from configuration_keys(section, f"{path}{'[]' if properties[key].get('type') == 'array' else ''}.")
        else:
            yield Key(path, _kind(name, properties[key]), _default(name, field), field.description or "")


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a nested mapping, or of the items of a list of mappings."""
    candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
    return next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _kind(name: str, schema: dict[str, Any]) -> str:
    """What may stand there, in words; durations and sizes are told by the field's unit."""
    if "anyOf" in schema:
        return " or ".join(_kind(name, alternative) for alternative in schema["anyOf"])
    if schema["type"] == "null" or "const" in schema or "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const", "null")]))
    if schema["type"] == "array":
        return f"list of {_kind(name, schema['items'])}"
    if schema["type"] == "integer" and name.endswith(("_ns", "_bytes")):
        least = f" from {format_size(schema['ge'])}" if schema.get("ge") else ""
        return "duration" if name.endswith("_ns") else f"size{least}"
    words = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "string": "text"}
    return words[schema["type"]] + _range(schema)


def _range(schema: dict[str, Any]) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    return "".join(f" {word} {schema[bound]:g}" for bound, word in words.items() if bound in schema)


def _default(name: str, field: FieldInfo) -> str:
    value = field.default
    if field.is_required():
        return "required"
    if value is not None and name.endswith("_ns"):
        return f"`{format_duration(value)}`"
    if name.endswith("_bytes"):
        return f"`{format_size(value)}`"
    return f"`{json.dumps(value) if value is None or isinstance(value, bool) else value}`"


_CONFIGURATION = """\
# Configuration

{note}

A YAML file, given by `mlproxy serve -c FILE` or `$MLPROXY_CONFIG`. Environment variables override it, flags override
both, and `$PORT` overrides the file and `$MLPROXY_SERVER_PORT`. `mlproxy check FILE` names every problem at once. A key
that is not here is an error, never ignored.

Durations carry a unit: `200ms`, `1.5s`, `2m`, `1h`. Sizes may: `64KiB`, `16MiB`, `1GB`; a bare number is bytes. In any
text `${{NAME}}` becomes the environment variable's value, and `${{NAME:-default}}` has a default.

{keys}

## Environment variables

Values are read as YAML reads them. The last ones describe one endpoint and stand in for a file; they cannot be combined
with one. `MLPROXY_BACKEND` takes several URLs with commas between them.

{variables}

## Flags of `mlproxy serve`

{flags}
"""


def configuration_page() -> str:
    """docs/configuration.md."""
    rows = ((f"`{key.path}`", key.kind, key.default, key.meaning) for key in configuration_keys())
    return _CONFIGURATION.format(
        note=_NOTE.format(source="mlproxy/config and the command line"),
        keys=_table(("key", "value", "default", "meaning"), rows),
        variables=_table(("variable", "key"), _variables()),
        flags=_table(("flag", "meaning"), _flags()),
    )


def _variables() -> Iterator[tuple[str, str]]:
    short = {"backend": "endpoints[].backend.urls", "config": "the file"}
    short |= {key: ".".join(("endpoints[]", *path)) for key, path in ENDPOINT_KEYS.items()}
    yield "`PORT`", "`server.port`"
    # An endpoint's variables last, as the text above the table says.
    for variable, key in sorted(environment_variables().items(), key=lambda item: item[1] in short):
        yield f"`{variable}`", "the file itself" if key == "config" else f"`{short.get(key, key)}`"


def _flags() -> Iterator[tuple[str, str]]:
    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined] # a group, typed as a command
    for option in serve.params:
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        yield names, option.help


_METRICS = """\
# Metrics

{note}

On the admin port, `GET /metrics`, in the Prometheus text format. Counters are kept in shared memory, so they go on when
a process of the proxy dies and is replaced; they start at zero with the proxy.

## Of each endpoint, by the label `endpoint`

{endpoints}

A histogram has the series `_bucket` (label `le`), `_sum` and `_count`. Upper bounds of the buckets:

{buckets}

## Of the proxy as a whole

{processes}
"""


def metrics_page() -> str:
    """docs/metrics.md."""
    head = ("metric", "kind", "further label", "meaning")
    return _METRICS.format(
        note=_NOTE.format(source="mlproxy/observe"),
        endpoints=_table(head, map(_metric_row, METRICS)),
        buckets="\n".join(_buckets()),
        processes=_table(
            ("metric", "kind", "label", "meaning"), (*map(_metric_row, PROCESS_METRICS), *_process_rows())
        ),
    )


def _buckets() -> Iterator[str]:
    names: dict[str, list[str]] = {}
    for metric in METRICS:
        if metric.kind == "histogram":
            bounds = ", ".join(f"{bound / metric.scale:g}" for bound in metric.buckets)
            names.setdefault(bounds, []).append(f"`{PREFIX}{metric.name}`")
    for bounds, sharing in names.items():
        yield f"- {', '.join(sharing)}: {bounds}"


def _metric_row(metric: Metric) -> tuple[str, str, str, str]:
    label = ""
    if metric.label == "code" and len(metric.values) > 100:
        label = f"`code`: {metric.values[0]} to {metric.values[-1]}"
    elif metric.label:
        label = f"`{metric.label}`: " + (", ".join(metric.values) or "as configured")
    return f"`{PREFIX}{metric.name}`", metric.kind, label, metric.help


def _process_rows() -> Iterator[tuple[str, str, str, str]]:
    """What the collector adds about processes, asked of the collector itself."""
    page = MetricPage.create(PageLayout(urls=()), "supervisor")
    label = "`process`: supervisor, batcher, admin, ingress-0, …"
    try:
        families = list(PageCollector([], {"supervisor": page}).collect())
    finally:
        page.words.release()
        os.close(page.fd)
    for family in families:
        if family.name.startswith(f"{PREFIX}process_"):
            suffix = "_total" if family.type == "counter" else ""
            yield f"`{family.name}{suffix}`", family.type, label, family.documentation


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (head, ("---",) * len(head), *rows)
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in lines)


PAGES = {"configuration.md": configuration_page, "metrics.md": metrics_page}


def out_of_step(folder: Path = FOLDER) -> list[str]:
    """The pages that are not what the code says."""
    return [
        name
        for name, page in PAGES.items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != page()
    ]


def main(arguments: list[str], folder: Path = FOLDER) -> int:
    """Write, or look. Returns the exit code."""
    stale = out_of_step(folder)
    for name in stale:
        if "--check" in arguments:
            print(f"docs/{name} is out of step with the code; run: make docs", file=sys.stderr)  # noqa: T201
        else:
            (folder / name).write_text(PAGES[name](), encoding="utf-8")
            print(f"wrote docs/{name}")  # noqa: T201
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
