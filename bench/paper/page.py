"""docs/results.md and the table that the README quotes, from the readings. **Pure.**"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.paper.plan import PAPER_CALLERS, PAPER_CLUSTER, STATICS, WORKLOADS, Case, Method
from bench.paper.summary import Readings, Value, billed, improvement, missed, pods
from bench.paper.tables import bound_table, case_tables, improved, ratios_table, summary_table
from mlproxy.config import Backend, Batching
from mlproxy.simulate import ClusterSettings
from mlproxy.units import format_duration

#: What the paper reports as the most, in percent: its cost is its pods, the bill is what ours would be.
_COST, _MISSES = 92.0, 99.0
_CLAIMS: Mapping[Method, Sequence[tuple[str, Value, float]]] = {
    "paper": (("fewer pods", pods, _COST), ("fewer misses", missed, _MISSES)),
    "ours": (("fewer pods", pods, _COST), ("lower bill", billed, _COST), ("fewer misses", missed, _MISSES)),
}

_HEAD = """\
# Results: the paper's comparison, simulated

<!-- Written by `make paper` from the newest bench/results/paper-*.json; do not edit. -->

The paper ([README](../README.md)) reports *up to* 92 % lower cost and *up to* 99 % fewer SLO violations on Knative.
This page repeats its comparison in [the simulator](simulator.md): three of its models at its rates and at ten times
these, five traces, six policies, by the paper's method and by a stricter one. `make paper` repeats it{at_length}; this
run took {cpu_minutes} CPU-minutes ({extent}; Python {python}, {date}). The paper's own traces and cluster are not
public, so no number here is a measurement of the paper's system.
"""

_LEGEND = """\
## What is compared

| | |
|---|---|
| `none` | every request is a call of its own, as without a proxy |
| `aimd` | the controller of the 2021 prototype and of the paper; batches of at most {caps} |
| `clipper`, `bentoml` | the rules of Clipper and of BentoML ([how](simulator.md)) |
| `static` | the best of {statics} in hindsight, case by case, by up to 15 minutes around the peak: the fewest pods of those that miss at most 1 % there, and where none does, the one that misses least. Nobody has this hindsight |
| `slo` | MLProxy's default policy; the same settings everywhere |

Models, at ×1: {workloads}. `toxic` and `iris` are rebuilt from published figures, `fashion` is an estimate
([simulator](simulator.md)).

| trace | what |
|---|---|
{traces}

The size cap of `aimd` is a choice, which its rule leaves open: these are the prototype's, a setting per model, meant for
the rates of ×1{further}. At ×10 larger batches would pay, so part of the distance between `aimd` and the others there is
the cap's. `clipper`, `bentoml` and `slo` have the default cap, {default_cap}, everywhere.

A range in brackets is over the seeds. Where an improvement is negative there is more, not less; “–” means that there was
nothing to improve.
"""  # noqa: E501 (a table's row)

_PAPER_METHOD = """\
## By the paper's method

Ready pods are looked at every 30 s; the first and the last five minutes are dropped; a miss is an answer that left the
proxy too late, and what fails is not counted; a client of {callers} threads sends nothing while all of them wait; pods
have no limit on concurrency and queue (`containerConcurrency: 0`), and there are at most {pods}; the proxy's own pod is
not counted.

Where the paper's numbers appear, rounded to a whole percent:

{claims}

{tables}
"""

_OUR_METHOD = """\
## By our method

An open loop: requests come whether or not earlier ones are answered. All requests after the first five minutes count;
one that fails or is refused is a miss. A pod serves one call at a time (`containerConcurrency: 1`), the rest waits in
the activator; at most {pods} pods; the proxy gives a call up after {timeout}. “Bill” is what is paid for: starting and
draining pods too, and for every policy but `none` the proxy's own pod.

{summary}

{against}

Over all cases:

{ratios}

{bound}![Pods and misses of every case](results/pods-and-misses.png)

Each point is a case; the dashed line is the objective, 1 %.

Where the paper's numbers appear:

{claims}

![fashion with the traffic azf, over time](results/fashion-azf.png)

