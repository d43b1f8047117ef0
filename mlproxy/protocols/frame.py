"""Several texts as one. **Pure.**

`frame` is how the rows of a request with several arrays travel between worker and batcher: their number, the length of
each array's text, the texts. `pack` is the same without a number, for keys. How many texts there are the reader knows.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

from mlproxy.protocols.codec import Text


def frame(count: int, texts: Sequence[Text]) -> bytes:
    """The items of a request with ``count`` rows."""
    return b"".join((_numbers(1 + len(texts)).pack(count, *map(len, texts)), *texts))


def unframe(items: Text, arrays: int) -> tuple[int, list[Text]]:
    """The other end of `frame`: rows, and the text of each of so many arrays."""
    numbers = _numbers(1 + arrays)
    count, *lengths = numbers.unpack_from(items)
    return count, _split(items, numbers.size, lengths)


def pack(texts: Sequence[Text]) -> bytes:
    """One text of several: two of these are equal only where each of their texts is."""
    return b"".join((_numbers(len(texts)).pack(*map(len, texts)), *texts))


def unpack(packed: Text, texts: int) -> list[Text]:
    """The other end of `pack`."""
    numbers = _numbers(texts)
    return _split(packed, numbers.size, numbers.unpack_from(packed))


def _split(text: Text, end: int, lengths: Sequence[int]) -> list[Text]:
    view = memoryview(text)
    texts: list[Text] = []
    for length in lengths:
        start, end = end, end + length
        texts.append(view[start:end])
    return texts


@lru_cache(maxsize=64)
def _numbers(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}Q")
