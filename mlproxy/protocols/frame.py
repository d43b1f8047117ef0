"""How the rows of a request with several arrays travel between worker and batcher. **Pure.**

Their number, the length of each array's text, the texts. How many arrays there are is in the lane key.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

from mlproxy.protocols.codec import Text


def frame(count: int, texts: Sequence[Text]) -> bytes:
    """The items of a request with ``count`` rows."""
    return b"".join((_index(len(texts)).pack(count, *map(len, texts)), *texts))


def unframe(items: Text, arrays: int) -> tuple[int, list[Text]]:
    """The other end of `frame`: rows, and the text of each of so many arrays."""
    index = _index(arrays)
    count, *lengths = index.unpack_from(items)
    view, end = memoryview(items), index.size
    texts: list[Text] = []
    for length in lengths:
        start, end = end, end + length
        texts.append(view[start:end])
    return count, texts


@lru_cache(maxsize=64)
def _index(arrays: int) -> struct.Struct:
    return struct.Struct(f"<{arrays + 1}Q")
