"""Keys and times in words: what JSON and messages hold for them.

Python's own types do not hold all times of Arrow (nanoseconds, the year 300000, zones of which this
machine has no table), so none is made.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .cells import decoded, is_text

_SHOWN = 100
"""Characters of a text that a message shows."""
_ROWS_AT_ONCE = 1 << 20


def spell(column: pa.ChunkedArray) -> list[Any]:
    """Return keys as JSON has them, null as None.

    Dates and times are text of ISO 8601; a float that JSON has no number for is text as well.

    Example:
        >>> import pyarrow as pa
        >>> spell(pa.chunked_array([pa.array([0, 10**18], pa.timestamp("ns", "Asia/Tokyo"))]))
        ['1970-01-01T00:00:00Z', '2001-09-09T01:46:40Z']
    """
    return speller(column)(column)


def speller(column: pa.ChunkedArray) -> Callable[[pa.ChunkedArray], list[Any]]:
    """Return what spells any part of a column as ``spell`` does the whole of it."""
    type_ = decoded(column.type)
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        unit = _coarsest(column)
        return lambda part: _iso(_decoded(part), unit)
    return _spell


def _spell(column: pa.ChunkedArray) -> list[Any]:
    column = _decoded(column)
    type_ = column.type
    if pa.types.is_floating(type_):
        return [
            key if key is None or math.isfinite(key) else _name(key) for key in column.to_pylist()
        ]
    if pa.types.is_duration(type_):
        whole = pa.chunked_array([chunk.view(pa.int64()) for chunk in column.chunks], pa.int64())
        return [None if n is None else f"{n} {type_.unit}" for n in whole.to_pylist()]
    if pa.types.is_decimal(type_) or pa.types.is_time(type_):
        column = column.cast(pa.string())
    return column.to_pylist()  # type: ignore[no-any-return]


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return keys of a dictionary as they are without one; to_pylist() does that for text."""
    if pa.types.is_dictionary(column.type) and not is_text(column.type.value_type):
        return column.cast(column.type.value_type)
    return column


def spell_cell(column: pa.ChunkedArray, row: int) -> str:
    """Return one key for a message: text in quotes, anything else as it is.

    Example:
        >>> import pyarrow as pa
        >>> spell_cell(pa.chunked_array([["a"]]), 0), spell_cell(pa.chunked_array([[7]]), 0)
        ("'a'", '7')
    """
    (key,) = spell(column.slice(row, 1))
    if not is_text(decoded(column.type)):
        return str(key)
    return repr(key) if len(key) <= _SHOWN else f"{key[:_SHOWN]!r}..."


def spell_series(keys: pa.Table, series: int) -> str:
    """Return the key of a series for a message.

    Example:
        >>> import pyarrow as pa
        >>> spell_series(pa.table({"unique_id": ["a"], "cutoff": [7]}), 0)
        "unique_id='a', cutoff=7"
    """
    named = zip(keys.column_names, keys.columns, strict=True)
    return ", ".join(f"{name}={spell_cell(column, series)}" for name, column in named)


def _name(key: float) -> str:
    """Name a float that is not finite as JavaScript does."""
    return "NaN" if math.isnan(key) else "Infinity" if key > 0 else "-Infinity"


def _coarsest(column: pa.ChunkedArray) -> str:
    """Return the unit that holds all times of a column exactly: days, seconds or less."""
    is_date = pa.types.is_date(decoded(column.type))
    units = ["D", "ms"] if is_date else ["s", "ms", "us", "ns"]
    for start in range(0, len(column), _ROWS_AT_ONCE):
        moments, _ = _moments(_decoded(column.slice(start, _ROWS_AT_ONCE)))
        while len(units) > 1 and (moments.astype(f"datetime64[{units[0]}]") != moments).any():
            del units[0]
    return units[0]


def _moments(column: pa.ChunkedArray) -> tuple[NDArray[np.datetime64], pa.ChunkedArray]:
    """Return dates and times for numpy, and the same as whole numbers, in which nulls are null."""
    type_ = column.type
    unit = {pa.date32(): "D", pa.date64(): "ms"}.get(type_) or type_.unit
    integer = pa.int32() if unit == "D" else pa.int64()
    whole = pa.chunked_array([chunk.view(integer) for chunk in column.chunks], integer)
    numbers = whole.fill_null(0).to_numpy()
    return numbers.astype(np.int64).view(f"datetime64[{unit}]"), whole


def _iso(column: pa.ChunkedArray, unit: str) -> list[Any]:
    """Write dates and times; those of a zone in UTC, so that no table of zones is needed."""
    moments, whole = _moments(column)
    zone = "Z" if pa.types.is_timestamp(column.type) and column.type.tz else ""
    written = np.datetime_as_string(moments.astype(f"datetime64[{unit}]"))
    texts: list[Any] = [f"{text}{zone}" for text in written.tolist()]
    for row in np.flatnonzero(whole.is_null().to_numpy()) if whole.null_count else ():
        texts[row] = None
    return texts
