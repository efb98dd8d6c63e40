"""Rows to series, and the rows of one series at one time, without a step of Python a row or series.

Equal neighbours are found by comparing a column with itself one row on; so a table whose series
are contiguous is grouped at the speed of a comparison, and stays where it is. Only the keys of
such runs are encoded, by Arrow's hash tables, which compare what they hold: keys are equal by
value, never by hash alone. Keys that are floats are equal as pandas groups them: 0.0 and -0.0 are
one key, and so is every NaN.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .cells import comparable, decoded, one_array, sortable
from .faults import HINT, TableError
from .spelling import spell_cell, spell_series

_COUNTED = 1 << 17
"""Rows from which on a loop sorts them that takes numba, whose import takes as long as this."""
_AT_ONCE = 1 << 17
_NUMBERED = (pa.types.is_integer, pa.types.is_timestamp, pa.types.is_date, pa.types.is_duration)
"""Types whose values numpy has as numbers."""


class NullKeyError(TableError):
    """Rows whose key is null belong to no series.

    Attributes:
        column: Of the key.
        rows: All of them.
    """

    def __init__(self, column: str, rows: NDArray[np.int64]) -> None:
        self.column = column
        self.rows = rows
        super().__init__(
            (column, f"has no key in row {rows[0]} (the first of {len(rows)} such rows)")
        )


@dataclass(frozen=True, eq=False)
class Groups:
    """The series of a table, in the order of their first rows unless another is asked for.

    Attributes:
        keys: One row a series.
        offsets: Where each series starts and ends, int64 from 0 to the number of rows.
        order: The rows of the table, series by series, each in the table's order or, from
            ``sort_by_time``, in that of time; None if they are in it already.
    """

    keys: pa.Table
    offsets: NDArray[np.int64]
    order: NDArray[np.int64] | None

    def __len__(self) -> int:
        """Return the number of series."""
        return len(self.offsets) - 1

    @property
    def first(self) -> NDArray[np.int64]:
        """The first row of each series."""
        return self.rows_at(self.offsets[:-1])

    @property
    def member(self) -> NDArray[np.int64]:
        """The series of each position in the order."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def rows_at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows at some positions in the order."""
        return positions if self.order is None else self.order[positions]

    def arranged(self, cells: NDArray[Any]) -> NDArray[Any]:
        """Return cells, one a row of the table, series by series."""
        return cells if self.order is None else cells[self.order]


@dataclass(frozen=True, eq=False)
class Runs:
    """Contiguous rows with equal keys, in a table whose series need not be contiguous.

    Attributes:
        keys: The columns that together name a series.
        starts: The first row of each run.
    """

    keys: pa.Table
    starts: NDArray[np.int64]
    _takeable: list[pa.ChunkedArray]

    def group(self, *, by_key: bool = False) -> Groups:
        """Return the series, in the order of their first rows, or of their keys."""
        starts, rows = self.starts, self.keys.num_rows
        scattered = 2 * len(starts) > rows  # then each row is a run of its own
        of_runs = (column if scattered else _rows(column, starts) for column in self._takeable)
        ranks, count = _ranks(list(map(comparable, of_runs)))
        firsts = starts
        if count < len(starts):
            firsts = _first_appearances(ranks, count)
            firsts = firsts if scattered else starts[firsts]
        numbers = np.arange(count)
        names = self.keys.column_names
        keys = pa.table([_take(column, firsts) for column in self._takeable], names)
        if by_key and count:
            numbers = codes(keys, names)
            keys = keys.take(pa.array(np.argsort(numbers)))
        keys = pa.table(
            [
                _like(column, field.type)
                for column, field in zip(keys.columns, self.keys.schema, strict=True)
            ],
            names,
        )
        if count == len(starts) and (numbers[:-1] < numbers[1:]).all():
            return Groups(keys, np.append(starts, rows), None)
        runs, offsets = _sorted_rows(ranks, numbers)
        if scattered:
            return Groups(keys, offsets, runs)
        lengths = np.diff(np.append(starts, rows))[runs]
        ends = np.append(0, np.cumsum(lengths))
        order = np.repeat(starts[runs] - ends[:-1], lengths)
        order += np.arange(rows)
        return Groups(keys, ends[offsets], order)


