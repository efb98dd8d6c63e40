"""Answers to JSON."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

_AT_ONCE = 1 << 14
"""Elements that are written without letting other threads run."""


def write(document: dict[str, Any], elements: int) -> list[memoryview]:
    """Write an answer, in parts if it is long.

    A loss or gradient that is NaN or infinite is null, as JSON has neither.

    Args:
        document: Arrays, lists of them, texts, and objects of all of these.
        elements: The most numbers there are in a column.
    """
    if elements <= _AT_ONCE:
        return [memoryview(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY))]
    return [memoryview(piece) for piece in _pieces(document, elements)]


def _pieces(value: Any, elements: int) -> Iterator[bytes | memoryview]:
    """Write a long answer piece by piece, as orjson lets no other thread run meanwhile.

    Args:
        value: A column, the rows of one, a text, or an object of them.
        elements: The most numbers there are in a column.
    """
    if isinstance(value, str):
        yield orjson.dumps(value)
        return
    step = len(value) * _AT_ONCE // elements
    if isinstance(value, dict):
        for i, (name, column) in enumerate(value.items()):
            yield b"%b%b:" % (b"," if i else b"{", orjson.dumps(name))
            yield from _pieces(column, elements)
        yield b"}" if value else b"{}"
    elif step == 0 and isinstance(value[0], np.ndarray):  # long rows
        for i, row in enumerate(value):
            yield b"," if i else b"["
            yield from _pieces(row, row.size)
        yield b"]"
    else:
        for start in range(0, len(value), max(step, 1)):
            yield b"," if start else b"["
            part = value[start : start + max(step, 1)]
            yield memoryview(orjson.dumps(part, option=orjson.OPT_SERIALIZE_NUMPY))[1:-1]
        yield b"]"
