"""Writes the generated parts of docs from the code that they describe. **Effects** only in `main`.

``python -m docs.references`` writes them; with ``--check`` it writes nothing and ends with 1 when one is out of step.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import typer

from docs.controller_picture import picture
from mlproxy.cli.app import app
from mlproxy.config import Configuration
from mlproxy.config.keys import keys_of, schema_path
from mlproxy.config.sources import environment_variables
from mlproxy.observe import METRICS, PROCESS_METRICS, Metric, MetricPage, PageLayout
from mlproxy.observe.catalogue import Label
from mlproxy.observe.prometheus import PREFIX, PageCollector

FOLDER = Path(__file__).parent
_NOTE = "<!-- Written by `make docs` from {source}; do not edit. -->"


_CONFIGURATION = """\
# Configuration

{note}

A YAML file, given by `mlproxy serve -c FILE` or `$MLPROXY_CONFIG`. Environment variables override it, flags override
both, and `$PORT` overrides the file and `$MLPROXY_SERVER_PORT`. A key that is not here is an error, never ignored.

`mlproxy check FILE` names every problem at once, a line each, and ends with 2: where it comes from (the file and the
path in it, the environment variable, the flag), what is wrong, and what would do. `mlproxy serve` does the same before
it starts anything. What works but is unwise is a note of `check`, and a warning in the log of `serve`.

Durations carry a unit: `200ms`, `1.5s`, `2m`, `1h`. Sizes may: `64KiB`, `16MiB`, `1GB`; a bare number is bytes. In any
value `${{NAME}}` becomes the environment variable's value, and `${{NAME:-default}}` has a default.

Two models, one of them over TLS with a certificate of the company's own authority:

```yaml
{example}```

In the table `endpoints[].backend.tls.ca_file` is the key `ca_file` in the mapping `tls` in the mapping `backend` of an
endpoint. Only what is `required` has to be there.

How policy slo decides, and what it needs to know of a backend, is told in [the controller](controller.md).

{keys}

## Environment variables

Values are read as YAML reads them. Those of `endpoints[]` describe one endpoint and stand in for a file; they cannot be
combined with one. `MLPROXY_BACKEND` takes several URLs with commas between them.

{variables}

## Flags of `mlproxy serve`