def find_runs(keys: pa.Table) -> Runs:
    """Find the runs of a table; ``Runs.group`` takes some hundred bytes more for each.

    Raises:
        NullKeyError: If a key is null.
    """
    taken = [takeable(column) for column in keys.columns]
    columns = [key_codes(*named) for named in zip(keys.column_names, taken, strict=True)]
    return Runs(keys, _run_starts(columns, keys.num_rows), taken)


def group_rows(keys: pa.Table, *, by_key: bool = False) -> Groups:
    """Find the series of a table.

    Args:
        keys: The columns that together name a series.
        by_key: Whether to return them in ascending order instead of that of their first rows.

    Raises:
        NullKeyError: If a key is null.

    Example:
        >>> import pyarrow as pa
        >>> groups = group_rows(pa.table({"id": ["b", "a", "a", "b"]}))
        >>> groups.keys["id"].to_pylist(), groups.offsets.tolist(), groups.order.tolist()
        (['b', 'a'], [0, 2, 4], [0, 3, 1, 2])
    """
    return find_runs(keys).group(by_key=by_key)


def sort_by_time(times: pa.ChunkedArray, groups: Groups) -> Groups:
    """Return the same series, the rows of each in the order of time; ties stay in their order.

    Args:
        times: One a row, in the order of the table, none of them null.
        groups: The series of its rows; where they are in the order of time, they are returned.

    Raises:
        pa.ArrowException: If they have no order.

    Example:
        >>> import pyarrow as pa
        >>> table = pa.table({"id": ["a", "b", "a"], "ds": [2, 1, 1]})
        >>> groups = sort_by_time(table["ds"], group_rows(table.select(["id"])))
        >>> groups.offsets.tolist(), groups.order.tolist()
        ([0, 2, 3], [2, 0, 1])
    """
    if any(is_kind(times.type) for is_kind in _NUMBERED):
        moments = times.to_numpy()
    else:
        moments, _ = _ascending_codes(sortable(times).combine_chunks())
    moments = groups.arranged(moments)
    is_later = moments[1:] >= moments[:-1]
    is_later[groups.offsets[1:-1] - 1] = True
    if is_later.all():
        return groups
    return replace(groups, order=groups.rows_at(np.lexsort((moments, groups.member))))


def match_rows(known: pa.Table, wanted: pa.Table, label: str) -> NDArray[np.int64]:
    """Return the row of one table that is equal to each of another, -1 for none.

    Args:
        known: Rows that differ from each other.
        wanted: The same columns, perhaps in types that hold other numbers or texts.
        label: What messages call the known ones.

    Raises:
        TableError: If columns cannot be compared.

    Example:
        >>> import pyarrow as pa
        >>> match_rows(pa.table({"id": ["a", "b"]}), pa.table({"id": ["b", "c"]}), "all").tolist()
        [1, -1]
    """
    columns = []
    for name in known.column_names:
        pair = [_decoded(table.column(name)) for table in (known, wanted)]
        try:
            both = [pa.table([column], [name]) for column in pair]
            joined = pa.concat_tables(both, promote_options="permissive").column(0)
        except pa.ArrowException as error:
            types = " and ".join(str(column.type) for column in pair)
            detail = f"cannot be compared: {types}; the first is that of {label}"
            raise TableError((name, detail)) from error
        columns.append(comparable(takeable(joined)))
    ranks, count = _ranks(columns)
    rows = np.full(count, -1)
    rows[ranks[: len(known)]] = np.arange(len(known))
    matched: NDArray[np.int64] = rows[ranks[len(known) :]]
    return matched


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    type_ = decoded(column.type)
    return column if column.type == type_ else column.cast(type_)


class Repeats(NamedTuple):
    """Rows whose series has an earlier row of the same time.

    Attributes:
        rows: They themselves, in the order of the table.
        earlier: For each, the last such row before it.
        series: For each, which it is.
    """

    rows: NDArray[np.int64]
    earlier: NDArray[np.int64]
    series: NDArray[np.int64]

    def describe(self, i: int, times: pa.ChunkedArray, groups: Groups) -> str:
        """Say what is wrong with one of the rows, whose column of times is known."""
        time = spell_cell(times, int(self.rows[i]))
        series = spell_series(groups.keys, int(self.series[i]))
        return f"is {time} in rows {self.earlier[i]} and {self.rows[i]} of the series {series}"


