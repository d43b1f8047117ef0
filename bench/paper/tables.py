"""The tables of docs/results.md and of the README. **Pure.**"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bench.paper.plan import Case, Method
from bench.paper.readings import Reading
from bench.paper.summary import (
    Improvement,
    Readings,
    Value,
    billed,
    bound_pods,
    improvement,
    missed,
    p50_ms,
    pods,
    spread,
)


def summary_table(readings: Readings) -> str:
    """A line per policy, by our method: what the README quotes."""
    scales = readings.scales("ours")
    head = ["policy"]
    for scale in scales:
        cases = len(readings.cases("ours", scale))
        head += [f"×{scale}: pods", "bill", "misses", f"above 1 %, of {cases}", "P50"]
    rows = (
        [f"`{policy}`", *(cell for scale in scales for cell in _summary_cells(readings, scale, policy))]
        for policy in readings.policies("ours", scales[0])
    )
    return _table(head, rows)


def _summary_cells(readings: Readings, scale: int, policy: str) -> Iterator[str]:
    yield f"{readings.mean('ours', scale, policy, pods):.2f}"
    yield f"{readings.mean('ours', scale, policy, billed):.2f}"
    yield f"{readings.mean('ours', scale, policy, missed):.2f} %"
    yield f"{readings.above('ours', scale, policy)}"
    yield f"{readings.mean('ours', scale, policy, p50_ms):.0f} ms"


def ratios_table(readings: Readings) -> str:
    """`slo` divided by each other policy, over all cases of both scales."""
    others = [policy for policy in readings.policies("ours", readings.scales("ours")[0]) if policy != "slo"]
    rows = (
        [name, *(_ratio(readings, other, value) for other in others)]
        for name, value in (("pods", pods), ("misses", missed), ("bill", billed))
    )
    return _table(["`slo` divided by", *(f"`{other}`" for other in others)], rows)


def bound_table(readings: Readings) -> str:
    """The pods of `slo` and of the clairvoyant bound, a line per scale; empty where it was not reckoned."""
    known = readings.with_bound("ours")
    scales: list[int | None] = [*known.scales("ours")]
    rows = []
    for scale in [*scales, None] if len(scales) > 1 else scales:
        own, bound = (known.mean("ours", scale, "slo", value) for value in (pods, bound_pods))
        rows.append([f"×{scale}" if scale else "all", f"{own:.2f}", f"{bound:.2f}", f"{own / bound:.2f}"])
    return _table(["pods", "`slo`", "bound", "ratio"], rows) if rows else ""


def _ratio(readings: Readings, other: str, value: Value) -> str:
    own, theirs = (readings.mean("ours", None, policy, value) for policy in ("slo", other))
    return f"{own / theirs:.2f}" if theirs else "–"


def case_tables(readings: Readings, method: Method) -> str:
    """A table per model and scale, with a line per trace and policy."""
    return "\n\n".join(
        f"### {workload}, ×{scale}\n\n" + _detail(readings, method, scale, workload)
        for scale in readings.scales(method)
        for workload in dict.fromkeys(case.workload for case in readings.cases(method, scale))
    )


def _detail(readings: Readings, method: Method, scale: int, workload: str) -> str:
    head = [
        "trace", "policy", "pods", "misses, %", "P50, ms", "batch", "fewer pods than `none`", "than `aimd`",
        "fewer misses than `none`", "than `aimd`",
    ]  # fmt: skip
    head += ["lower bill than `none`"] if method == "ours" else []
    rows: list[list[str]] = []
    for case in (one for one in readings.cases(method, scale) if one.workload == workload):
        rows += [
            _detail_cells(readings, case, policy, with_bill=method == "ours")
            for policy in readings.policies(method, scale)
        ]
        rows += _bound_cells(readings.run(case, "slo"), case, len(head))
    return _table(head, rows)


def _bound_cells(runs: Sequence[Reading], case: Case, cells: int) -> Iterator[list[str]]:
    """A line with the pods of the clairvoyant bound, if it was reckoned."""
    known = [one.bound_pods for one in runs if one.bound_pods is not None]
    if known:
        yield [case.trace, "bound", spread(known).text(), *[""] * (cells - 3)]


def _detail_cells(readings: Readings, case: Case, policy: str, *, with_bill: bool) -> list[str]:
    own = readings.run(case, policy)
    setting = f" ({own[0].setting})" if own[0].setting else ""
    cells = [
        case.trace, f"`{policy}`{setting}", spread(map(pods, own)).text(), spread(map(missed, own)).text(),
        spread(map(p50_ms, own)).text(0), spread(one.mean_batch for one in own).text(1),
    ]  # fmt: skip
    for value in (pods, missed):
        for other in ("none", "aimd"):
            base = readings.run(case, other)
            cells.append("" if other == policy or policy == "none" else improved(improvement(own, base, value)))
    if with_bill:
        base = readings.run(case, "none")
        cells.append("" if policy == "none" else improved(improvement(own, base, billed)))
    return cells


def improved(one: Improvement | None) -> str:
    """An improvement, or that there is none to speak of."""
    return "–" if one is None else one.text()


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---" if index == 0 else "--:" for index in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
