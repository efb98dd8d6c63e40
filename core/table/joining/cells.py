"""What is in a column: types as messages and comparisons take them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_DECIMALS = {32: pa.decimal32, 64: pa.decimal64, 128: pa.decimal128, 256: pa.decimal256}
HELD_BY_FLOAT = frozenset(
    (pa.float32(), pa.float16(), pa.int8(), pa.uint8(), pa.int16(), pa.uint16())
)
"""Types of numbers that a float of 32 bits holds exactly."""
_SHOWN = 100
"""Characters of a type that a message shows."""


def decoded(type_: pa.DataType) -> pa.DataType:
    """Return the type of the values that a dictionary or runs code; any other as it is."""
    while pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        type_ = type_.value_type
    return type_


def as_type(array: pa.Array, type_: pa.DataType, *, safe: bool = False) -> pa.Array:
    """Return values in another type, decoded; a number that it does not hold is rounded or refused.

    Raises:
        pa.ArrowInvalid: If ``safe``, and a value would change.
    """
    if pa.types.is_dictionary(array.type):  # chunks may have different dictionaries
        return as_type(array.dictionary, type_, safe=safe).take(array.indices)
    if pa.types.is_run_end_encoded(array.type):
        return as_type(pc.run_end_decode(array), type_, safe=safe)
    return array if array.type == type_ else array.cast(type_, safe=safe)


def plain_type(type_: pa.DataType) -> pa.DataType:
    """Return what Arrow can compare, sort, take and write in every format."""
    views = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    return views.get(decoded(type_), decoded(type_))


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as one that Arrow can compare, sort, take and write in every format."""
    type_ = plain_type(column.type)
    return pa.chunked_array([as_type(part, type_, safe=True) for part in column.chunks], type_)


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


def holds_numbers(type_: pa.DataType) -> bool:
    """Tell whether a column of this type can be scored; a column of nulls is all missing."""
    kinds = (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal, pa.types.is_null)
    return any(is_kind(decoded(type_)) for is_kind in kinds)


def is_text(type_: pa.DataType) -> bool:
    """Tell whether a column of this type is text without a dictionary."""
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_kind(type_) for is_kind in kinds)


def holds_text(type_: pa.DataType) -> bool:
    """Tell whether a column of this type holds text, be it coded by a dictionary."""
    return is_text(type_.value_type if pa.types.is_dictionary(type_) else type_)


def spell_type(type_: pa.DataType) -> str:
    """Return a type for a message; that of a union or struct may be long."""
    text = str(type_)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a takeable column as one that is equal where it is, and that Arrow can encode."""
    if pa.types.is_dictionary(column.type):
        # Two entries of a dictionary may be equal; and an entry may be null.
        array = column.chunk(0)
        entries = one_array(_encodable(pa.chunked_array([array.dictionary])))
        return pa.chunked_array([entries.dictionary_encode().indices.take(array.indices)])
    return _bits(column) if pa.types.is_floating(column.type) else _encodable(column)


def sortable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return keys in a type that Arrow can encode, sort and take."""
    column = plain(column)
    type_ = column.type
    if pa.types.is_floating(type_):  # 0.0 is -0.0, and every NaN one key
        numbers = column.cast(pa.float64()).to_numpy() + 0.0
        numbers[np.isnan(numbers)] = np.nan
        return pa.chunked_array([pa.array(numbers)])
    if pa.types.is_decimal(type_) and type_.bit_width < 128:
        return column.cast(pa.decimal128(type_.precision, type_.scale))
    return column


def _encodable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return decimals that Arrow cannot compare or encode as others that are alike.

    Those are decimals under 128 bits, and of a negative scale; without it the order is the same.
    """
    type_ = column.type
    if not pa.types.is_decimal(type_):
        return column
    if type_.scale < 0:
        type_ = _DECIMALS[type_.bit_width](type_.precision, 0)
        column = pa.chunked_array([chunk.view(type_) for chunk in column.chunks], type_)
    if type_.bit_width < 128:
        column = column.cast(pa.decimal128(type_.precision, type_.scale))
    return column


def _bits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the bits of floats, the same wherever they are the same key.

    Arrow itself compares NaN with nothing, and hashes NaNs by their bits, of which there are many.
    """
    column = pc.add(column, pa.scalar(0.0, column.type))  # -0.0 becomes the 0.0 it equals
    nan = pc.is_nan(column)
    if pc.any(nan).as_py():
        column = pc.if_else(nan, pa.scalar(float("nan"), column.type), column)
    integer = pa.int32() if column.type == pa.float32() else pa.int64()
    return pa.chunked_array([chunk.view(integer) for chunk in column.chunks], integer)
