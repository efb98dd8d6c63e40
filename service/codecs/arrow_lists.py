"""Arrow list columns to flat values and offsets, and flat gradients back to list columns."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from core.table import one_array, tensor_of
from service.codecs.request import ScoreRequest
from service.errors import Faults

_FLOATS = (pa.float32(), pa.float64())


class Side(NamedTuple):
    """One column of series, flat.

    Attributes:
        values: All elements.
        raw: The offsets of its lists as they were sent.
        offsets: Where each series starts and ends among the elements.
        channels: How many numbers a step has; 0 where it is one number and not a list.
    """

    values: torch.Tensor
    raw: npt.NDArray[np.integer[Any]]
    offsets: npt.NDArray[np.int64]
    channels: int


def flatten(name: str, column: pa.ChunkedArray, like: Side | None = None) -> Side:
    """Return a column of lists as flat values and offsets, in place where the layout allows it.

    Args:
        name: Of the column, for errors.
        column: Lists of numbers, or of rows of numbers.
        like: A side whose offsets are taken over if these are the same.

    Raises:
        InvalidError: If a series is null or empty.
    """
    array = one_array(column)
    faults = Faults()
    check_nulls(name, array, faults)
    faults.check()
    if pa.types.is_fixed_size_list(array.type):
        raw = np.arange(len(array) + 1, dtype=np.int64) * array.type.list_size
        flat = array.flatten()
    else:
        raw = array.offsets.to_numpy() if len(array) else np.zeros(1, np.int64)
        flat = array.values.slice(raw[0], raw[-1] - raw[0])  # flatten() does it at more cost
    channels = flat.type.list_size if pa.types.is_fixed_size_list(flat.type) else 0
    if channels:
        if flat.null_count:
            faults.add(f"/{name}", f"{flat.null_count} rows of its series are null")
            faults.check()
        flat = flat.flatten()
    if like is not None and like.channels == channels and np.array_equal(raw, like.raw):
        return like._replace(values=tensor_of(flat))
    offsets = np.subtract(raw, raw[0], dtype=np.int64)
    faults.add_each(
        np.flatnonzero(offsets[1:] == offsets[:-1]),
        lambda row: (f"/{name}/{row}", "is empty: a series has at least one element"),
    )
    faults.check()
    if channels:
        offsets *= channels
    return Side(tensor_of(flat), raw, offsets, channels)


def gradient_column(request: ScoreRequest, flat: npt.NDArray[Any]) -> pa.Array:
    """Lay a flat gradient out as the prediction was."""
    channels = _gradient_channels(request)
    offsets = request.prediction.edges // (channels or 1)
    type_ = request.gradient_type
    narrow = type_ is not None and _element_type(type_) == pa.float32()
    if narrow and flat.dtype != np.float32:
        limit = np.finfo(np.float32).max
        flat = flat.clip(-limit, limit).astype(np.float32)
    values = pa.array(flat)
    if channels:
        inner = pa.list_(values.type, channels) if type_ is None else type_.value_type
        values = pa.FixedSizeListArray.from_arrays(values, type=inner)
    if type_ is None:
        type_ = pa.large_list(values.type)
    if pa.types.is_fixed_size_list(type_):
        return pa.FixedSizeListArray.from_arrays(values, type=type_)
    if pa.types.is_list(type_):
        return pa.ListArray.from_arrays(offsets.astype(np.int32), values, type=type_)
    return pa.LargeListArray.from_arrays(offsets, values, type=type_)


def is_series(type_: pa.DataType) -> bool:
    """Tell whether a column of this type holds series."""
    if not _is_list(type_):
        return False
    inner = type_.value_type
    return inner in _FLOATS or (_is_fixed(inner) and inner.value_type in _FLOATS)


def check_nulls(name: str, array: pa.Array, faults: Faults) -> None:
    """Note every row that is null."""
    if array.null_count:
        rows = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))
        faults.add_each(rows, lambda row: (f"/{name}/{row}", "is null"))


def _is_fixed(type_: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(type_) and type_.list_size > 0)


def _is_list(type_: pa.DataType) -> bool:
    return pa.types.is_list(type_) or pa.types.is_large_list(type_) or _is_fixed(type_)


def _gradient_channels(request: ScoreRequest) -> int:
    """Return the width of every series' rows, 0 if they are plain or their widths differ."""
    if request.gradient_type is not None:  # says it even where there is no series
        inner = request.gradient_type.value_type
        return int(inner.list_size) if _is_fixed(inner) else 0
    widths = set() if request.channels is None else set(request.channels.tolist())
    return widths.pop() if len(widths) == 1 else 0


def _element_type(type_: pa.DataType) -> pa.DataType:
    while _is_list(type_):
        type_ = type_.value_type
    return type_
