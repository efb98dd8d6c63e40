"""Rows to series: which rows belong together, and in which order."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Int64s = npt.NDArray[np.int64]


class Groups(NamedTuple):
    """Series among rows.

    Attributes:
        offsets: Where each series starts and ends in the new order.
        order: The row that comes at each place; None if every row stays where it is.
        first: One row of each series.
        repeats: Places in the new order whose time is that of the row before in the series.
    """

    offsets: Int64s
    order: Int64s | None
    first: Int64s
    repeats: Int64s


def group(keys: Sequence[pa.Array], time: pa.Array | None) -> Groups:
    """Gather the rows with equal keys, in the order of time; ties stay in the order of rows.

    Series come in the order in which their keys appear first. Rows that already lie so are
    recognised, and not sorted.

    Args:
        keys: Columns without nulls that together name a series. Of floats, -0.0 is 0.0, and all
            NaN are one key.
        time: Another such column; None takes rows in their order.

    Example:
        >>> offsets, order, first, repeats = group([pa.array(["b", "a", "b"])], pa.array([2, 1, 1]))
        >>> offsets, order, first, len(repeats)
        (array([0, 2, 3]), array([2, 0, 1]), array([2, 1]), 0)
    """
    codes = _combine([codes_of(key) for key in keys])
    when = None if time is None else _ranks(time)
    changes = np.flatnonzero(codes[1:] != codes[:-1]) + 1
    starts = np.concatenate([[0], changes]) if len(codes) else changes
    if len(np.unique(codes[starts])) == len(starts):  # rows of a series are together
        offsets = np.append(starts, len(codes))
        if when is None or _is_ordered(when, changes):
            return Groups(offsets, None, starts, _repeats(when, offsets))
        member = np.repeat(np.arange(len(starts)), np.diff(offsets))
    else:
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        number = np.empty(len(first), np.int64)
        number[np.argsort(first)] = np.arange(len(first))  # by first appearance
        member = number[inverse]
        offsets = np.concatenate([[0], np.cumsum(np.bincount(member))])
    order = np.lexsort((member,) if when is None else (when, member))  # stable
    repeats = _repeats(None if when is None else when[order], offsets)
    return Groups(offsets, order, order[offsets[:-1]], repeats)


def _is_ordered(when: Int64s, changes: Int64s) -> bool:
    is_later = when[1:] >= when[:-1]
    is_later[changes - 1] = True
    return bool(is_later.all())


def _repeats(when: Int64s | None, offsets: Int64s) -> Int64s:
    if when is None or len(when) == 0:
        return np.empty(0, np.int64)
    is_same = np.append(False, when[1:] == when[:-1])
    is_same[offsets[:-1]] = False
    return np.flatnonzero(is_same)


def _combine(codes: Sequence[Int64s]) -> Int64s:
    """Return one number for each combination; below the square of the rows, so within 64 bits."""
    combined = codes[0]
    for code in codes[1:]:
        combined = combined * (int(code.max(initial=0)) + 1) + code
    return combined


def codes_of(values: pa.Array) -> Int64s:
    """Return equal numbers for equal values; 0.0 and -0.0 are one, and so is every NaN."""
    if pa.types.is_floating(values.type):  # Arrow goes by their bits
        numbers = values.to_numpy(zero_copy_only=False) + 0.0  # of -0.0 too, this is 0.0
        numbers[np.isnan(numbers)] = np.nan
        values = pa.array(numbers)
    encoded = values.dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)  # type: ignore[no-any-return]


def _ranks(values: pa.Array) -> Int64s:
    """Return numbers in the order of the values."""
    if pa.types.is_timestamp(values.type) or pa.types.is_date64(values.type):
        values = values.view(pa.int64())
    elif pa.types.is_date32(values.type):
        values = values.view(pa.int32())
    if pa.types.is_integer(values.type):
        return values.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
    ranks = pc.rank(values, sort_keys="ascending", tiebreaker="dense")
    return ranks.to_numpy(zero_copy_only=False).astype(np.int64)  # type: ignore[no-any-return]
