"""Whether two answers to one request say the same. **Pure.**

Numbers may differ by a tolerance: a model that adds up in another order, as it does for a batch, gets other last
digits. Everything else must be equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isclose
from typing import Any

import msgspec
import numpy
import orjson

from mlproxy.protocols.codec import Text

#: Below this a difference is none: next to nothing, as of a probability that is 0, has no relative tolerance.
ABSOLUTE = 1e-6
#: Of the types with few digits: what four units in the last place are, relatively.
_LEAST_RELATIVE = {"FP16": 4 * 2.0**-10, "BF16": 4 * 2.0**-7}
_FLOATS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BF16": "<u2"}
_LONGEST_PLACE = 200


class Floats(msgspec.Struct):
    """The numbers of a tensor."""

    values: numpy.ndarray[Any, numpy.dtype[numpy.float64]]
    least_relative: float  #: tolerance that their type needs


def decoded(items: Sequence[bytes]) -> list[Any]:
    """Items in JSON, as values."""
    return [orjson.loads(item) for item in items]


def tensor_values(datatype: str, data: Text, *, binary: bool) -> Floats | bytes:
    """The rows of a tensor: numbers if it has any after a point, else bytes that are equal when the rows are."""
    if datatype not in _FLOATS:
        return bytes(data) if binary else orjson.dumps(_list(data))
    if not binary:
        values = numpy.array(_list(data), dtype=numpy.float64)
    elif datatype == "BF16":  # the upper half of an FP32
        halves = numpy.frombuffer(data, _FLOATS[datatype]).astype(numpy.uint32)
        values = (halves << 16).view(numpy.float32).astype(numpy.float64)
    else:
        values = numpy.frombuffer(data, _FLOATS[datatype]).astype(numpy.float64)
    return Floats(values, _LEAST_RELATIVE.get(datatype, 0.0))


def _list(inside: Text) -> Any:
    return orjson.loads(b"".join((b"[", inside, b"]")))


def difference(one: Any, other: Any, relative: float, place: str = "") -> str | None:
    """Where the first difference is, for a log line: keys and positions, never what stands there. None: nowhere."""
    match one, other:
        case (bool(), _) | (_, bool()) | (None, _) | (_, None):
            same = one is other
        case (int() | float(), int() | float()):
            same = isclose(one, other, rel_tol=relative, abs_tol=ABSOLUTE)
        case (dict(), dict()) if one.keys() == other.keys():
            return _first(((key, one[key], other[key]) for key in one), relative, place)
        case (list(), list()) if len(one) == len(other):
            return _first(zip(range(len(one)), one, other, strict=True), relative, place)
        case (Floats(), Floats()):
            same = one.values.shape == other.values.shape and bool(
                numpy.isclose(
                    one.values, other.values, max(relative, one.least_relative), ABSOLUTE, equal_nan=True
                ).all()
            )
        case _:
            same = type(one) is type(other) and one == other
    return None if same else place[:_LONGEST_PLACE] or "."


def _first(pairs: Any, relative: float, place: str) -> str | None:
    for key, one, other in pairs:
        if (found := difference(one, other, relative, f"{place}[{key!r}]")) is not None:
            return found
    return None