{tables}
"""

_BOUND = """\
“Bound” is how few pods would do if all were known beforehand (`bench/paper/bound.py`): every batch as late and as large
as its first request allows, mean times without margin, as many pods at any instant as the autoscaler's rule wants for
the last minute, with no start that takes time. It is a reference and no proof, and no policy knows what it knows.
"""


def page(document: Mapping[str, Any], readings: Readings) -> str:
    """All of docs/results.md."""
    made = document["made"]
    text = [
        _HEAD.format(at_length="" if made["plan"] == "full" else " (`python -m bench.paper --full` at length)", **made),
        _LEGEND.format(
            caps=", ".join(f"{dict(one.aimd)['batching.max_size']} for {name}" for name, one in WORKLOADS.items()),
            further=_further_settings(), default_cap=Batching().max_size,
            statics=", ".join(f"{len(pairs)} pairs of size and linger at ×{scale}" for scale, pairs in STATICS.items()),
            workloads="; ".join(
                f"`{name}` at most {one.peak_per_second:.0f} requests/s within {one.slo_ms} ms"
                for name, one in WORKLOADS.items()
            ),
            traces="\n".join(f"| `{name}` | {source} |" for name, source in document["traces"].items()),
        ),
        _PAPER_METHOD.format(
            callers=PAPER_CALLERS, pods=PAPER_CLUSTER.max_pods, claims=_claims(readings, "paper"),
            tables=case_tables(readings, "paper"),
        ),
        _OUR_METHOD.format(
            pods=ClusterSettings().max_pods, timeout=format_duration(Backend.model_fields["timeout_ns"].default),
            summary=summary_table(readings), against=against_slo(readings), ratios=ratios_table(readings),
            bound=_against_bound(readings),
            claims=_claims(readings, "ours"), tables=case_tables(readings, "ours"),
        ),
    ]  # fmt: skip
    return "\n".join(text)


def _against_bound(readings: Readings) -> str:
    """What `slo` takes beside the clairvoyant bound; nothing where that was not reckoned."""
    table = bound_table(readings)
    return f"{_BOUND}\n{table}\n\n" if table else ""


def _further_settings() -> str:
    """Of `aimd`, beside the cap."""
    further = [
        f"`{key.rpartition('.')[2]}` {value} for {name}"
        for name, workload in WORKLOADS.items()
        for key, value in workload.aimd
        if key != "batching.max_size"
    ]
    return f", and so is {', '.join(further)}" if further else ""


def readme_table(document: Mapping[str, Any], readings: Readings) -> str:
    """bench/results/paper.md."""
    return f"{overview(document, readings)}\n[Every case, and how they were run](docs/results.md).\n"


def overview(document: Mapping[str, Any], readings: Readings) -> str:
    """A line per policy, and what of the paper's claims is there."""
    traces = "real and generated" if document["made"]["real_traces"] else "generated"
    return (
        f"{_workloads(readings)} with {len(document['traces'])} traces each ({traces}), simulated; means over the "
        "cases. ×1 is the paper's rates. “Bill” also counts starting and draining pods and the proxy's own. `static` "
        "is the best setting in hindsight, case by case.\n\n"
        f"{summary_table(readings)}\n\n{against_slo(readings)}\n\n{_where_the_papers_numbers_are(readings)}\n"
    )  # fmt: skip


def _workloads(readings: Readings) -> str:
    names = dict.fromkeys(one.workload for one in readings.of("ours"))
    return "Models " + ", ".join(f"`{name}`" for name in names)


def _where_the_papers_numbers_are(readings: Readings) -> str:
    """One sentence: how many cases have them, by our method."""
    parts = []
    for what, value, percent in _CLAIMS["ours"]:
        counts = ", ".join(
            f"{len(readings.reached('ours', scale, 'slo', value, percent)[0])} of {len(readings.cases('ours', scale))} "
            f"at ×{scale}"
            for scale in readings.scales("ours")
        )
        parts.append(f"{percent:.0f} % {what} than without batching in {counts}")
    return f"The paper's best numbers appear for `slo` in so many cases: {'; '.join(parts)}."


def against_slo(readings: Readings) -> str:
    """One sentence per scale: `slo` against the baseline and the paper's controller."""
    sentences = []
    for scale in readings.scales("ours"):
        parts = []
        for other, name in (("none", "no batching"), ("aimd", "the paper's controller")):
            fewer, misses, bill = (_change(readings, scale, other, value) for value in (pods, missed, billed))
            parts.append(f"pods {fewer}, misses {misses}, bill {bill} against {name}")
        sentences.append(f"`slo` at ×{scale}: {'; '.join(parts)}.")
    return "\n\n".join(sentences)


def _change(readings: Readings, scale: int, other: str, value: Value) -> str:
    own, theirs = (readings.mean("ours", scale, policy, value) for policy in ("slo", other))
    return f"{100 * (own / theirs - 1):+.0f} %".replace("-", "−") if theirs else "not comparable (it has none)"


# --- what of the paper's claim appears -----------------------------------------------------------------------


def _claims(readings: Readings, method: Method) -> str:
    return "\n".join(
        f"* **{percent:.0f} % {what}** than `none`, `{policy}` at ×{scale}: "
        + _claim(readings, method, scale, policy, value, percent)
        for scale in readings.scales(method)
        for what, value, percent in _CLAIMS[method]
        for policy in ("aimd", "slo")
    )


def _claim(readings: Readings, method: Method, scale: int, policy: str, value: Value, percent: float) -> str:
    reached, best = readings.reached(method, scale, policy, value, percent)
    cases = len(readings.cases(method, scale))
    if reached:
        above = sum(readings.misses_its_objective(case, "none") for case in reached)
        note = f"; `none` misses more than 1 % in {above} of them" if value is missed else ""
        return f"{len(reached)} of {cases} cases: " + ", ".join(map(_name, reached)) + note + "."
    if best is None:
        return "nowhere; there was nothing to improve."
    most = improvement(readings.run(best, policy), readings.run(best, "none"), value)
    return f"nowhere; the most is {improved(most)}, {_name(best)}."


def _name(case: Case) -> str:
    return f"{case.workload} {case.trace}"
