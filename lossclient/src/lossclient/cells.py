"""A column of any frame as Arrow's: as numbers, as text, or as keys that are compared by value.

Arrow takes most columns as they are. The rest are arrays of Python objects (pandas' ``object``,
polars' ``Object``) and the types of numpy and pandas that Arrow lacks: sparse, big-endian, long
double, categories of several types.
"""

import math
from collections.abc import Callable, Iterable
from decimal import Decimal
from numbers import Real
from typing import Any, TypeAlias

import narwhals as nw
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lossclient.forecasts import Floats
from lossclient.joining.cells import HELD_BY_FLOAT, decoded, holds_numbers, is_text

Objects = npt.NDArray[np.object_]
Cells: TypeAlias = pa.ChunkedArray | Objects
Frame = nw.DataFrame[Any]

_COMPARED_AS = (
    (pa.types.is_string, pa.large_string()),  # one array holds at most 2 GiB of strings
    (pa.types.is_string_view, pa.large_string()),
    (pa.types.is_binary, pa.large_binary()),
    (pa.types.is_binary_view, pa.large_binary()),
    (pa.types.is_float16, pa.float32()),
    (pa.types.is_null, pa.int8()),  # of no rows, or each is found to be null
)
_FLOATS = (float, np.floating, Decimal)
"""Objects of which one may be NaN."""
_MISSING = {"NoneType", "NAType", "NaTType"}
"""Types of objects that are no values; pandas' go by name, as it is not needed here."""
_UNREADABLE = (pa.ArrowException, TypeError, ValueError, OverflowError)


def cells_of(frame: Frame, name: str) -> Cells:
    """Return a column as Arrow has it, or as objects where Arrow has no such type."""
    column = frame[name]
    if frame.implementation.is_pandas_like():
        return _of_pandas(column.to_pandas())
    if column.dtype != nw.Object:  # of polars, which would export the addresses of objects
        try:
            is_arrow = frame.implementation.is_pyarrow()
            return _chunked(column.to_native() if is_arrow else column.to_arrow())
        except _UNREADABLE:  # integers of 128 bits
            pass
    return _objects(column.to_list())


def _of_pandas(series: Any) -> Cells:
    if series.dtype == object:
        return np.asarray(series, object)
    try:
        return _chunked(pa.Array.from_pandas(series))
    except _UNREADABLE:
        values = np.asarray(series)
    if values.dtype.kind in "fiu":  # sparse, big-endian, long double
        native = values.astype(values.dtype.newbyteorder("=") if values.itemsize <= 8 else float)
        return _chunked(pa.array(native, from_pandas=True))
    return values.astype(object)


def content(cells: Cells) -> str:
    """Return what a column holds, for an error."""
    if isinstance(cells, pa.ChunkedArray):
        return str(decoded(cells.type))
    names = sorted(type_.__name__ for type_ in _types_of(cells))
    return f"objects ({', '.join(names[:5])})"


def is_mixed(cells: Cells) -> bool:
    """Whether a column holds objects of several types."""
    return not isinstance(cells, pa.ChunkedArray) and len(_types_of(cells)) > 1


def is_nested(cells: Cells) -> bool:
    """Whether a column holds lists or the like."""
    if isinstance(cells, pa.ChunkedArray):
        return bool(pa.types.is_nested(cells.type))
    return not _types_of(cells).isdisjoint({list, tuple, np.ndarray})


def numbers_in(cells: Cells) -> pa.ChunkedArray | None:
    """Return a column of numbers without dictionaries and runs, None if it holds anything else.

    Text is no number.
    """
    return _decode_any(cells, holds_numbers)


def texts_in(cells: Cells) -> pa.ChunkedArray | None:
    """Return a column of text, which may be among numbers; None if it holds anything else."""
    texts = _decode_any(cells, is_text)
    return None if texts is None else texts.cast(pa.large_string())


