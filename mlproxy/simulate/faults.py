"""What goes wrong in a simulated cluster, and when. **Pure.**"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mlproxy.config.suggest import closest
from mlproxy.units import parse_duration

Kind: TypeAlias = Literal["drift", "outliers", "errors", "slowpod"]

#: How each kind is written.
FAULT_FORMS: dict[str, str] = {
    "drift": "drift:FACTOR@FROM-TO, such as drift:2@15m-35m",
    "outliers": "outliers:SHARE,FACTOR[@FROM-TO], such as outliers:0.02,5",
    "errors": "errors:SHARE@FROM-TO, such as errors:0.3@10m-11m",
    "slowpod": "slowpod:FACTOR@FROM-TO, such as slowpod:4@10m-25m",
}
_NUMBER = r"(\d+(?:\.\d+)?)"
_SHAPE = re.compile(rf"{_NUMBER}(?:,{_NUMBER})?(?:@([^-]+)-([^-]+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """From ``start_ns`` to ``end_ns`` a ``share`` of the calls takes ``factor`` times as long, or fails."""

    kind: Kind
    share: float = 1.0
    factor: float = 1.0
    start_ns: int = 0
    end_ns: int | float = math.inf


def parse_fault(text: str) -> Fault:
    """A fault as the command line writes it. ValueError with a sentence that helps."""
    kind, _, rest = text.partition(":")
    if kind not in FAULT_FORMS:
        raise ValueError(f"{kind!r} is not one of {', '.join(FAULT_FORMS)}{closest(kind, FAULT_FORMS)}")
    match = _SHAPE.fullmatch(rest)
    if match is None or (match[2] is not None) != (kind == "outliers") or (match[3] is None and kind != "outliers"):
        raise ValueError(f"{text!r}: write {FAULT_FORMS[kind]}")
    start_ns = _instant(match[3]) if match[3] else 0
    end_ns: int | float = _instant(match[4]) if match[4] else math.inf
    if end_ns <= start_ns:
        raise ValueError(f"{text!r} ends before it begins")
    return _fault(kind, float(match[1]), float(match[2] or 1), start_ns, end_ns, text)


def _instant(text: str) -> int:
    return 0 if text == "0" else parse_duration(text)


def _fault(kind: str, first: float, second: float, start_ns: int, end_ns: int | float, text: str) -> Fault:
    if kind in ("outliers", "errors") and first > 1:
        raise ValueError(f"{text!r}: a share is at most 1")
    match kind:
        case "outliers":
            return Fault(kind="outliers", share=first, factor=second, start_ns=start_ns, end_ns=end_ns)
        case "errors":
            return Fault(kind="errors", share=first, start_ns=start_ns, end_ns=end_ns)
        case "slowpod":
            return Fault(kind="slowpod", factor=first, start_ns=start_ns, end_ns=end_ns)
        case _:
            return Fault(kind="drift", factor=first, start_ns=start_ns, end_ns=end_ns)


def of_kind(faults: Iterable[Fault], kind: Kind) -> tuple[Fault, ...]:
    """Those of one kind."""
    return tuple(fault for fault in faults if fault.kind == kind)
