"""Made-up readings."""

from __future__ import annotations

from typing import Any

from bench.paper.readings import Reading

_DEFAULT: dict[str, Any] = {
    "method": "ours", "scale": 1, "workload": "toxic", "trace": "azf", "policy": "slo", "seed": 1, "setting": "",
    "requests": 1000, "pods": 1.0, "billed_pods": 2.0, "miss_share": 0.0, "p50_ms": 50.0, "p99_ms": 90.0,
    "mean_batch": 2.0,
}  # fmt: skip


def made(**changes: Any) -> Reading:
    """One run of toxic with azf, with ``changes``."""
    return Reading(**{**_DEFAULT, **changes})