class RepeatedTimeError(TableError):
    """Rows of one series have the same time.

    Attributes:
        repeats: All of them.
    """

    def __init__(
        self, name: str, repeats: Repeats, times: pa.ChunkedArray, groups: Groups, allow: str
    ) -> None:
        self.repeats = repeats
        first = repeats.describe(0, times, groups)
        count = len(repeats.rows)
        super().__init__((name, f"{first} (the first of {count} such rows); {HINT} {allow}"))


def increases(times: pa.ChunkedArray, groups: Groups) -> bool:
    """Tell whether times increase from row to row within each series, so that none is repeated."""
    column = _times_in_order(times, groups)
    later, before = column.slice(1), column.slice(0, max(len(column) - 1, 0))
    increased = np.array(pc.greater(later, before).fill_null(False))  # noqa: FBT003 - of Arrow
    increased[groups.offsets[1:-1] - 1] = True
    return bool(increased.all())


def find_repeats(times: pa.ChunkedArray, groups: Groups) -> Repeats:
    """Find rows whose series has an earlier row of the same time; a null is equal to nothing.

    Where times increase within each series it takes one comparison, and some hundred bytes a row
    otherwise.

    Args:
        times: One a row, in the order of the table; of a type that can be a key.
        groups: The series of its rows.

    Example:
        >>> import pyarrow as pa
        >>> table = pa.table({"id": ["a", "b", "a"], "ds": [1, 1, 1]})
        >>> repeats = find_repeats(table["ds"], group_rows(table.select(["id"])))
        >>> repeats.rows.tolist(), repeats.earlier.tolist(), repeats.series.tolist()
        ([2], [0], [0])
    """
    if increases(times, groups):
        none = np.empty(0, np.int64)
        return Repeats(none, none, none)
    coded = one_array(_times_in_order(times, groups)).dictionary_encode()
    positions = np.flatnonzero(coded.indices.is_valid())
    member = groups.member[positions]
    keys = coded.indices.drop_null().to_numpy() + len(coded.dictionary) * member
    ranked = np.argsort(keys, kind="stable")
    again = np.flatnonzero(np.diff(keys[ranked]) == 0)
    rows, earlier = (groups.rows_at(positions[ranked[x]]) for x in (again + 1, again))
    series = member[ranked[again]]
    ascending = np.argsort(rows)
    return Repeats(rows[ascending], earlier[ascending], series[ascending])


def _times_in_order(times: pa.ChunkedArray, groups: Groups) -> pa.ChunkedArray:
    """Return times that are equal where others are, series by series."""
    column = takeable(times)
    if groups.order is not None:
        column = column.take(pa.array(groups.order))
    return comparable(column)


def takeable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column that Arrow can take rows of: in one dictionary, and without views."""
    if pa.types.is_dictionary(column.type):
        return pa.chunked_array([one_array(column)])
    if pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    return column


def key_codes(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a takeable column as one in which equal neighbours are the same row after row.

    Entries of a dictionary may be equal; then there are more runs, of which ``group`` makes one.

    Raises:
        NullKeyError: If a cell is null, or its entry in a dictionary.
    """
    if pa.types.is_dictionary(column.type) and not column.chunk(0).dictionary.null_count:
        codes = pa.chunked_array([column.chunk(0).indices])
    else:
        codes = comparable(column)
    if codes.null_count:
        raise NullKeyError(name, np.flatnonzero(codes.is_null().to_numpy()))
    return codes


def _rows(column: pa.ChunkedArray, rows: NDArray[np.int64]) -> pa.ChunkedArray:
    """Take ascending rows of a takeable column, and of its dictionary no more than they need."""
    taken = _take(column, rows)
    if not pa.types.is_dictionary(column.type):
        return taken
    names = column.type.value_type
    # Arrow can neither take nor cast entries that are views.
    if len(column.chunk(0).dictionary) <= len(rows) or pa.types.is_string_view(names):
        return taken
    return takeable(taken.cast(names))


def _take(column: pa.ChunkedArray, rows: NDArray[np.int64]) -> pa.ChunkedArray:
    """Take ascending rows of a takeable column; Arrow itself would join its chunks first."""
    if not len(rows):
        return column.slice(0, 0)
    firsts = np.append(0, np.cumsum([len(chunk) for chunk in column.chunks]))
    own = np.split(rows, np.searchsorted(rows, firsts[1:-1]))
    chunks = zip(column.chunks, firsts[:-1], own, strict=True)
    taken = [chunk.take(pa.array(part - first)) for chunk, first, part in chunks if len(part)]
    return pa.chunked_array(taken, column.type)


