"""Durations and sizes as people write them, and as the program counts them. **Pure.**

Inside, a duration is an integer of nanoseconds and a size an integer of bytes; outside, both carry their unit.
"""

from __future__ import annotations

import re

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

_DURATION_UNITS = {
    "ns": 1, "us": NS_PER_US, "µs": NS_PER_US, "ms": NS_PER_MS, "s": NS_PER_S, "m": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
}  # fmt: skip
_SIZE_UNITS = {
    "": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
}  # fmt: skip
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-zµ]*)")


def parse_duration(text: object) -> int:
    """``"200ms"``, ``"1.5s"``, ``"2m"`` in nanoseconds. ValueError with a sentence that helps."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        raise ValueError(f"a duration needs a unit: write {text}s or {text}ms")
    match = _QUANTITY.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None or match[2] not in _DURATION_UNITS:
        raise ValueError(f"{text!r} is not a duration; write a number with ms, s, m or h, such as 200ms")
    return _whole(text, float(match[1]) * _DURATION_UNITS[match[2]])


def parse_size(text: object) -> int:
    """``"16MiB"``, ``"64KiB"``, ``"1MB"`` or a plain number, in bytes. ValueError with a sentence that helps."""
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    match = _QUANTITY.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None or match[2] not in _SIZE_UNITS:
        raise ValueError(f"{text!r} is not a size; write a number with KiB, MiB or GiB, such as 16MiB")
    return _whole(text, float(match[1]) * _SIZE_UNITS[match[2]])


def _whole(text: object, amount: float) -> int:
    if amount >= 2**63:
        raise ValueError(f"{text!r} is more than can be counted")
    return round(amount)


def format_duration(duration_ns: int) -> str:
    """The shortest exact spelling, which `parse_duration` reads back: ``200ms``, ``1.5s``."""
    for unit in ("h", "m", "s", "ms", "us"):
        tenths, rest = divmod(duration_ns * 10, _DURATION_UNITS[unit])
        if tenths >= 10 and rest == 0:
            return f"{tenths // 10}{unit}" if tenths % 10 == 0 else f"{tenths // 10}.{tenths % 10}{unit}"
    return f"{duration_ns}ns" if duration_ns else "0s"


def format_size(size_bytes: int) -> str:
    """The shortest exact spelling: ``16MiB``, ``500B``."""
    for unit in ("GiB", "MiB", "KiB"):
        if size_bytes >= _SIZE_UNITS[unit] and size_bytes % _SIZE_UNITS[unit] == 0:
            return f"{size_bytes // _SIZE_UNITS[unit]}{unit}"
    return f"{size_bytes}B"
