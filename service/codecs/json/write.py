"""Answers to JSON."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson

_PIECE_ELEMENTS = 1 << 14
"""Elements that are written without letting other threads run."""
_PIECE_BYTES = 1 << 20
"""The most bytes of an answer that is."""
_ROWS_AT_ONCE = 1 << 10
"""The most rows of a column that are: names may be long."""


def write(
    document: dict[str, Any],
    elements: int,
    size: int = 0,
    check: Callable[[], None] = lambda: None,
) -> list[memoryview]:
    """Write an answer, in parts if it is long.

    A loss or gradient that is NaN or infinite is null, as JSON has neither.

    Args:
        document: Arrays, lists, sequences that make a list of each slice, and objects of them.
        elements: The most numbers there are in a column.
        size: About the bytes of the answer.
        check: Called between parts; may raise.
    """
    if elements <= _PIECE_ELEMENTS and size <= _PIECE_BYTES:
        return [memoryview(orjson.dumps(document, _whole, orjson.OPT_SERIALIZE_NUMPY))]
    parts = []
    for part in _pieces(document, elements):
        check()
        parts.append(memoryview(part))
    return parts


def _whole(rows: Any) -> Any:
    return rows[:]


def _pieces(value: Any, elements: int) -> Iterator[bytes | memoryview]:
    """Write a long answer piece by piece, as orjson lets no other thread run meanwhile.

    Args:
        value: A column, the rows of one, a text, or an object of them.
        elements: The most numbers there are in a column.
    """
    if isinstance(value, dict):
        for i, (name, column) in enumerate(value.items()):
            yield b"%b%b:" % (b"," if i else b"{", orjson.dumps(name))
            yield from _pieces(column, elements)
        yield b"}" if value else b"{}"
        return
    if isinstance(value, str):
        yield orjson.dumps(value)
        return
    step = len(value) * _PIECE_ELEMENTS // max(elements, 1)
    first = value[0] if len(value) else None
    if isinstance(first, dict) or (step == 0 and isinstance(first, np.ndarray)):  # long rows
        for i, row in enumerate(value):
            yield b"," if i else b"["
            yield from _pieces(row, row.size if isinstance(row, np.ndarray) else elements)
        yield b"]"
        return
    if not isinstance(value, np.ndarray):
        step = min(step, _ROWS_AT_ONCE)
    yield b"["
    for start in range(0, len(value), max(step, 1)):
        if start:
            yield b","
        part = value[start : start + max(step, 1)]
        yield memoryview(orjson.dumps(part, _whole, orjson.OPT_SERIALIZE_NUMPY))[1:-1]
    yield b"]"