def _run_starts(columns: list[pa.ChunkedArray], rows: int) -> NDArray[np.int64]:
    """Return the first row of each run of equal keys."""
    if rows == 0:
        return np.empty(0, np.int64)
    changed = np.ones(rows, np.bool_)
    changed[1:] = False
    for column in columns:
        changed[1:] |= pc.not_equal(column.slice(1), column.slice(0, rows - 1)).to_numpy()
    return np.flatnonzero(changed)


def _ranks(columns: list[pa.ChunkedArray]) -> tuple[NDArray[Any], int]:
    """Number rows so that equal ones are alike, from 0 in the order of their first appearance.

    Returns:
        The number of each row, and how many different ones there are.
    """
    ranks, count = _encoded(columns[0])
    for column in columns[1:]:
        own, distinct = _encoded(column)  # a product of two counts of rows fits in 64 bits
        pairs = ranks * np.int64(distinct) + own
        ranks, count = _encoded(pa.chunked_array([pa.array(pairs)]))
    return ranks, count


def _encoded(column: pa.ChunkedArray) -> tuple[NDArray[Any], int]:
    encoded = column.dictionary_encode()  # one dictionary for all chunks
    if not len(column):
        return np.empty(0, np.int32), 0
    indices = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks])
    return indices, len(encoded.chunk(0).dictionary)


def _first_appearances(ranks: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Return where each rank is first, of ranks that are numbered by that."""
    found, seen = [np.empty(0, np.int64)], 0
    for start in range(0, len(ranks), _AT_ONCE):
        part = ranks[start : start + _AT_ONCE]
        unseen = np.flatnonzero(part >= seen)
        own, first = np.unique(part[unseen], return_index=True)
        found.append(start + unseen[first])
        seen += len(own)
        if seen == count:
            break
    return np.concatenate(found)


def _sorted_rows(
    ranks: NDArray[Any], numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows by the number of their rank, equal ones in their order, and where each starts."""
    if len(ranks) >= _COUNTED:
        with suppress(ImportError):  # the client has no such module, and core may lack numba
            sort_rows = import_module("..loops", __package__).sort_rows
            order, offsets = np.empty(len(ranks), np.int64), np.zeros(len(numbers) + 1, np.int64)
            sort_rows(ranks, numbers, offsets, order)
            return order, offsets
    # numpy sorts numbers of 16 bits by counting.
    numbered = numbers.astype(np.min_scalar_type(len(numbers)))[ranks]
    offsets = np.append(0, np.cumsum(np.bincount(numbered, minlength=len(numbers))))
    return np.argsort(numbered, kind="stable"), offsets


def _like(column: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    try:
        return column if column.type == type_ else column.cast(type_)
    except pa.ArrowInvalid:  # a joint dictionary that outgrew its index type
        return column


def codes(table: pa.Table, names: Sequence[str]) -> NDArray[np.int64]:
    """Number rows by the values of some columns, equal ones alike, from 0 in ascending order.

    Raises:
        TableError: If values cannot be compared.
    """
    codes, count = np.zeros(len(table), np.int64), 1
    for name in names:
        try:
            own, distinct = _ascending_codes(sortable(table[name]).combine_chunks())
        except pa.ArrowNotImplementedError as error:
            detail = f"cannot be compared, being {table[name].type}; cast it to text"
            raise TableError((name, detail)) from error
        if count == 1:
            codes, count = own, distinct
        else:  # a product of two counts of rows fits
            values, codes = np.unique(codes * distinct + own, return_inverse=True)
            count = len(values)
    return codes


def _ascending_codes(column: pa.Array) -> tuple[NDArray[np.int64], int]:
    """Number the values of one column likewise, and count them."""
    if pa.types.is_integer(column.type) and len(column):
        numbers = column.to_numpy()
        if (numbers[:-1] <= numbers[1:]).all():
            codes = np.zeros(len(numbers), np.int64)
            np.cumsum(numbers[:-1] < numbers[1:], out=codes[1:])
            return codes, int(codes[-1]) + 1
    encoded = column.dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks[encoded.indices.to_numpy()], len(order)
