"""Arrow columns of numbers to tensors, in place where the layout allows it."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

_SMALL = {
    pa.float32(),
    pa.float16(),
    pa.int8(),
    pa.uint8(),
    pa.int16(),
    pa.uint16(),
}
"""What a float holds exactly."""


def narrowest(types: Iterable[pa.DataType]) -> pa.DataType:
    """Return float if it holds the numbers of all types exactly, else double."""
    kinds = {decoded(type_) for type_ in types} - {pa.null()}
    return pa.float32() if kinds and kinds <= _SMALL else pa.float64()


def decoded(type_: pa.DataType) -> pa.DataType:
    """Return the type of the values that a dictionary or runs code; any other as it is."""
    while pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        type_ = type_.value_type
    return type_


def as_type(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """Return numbers of any type as floats or doubles; what has no such float is rounded."""
    if pa.types.is_dictionary(array.type):
        return as_type(array.dictionary, type_).take(array.indices)
    if pa.types.is_run_end_encoded(array.type):
        return as_type(pc.run_end_decode(array), type_)
    return array if array.type == type_ else array.cast(type_, safe=False)


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """Join the chunks of a column; a single one is returned as it is."""
    if column.num_chunks == 1:
        return column.chunk(0)
    if not pa.types.is_dictionary(column.type):
        return column.combine_chunks() if column.num_chunks else pa.nulls(0, column.type)
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
        column: Of any type that ``holds_numbers``; an integer or decimal that has no double is
            rounded.
        type_: float or double.
        order: Which row each element is from; None if it is its own, which needs no copy.
    """
    if column.type != type_:
        column = pa.chunked_array([as_type(chunk, type_) for chunk in column.chunks], type_)
    values = tensor_of(one_array(column))
    if order is None:
        return values
    # By numpy, on one thread: torch's threads hang in a child that was forked after they ran.
    return torch.from_numpy(np.take(values.numpy(), order))
