"""Arrow columns of numbers to tensors, in place where the layout allows it."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """Join the chunks of a column; a single one is returned as it is."""
    if column.num_chunks == 1:
        return column.chunk(0)
    if not pa.types.is_dictionary(column.type):
        return column.combine_chunks()
    names = column.type.value_type
    if column.num_chunks == 0:  # combine_chunks cannot make an empty dictionary of views
        return pa.DictionaryArray.from_arrays(pa.array([], pa.int64()), pa.array([], names))
    # Together the dictionaries of the batches can outgrow an index type that holds each.
    return column.cast(pa.dictionary(pa.int64(), names)).combine_chunks()


def tensor_of(flat: pa.Array) -> Tensor:
    """View floats or doubles as a tensor; a null becomes NaN, which needs a copy."""
    if flat.null_count:
        flat = pc.fill_null(flat, float("nan"))
    if len(flat) == 0:
        return torch.empty(0, dtype=torch.float32 if flat.type == pa.float32() else torch.float64)
    if flat.buffers()[1].address % flat.type.byte_width:
        return torch.from_numpy(flat.to_numpy().copy())
    return torch.from_dlpack(flat)  # type: ignore[attr-defined]


def tensor_of_column(
    column: pa.ChunkedArray, type_: pa.DataType, order: NDArray[np.int64] | None = None
) -> Tensor:
    """Return a column of numbers as a tensor.

    Args:
        column: Of any type that ``holds_numbers``; an integer that has no double is rounded.
        type_: float or double.
        order: Which row each element is from; None if it is its own, which needs no copy.
    """
    if column.type != type_:
        column = column.cast(type_, safe=False)
    values = tensor_of(one_array(column))
    return values if order is None else values[torch.from_numpy(order)]