{flags}
"""


EXAMPLE = """\
server: {port: 8080, drain_timeout: 25s}
admin: {host: 0.0.0.0}                       # to be scraped from elsewhere
logging: {access: true}
endpoints:
  - name: iris                               # POST /v1/models/iris:predict
    backend:
      urls: [http://iris-0:9000, http://iris-1:9000]
      scaling: {kind: fixed, slots: 2}       # calls that they serve at once, together
    slo: {latency: 200ms, share: 0.99}
    batching: {max_size: 64}                 # policy slo, the default, decides when a batch leaves
  - name: reviews                            # POST /reviews/predict
    protocol: json-list
    backend:
      urls: ["https://${REVIEWS_HOST:-reviews.internal}"]
      timeout: 2s
      tls: {ca_file: /etc/mlproxy/ca.pem}
    batching: {policy: static, max_size: 32, max_linger: 5ms}
"""


def configuration_page() -> str:
    """docs/configuration.md."""
    rows = (
        (f"`{key.path}`", key.kind, key.default if key.default == "required" else f"`{key.default}`", key.meaning)
        for key in keys_of(Configuration)
    )
    return _CONFIGURATION.format(
        note=_NOTE.format(source="mlproxy/config and the command line"),
        example=EXAMPLE,
        keys=_table(("key", "value", "default", "meaning"), rows),
        variables=_table(("variable", "key"), _variables()),
        flags=_table(("flag", "meaning"), _flags()),
    )


def _variables() -> Iterator[tuple[str, str]]:
    # An endpoint's variables last but for the file's, as the text above the table says.
    for variable, path in sorted(environment_variables().items(), key=lambda item: item[1][0] == "endpoints"):
        yield f"`{variable}`", f"`{schema_path(path)}`"
    yield "`MLPROXY_CONFIG`", "the file itself"


def _flags() -> Iterator[tuple[str, str]]:
    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined] # a group, typed as a command
    for option in serve.params:
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        yield names, option.help


_METRICS = """\
# Metrics

{note}

On the admin port, `GET /metrics`, in the Prometheus text format. Counters are kept in shared memory, so they go on when
a process of the proxy dies and is replaced; they start at zero with the proxy. They are about predictions: what passes
through, and what no endpoint takes, is in the access log only (`logging.access`).

What those of the controller mean is told in [its page](controller.md).

## Of each endpoint, by the label `endpoint`

{endpoints}

A histogram has the series `_bucket` (label `le`), `_sum` and `_count`. Upper bounds of the buckets:

{buckets}

What the values of labels mean:

{label_values}

## Of the proxy as a whole

{processes}
"""


def metrics_page() -> str:
    """docs/metrics.md."""
    head = ("metric", "kind", "further labels", "meaning")
    return _METRICS.format(
        note=_NOTE.format(source="mlproxy/observe"),
        endpoints=_table(head, map(_metric_row, METRICS)),
        buckets="\n".join(_buckets()),
        label_values="\n".join(_explained_values()),
        processes=_table(
            ("metric", "kind", "label", "meaning"), (*map(_metric_row, PROCESS_METRICS), *_process_rows())
        ),
    )


#: What the values of a label mean, where they do not say so themselves.
LABEL_VALUES = {
    "batches_total": {
        "full": "as many instances were there as a batch may have now",
        "deadline": "the oldest had waited as long as it may: `max_linger`, or less when its caller has less time",
        "idle": "no call was in flight, and `max_linger` asks for no wait (policies static and none)",
        "slot": "a slot was free, others were not",
        "drain": "the proxy is shutting down",
        "split": "the batch before had failed, and this is a half of it",
        "paced": "policy slo, sooner than it had to: slots that are needed anyway had the time",
        "late": "none of its requests could be answered in time any more",
        "alone": "one request that is not batched",
        "verify": "one request, sent once more to compare (`batching.verify`)",
    },
    "shed_total": {
        "queue_full": "503, `limits.queue_instances` or the batcher's `limits.queue_bytes`",
        "worker_full": "503, a worker's share of `limits.queue_bytes`",
        "deadline": "504, the caller's time budget ran out in the queue",
    },
    "backend_duration_seconds": {
        "other": "any other status",
        "connect": "no connection",
        "reset": "the connection was lost before the answer",
        "timeout": "no answer within `backend.timeout`",
        "protocol": "the answer was not HTTP",
        "too_large": "the answer was larger than `limits.queue_bytes`",
        "contract": "a 2xx, but not one item per instance",
    },
}


def _explained_values() -> Iterator[str]:
    for metric in METRICS:
        meanings = LABEL_VALUES.get(metric.name, {})
        if meanings:
            listed = "; ".join(f"`{value}`: {meaning}" for value, meaning in meanings.items())
            yield f"- `{metric.labels[0].name}` of `{PREFIX}{metric.name}`. {listed}."


def _buckets() -> Iterator[str]:
    names: dict[str, list[str]] = {}
    for metric in METRICS:
        if metric.kind == "histogram":
            bounds = ", ".join(f"{bound / metric.scale:g}" for bound in metric.buckets)
            names.setdefault(bounds, []).append(f"`{PREFIX}{metric.name}`")
    for bounds, sharing in names.items():
        yield f"- {', '.join(sharing)}: {bounds}"


def _metric_row(metric: Metric) -> tuple[str, str, str, str]:
    labels = "; ".join(f"`{label.name}`: {_label_values(label)}" for label in metric.labels)
    return f"`{PREFIX}{metric.name}`", metric.kind, labels, metric.help


def _label_values(label: Label) -> str:
    if len(label.values) > 100:
        return f"{label.values[0]} to {label.values[-1]}"
    return ", ".join(label.values) or "as configured"


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


PAGES = {"configuration.md": configuration_page, "metrics.md": metrics_page, "controller.svg": picture}


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