def keys_in(cells: Cells) -> pa.Array | None:
    """Return a column whose cells Arrow compares as Python does, None if it cannot.

    Objects of one type or of several may become equal in Arrow (a date and the times of that day,
    times that differ in nanoseconds), so that they are counted on both sides. All nulls are
    counted: a dictionary and runs count none of their own where their values hold one.
    """
    is_arrow = isinstance(cells, pa.ChunkedArray)
    try:
        column = _decode(cells if is_arrow else _chunked(pa.array(cells, from_pandas=True)))
        if isinstance(column.type, pa.BaseExtensionType):  # pandas' periods, for one
            column = column.cast(column.type.storage_type)
        for is_type, type_ in _COMPARED_AS:
            if is_type(column.type):
                column = column.cast(type_)
        keys = column.combine_chunks()
        if pa.types.is_nested(keys.type):
            return None
        if not is_arrow and not pa.types.is_large_string(keys.type):
            distinct = len({value for value in cells if not _is_missing(value)})
            if distinct != len(keys.drop_null().unique()):
                return None
    except _UNREADABLE:
        return None
    return keys


def floats_of(numbers: pa.ChunkedArray, *, narrow: bool = True) -> Floats:
    """Return numbers as floats, a null as NaN; without a copy where that may be.

    Args:
        numbers: As `numbers_in` returns them.
        narrow: Whether small integers, which float32 holds exactly, become that; others become
            float64, and floats stay what they are.

    Example:
        >>> floats_of(pa.chunked_array([pa.array([1, None], pa.int16())]))
        array([ 1., nan], dtype=float32)
    """
    if not pa.types.is_float32(numbers.type) and not pa.types.is_float64(numbers.type):
        is_half = pa.types.is_float16(numbers.type)
        is_narrow = is_half or (narrow and numbers.type in HELD_BY_FLOAT)
        numbers = numbers.cast(pa.float32() if is_narrow else pa.float64(), safe=False)
    return numbers.to_numpy()  # type: ignore[no-any-return]


def array_of(objects: Iterable[Any]) -> pa.ChunkedArray | None:
    """Return Python's numbers as Arrow's, None if there is anything else; None and NA are null."""
    return numbers_in(_objects(list(objects)))


def _decode(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column without dictionaries and runs.

    Example:
        >>> _decode(pa.chunked_array([pa.array(["a", "a"]).dictionary_encode()])).type
        DataType(string)
    """
    while column.type != decoded(column.type):
        type_, chunks = column.type.value_type, column.chunks
        if pa.types.is_run_end_encoded(column.type):
            column = pa.chunked_array([pc.run_end_decode(chunk) for chunk in chunks], type_)
        elif isinstance(type_, pa.BaseExtensionType):  # Arrow has no cast to those
            taken = [chunk.dictionary.take(chunk.indices) for chunk in chunks]
            column = pa.chunked_array(taken, type_)
        else:
            column = column.cast(type_)
    return column


def _decode_any(cells: Cells, is_type: Callable[[pa.DataType], bool]) -> pa.ChunkedArray | None:
    """Return a column without dictionaries and runs, None if it is not of a type."""
    column = _of_objects(cells) if isinstance(cells, np.ndarray) else cells
    if column is None or not is_type(decoded(column.type)):
        return None
    return _decode(column)


def _chunked(array: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


def _objects(values: list[Any]) -> Objects:
    return np.fromiter(values, object, len(values))


def _of_objects(objects: Objects) -> pa.ChunkedArray | None:
    """Return objects that are numbers as numbers, and those among which is text as text."""
    types = _types_of(objects)
    if types & {bool, np.bool_} and len(types) > 1:
        return None  # Arrow takes True for 1
    try:
        return _chunked(pa.array(objects, from_pandas=True))
    except _UNREADABLE:
        if all(issubclass(type_, Real | Decimal) for type_ in types):
            floats = [math.nan if _is_missing(value) else _float(value) for value in objects]
            return _chunked(pa.array(floats, pa.float64()))
    if all(issubclass(type_, str | Real | Decimal) for type_ in types):
        texts = [None if _is_missing(value) else str(value) for value in objects]
        return _chunked(pa.array(texts, pa.large_string()))
    return None


def _float(number: Any) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.copysign(math.inf, number > 0 or -1)


def _types_of(objects: Objects) -> set[type]:
    """Return the types of the cells that have a value."""
    types = {type_ for type_ in set(map(type, objects)) if type_.__name__ not in _MISSING}
    floats = {type_ for type_ in types if issubclass(type_, _FLOATS)}
    if floats == types:
        return types
    return types - floats | {type(cell) for cell in objects if not _is_missing(cell)} & floats


def _is_missing(value: Any) -> bool:
    """Whether a cell has no value, as pandas and Arrow see it."""
    if type(value).__name__ in _MISSING:
        return True
    return isinstance(value, _FLOATS) and value != value  # noqa: PLR0124
