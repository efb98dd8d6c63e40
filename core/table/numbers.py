"""Arrow columns of numbers to arrays, in place where the layout allows it."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from loss_scoring.core.table.joining.cells import HELD_BY_FLOAT, as_type, decoded, one_array


def narrowest(types: Iterable[pa.DataType]) -> pa.DataType:
    """Return float if it holds the numbers of all types exactly, else double."""
    kinds = {decoded(type_) for type_ in types} - {pa.null()}
    return pa.float32() if kinds and kinds <= HELD_BY_FLOAT else pa.float64()


class _Memory:
    """Numbers of Arrow for numpy, which takes them as its own and keeps them as long as needed.

    pyarrow would mark them as read-only, for which kernels have no code.
    """

    def __init__(self, flat: pa.Array) -> None:
        self.flat = flat
        width = flat.type.byte_width
        self.__array_interface__ = {
            "data": (flat.buffers()[1].address + flat.offset * width, False),
            "shape": (len(flat),),
            "typestr": f"<f{width}",
            "version": 3,
        }


def array_of(flat: pa.Array) -> NDArray[Any]:
    """View floats or doubles as an array; a null becomes NaN, which needs a copy."""
    if flat.null_count:
        flat = pc.fill_null(flat, float("nan"))
    if len(flat) == 0:
        return np.empty(0, np.float32 if flat.type == pa.float32() else np.float64)
    if flat.buffers()[1].address % flat.type.byte_width:
        return np.array(flat)  # a copy
    return np.asarray(_Memory(flat))


def array_of_column(
    column: pa.ChunkedArray, type_: pa.DataType, order: NDArray[np.int64] | None = None
) -> NDArray[Any]:
    """Return a column of numbers as an array.

    Args:
        column: Of any type that ``holds_numbers``; an integer or decimal that has no double is
            rounded.
        type_: float or double.
        order: Which row each element is from; None if it is its own, which needs no copy.
    """
    if column.type != type_:
        column = pa.chunked_array([as_type(chunk, type_) for chunk in column.chunks], type_)
    values = array_of(one_array(column))
    return values if order is None else np.take(values, order)
