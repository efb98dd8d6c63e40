"""Arrow list columns to flat values and offsets."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loss_scoring.core.table import array_of, as_type, holds_numbers, one_array
from loss_scoring.service.codecs.request import check_elements
from loss_scoring.service.errors import Faults

_FLOATS = (pa.float32(), pa.float64())


class Side(NamedTuple):
    """One column of series, flat.

    Attributes:
        flat: All elements, numbers of any type.
        raw: The offsets of its lists as they were sent.
        offsets: Where each series starts and ends among the elements.
        channels: How many numbers a step has; 0 where it is one number and not a list.
    """

    flat: pa.Array
    raw: NDArray[np.integer[Any]]
    offsets: NDArray[np.int64]
    channels: int

    def numbers(self, type_: pa.DataType) -> NDArray[Any]:
        """Return the elements as floats or doubles, in place if that is what they are."""
        return array_of(as_type(self.flat, type_))

    def copied_bytes(self, type_: pa.DataType) -> int:
        """Return the bytes that ``numbers`` takes at most at once, beside the elements."""
        copies = (self.flat.type != type_) + (self.flat.null_count > 0)
        entries = len(self.flat.dictionary) if pa.types.is_dictionary(self.flat.type) else 0
        return int((copies * len(self.flat) + entries) * type_.byte_width)


def flatten(  # noqa: PLR0913 - limits and ids, all with a default
    name: str,
    column: pa.ChunkedArray,
    like: Side | None = None,
    *,
    max_elements: int = sys.maxsize,
    ids: Sequence[int | str] | pa.Array | None = None,
    reserve: Callable[[int], None] = lambda _size: None,
) -> Side:
    """Return a column of lists as flat values and offsets, in place where the layout allows it.

    Args:
        name: Of the column, for errors.
        column: Lists of numbers, or of rows of numbers.
        like: A side whose offsets are taken over if these are the same.
        max_elements: The most elements: nulls, runs and views may be far more than what was sent.
        ids: Of the series, for errors; by default their positions.
        reserve: Called with the bytes of a copy before it is made.

    Raises:
        InvalidError: If a series is null or empty.
        TooLargeError: If it has more than ``max_elements`` elements.
    """
    if column.num_chunks > 1:
        reserve(column.nbytes)
    array = one_array(column)
    ids = range(len(array)) if ids is None else ids
    faults = Faults()
    check_nulls(name, array, faults, ids)
    faults.check()
    channels = _channels(array.type)
    raw, flat = _unnest(array, max(channels, 1), max_elements, reserve)
    if channels:
        if flat.null_count:
            faults.add(f"/{name}", f"{flat.null_count} rows of its series are null")
            faults.check()
        flat = flat.flatten()
    if like is not None and like.channels == channels and np.array_equal(raw, like.raw):
        return like._replace(flat=flat)
    offsets = np.subtract(raw, raw[0], dtype=np.int64)
    faults.add_each(
        np.flatnonzero(offsets[1:] == offsets[:-1]),
        lambda row: (
            f"/{name}/{row}",
            f"of series {ids[row]} is empty: a series has at least one element",
        ),
    )
    faults.check()
    return Side(flat, raw, offsets * max(channels, 1), channels)


def _unnest(
    array: pa.Array, width: int, max_elements: int, reserve: Callable[[int], None]
) -> tuple[NDArray[np.integer[Any]], pa.Array]:
    """Return the offsets of lists, and their items one after another: each of some elements."""
    if pa.types.is_fixed_size_list(array.type):
        check_elements(len(array) * array.type.list_size * width, max_elements)
        raw = np.arange(len(array) + 1, dtype=np.int64) * array.type.list_size
        return raw, array.flatten()
    if _is_view(array.type):
        raw = np.concatenate([[0], np.cumsum(array.sizes.to_numpy(), dtype=np.int64)])
        check_elements(elements := int(raw[-1]) * width, max_elements)
        reserve(elements * _item_bytes(_element_type(array.type)))
        return raw, array.flatten()
    raw = array.offsets.to_numpy() if len(array) else np.zeros(1, np.int64)
    check_elements(int(raw[-1] - raw[0]) * width, max_elements)
    return raw, array.values.slice(raw[0], raw[-1] - raw[0])  # flatten() does it at more cost


def gradient_type(prediction: pa.DataType, computed: pa.DataType) -> pa.DataType:
    """Return the type of a gradient column.

    Args:
        prediction: That of the column of predictions; if it holds floats or doubles, it is this.
        computed: What is computed in. Gradients of other numbers are of this type, in lists of the
            same kind (plain ones in place of views). Names and metadata within it are left out, so
            that there are few such types.
    """
    inner = prediction.value_type
    if _is_fixed(inner):
        item = gradient_type(inner, computed)
    elif inner in _FLOATS:
        item = inner
    else:
        item = computed
    field = pa.field("item", item, prediction.value_field.nullable)
    if pa.types.is_fixed_size_list(prediction):
        return pa.list_(field, prediction.list_size)
    is_large = pa.types.is_large_list(prediction) or pa.types.is_large_list_view(prediction)
    return pa.large_list(field) if is_large else pa.list_(field)


def is_series(type_: pa.DataType) -> bool:
    """Tell whether a column of this type holds series."""
    return _is_list(type_) and holds_numbers(_element_type(type_))


def check_nulls(
    name: str, array: pa.Array, faults: Faults, ids: Sequence[int | str] | pa.Array = ()
) -> None:
    """Note every row that is null."""
    if array.null_count:
        rows = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))
        named = len(ids) > 0
        faults.add_each(
            rows,
            lambda row: (f"/{name}/{row}", f"of series {ids[row]} is null" if named else "is null"),
        )


def _is_fixed(type_: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(type_) and type_.list_size > 0)


def _is_view(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(type_) or pa.types.is_large_list_view(type_))


def _is_list(type_: pa.DataType) -> bool:
    return (
        pa.types.is_list(type_)
        or pa.types.is_large_list(type_)
        or _is_fixed(type_)
        or _is_view(type_)
    )


def _channels(type_: pa.DataType) -> int:
    inner = type_.value_type
    return int(inner.list_size) if _is_fixed(inner) else 0


def _item_bytes(type_: pa.DataType) -> int:
    """Return about how many bytes an element takes, coded or not."""
    is_plain = pa.types.is_primitive(type_) or pa.types.is_decimal(type_)
    return int(type_.byte_width) if is_plain else 8


def _element_type(type_: pa.DataType) -> pa.DataType:
    """Return the type of the elements of lists, or of the rows of channels in them."""
    inner = type_.value_type
    return inner.value_type if _is_fixed(inner) else inner
