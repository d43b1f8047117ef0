"""Whether two answers to one request say the same. **Pure.**

Numbers with a point may differ by a tolerance: a model that adds up in another order, as it does for a batch, gets
other last digits. Everything else must be equal, whole numbers (classes, ids) too.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import count
from math import isclose
from typing import Any

import msgspec
import orjson

from mlproxy.protocols.codec import Text

#: Below this a difference is none: next to nothing, as of a probability that is 0, has no relative tolerance.
ABSOLUTE = 1e-6
#: Of the types with few digits: what four units in the last place are, relatively.
_LEAST_RELATIVE = {"FP16": 4 * 2.0**-10, "BF16": 4 * 2.0**-7}
#: Types with a point, by their codes in `struct`; BF16 is the upper half of an FP32.
_FLOATS = {"FP16": "e", "FP32": "f", "FP64": "d", "BF16": "H"}
_EXACT = frozenset({int, str, bool, type(None)})
_LONGEST_PLACE = 200


class Floats(msgspec.Struct):
    """The numbers of a tensor."""

    values: Sequence[Any]
    least_relative: float  #: tolerance that their type needs


def decoded(items: Sequence[bytes]) -> list[Any]:
    """Items in JSON, as values."""
    return [orjson.loads(item) for item in items]


def tensor_values(datatype: str, data: Text, *, binary: bool) -> Floats | bytes:
    """The rows of a tensor: numbers if it has any after a point, else bytes that are equal when the rows are."""
    if datatype not in _FLOATS:
        return bytes(data) if binary else orjson.dumps(_list(data))
    values = _unpacked(datatype, data) if binary else _list(data)
    return Floats(values, _LEAST_RELATIVE.get(datatype, 0.0))


def _unpacked(datatype: str, data: Text) -> Sequence[float]:
    code = _FLOATS[datatype]
    count = len(data) // struct.calcsize(f"<{code}")
    values: tuple[float, ...] = struct.unpack(f"<{count}{code}", data)
    if datatype == "BF16":
        whole = struct.pack(f"<{count}I", *[int(half) << 16 for half in values])
        values = struct.unpack(f"<{count}f", whole)
    return values


def _list(inside: Text) -> Any:
    return orjson.loads(b"".join((b"[", inside, b"]")))


def difference(one: Any, other: Any, relative: float) -> str | None:
    """Where the first difference is, for a log line: keys and positions, never what stands there. None: nowhere."""
    keys = _path(one, other, relative)
    if keys is None:
        return None
    return "".join(f"[{key!r}]" for key in reversed(keys))[:_LONGEST_PLACE] or "."


def _path(one: Any, other: Any, relative: float) -> list[Any] | None:
    """The keys that lead to the first difference, the innermost first: nobody notes them where there is none."""
    if type(one) is list and type(other) is list:  # mostly: in half the time that it takes to get to its case
        return _first(zip(count(), one, other), relative) if len(one) == len(other) else []
    match one, other:
        case (bool(), _) | (_, bool()) | (None, _) | (_, None):
            same = one is other
        case (int(), int()):
            same = one == other
        case (int() | float(), int() | float()):
            same = isclose(one, other, rel_tol=relative, abs_tol=ABSOLUTE) or (one != one and other != other)
        case (dict(), dict()) if one.keys() == other.keys():
            return _first(((key, one[key], other[key]) for key in one), relative)
        case (Floats(), Floats()) if len(one.values) == len(other.values):
            values = zip(range(len(one.values)), one.values, other.values, strict=True)
            return _first(values, max(relative, one.least_relative))
        case (Floats(), Floats()):
            same = False
        case _:
            same = type(one) is type(other) and one == other
    return None if same else []


def _first(pairs: Any, relative: float) -> list[Any] | None:
    for key, one, other in pairs:
        kind = type(one)
        if kind is type(other):  # and, as nearly always, they are the same: 0.2 µs instead of 2
            if kind is float and isclose(one, other, rel_tol=relative, abs_tol=ABSOLUTE):
                continue
            if kind in _EXACT and one == other:
                continue
            if not one and not other:
                continue
        if (path := _path(one, other, relative)) is not None:
            path.append(key)
            return path
    return None
