"""Rows of a file to blocks of whole series.

In the long form a row is an element, in the nested form a series.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from loss_scoring.core.table import (
    HINT,
    Groups,
    NullKeyError,
    TableError,
    array_of_column,
    break_down,
    element_type,
    find_repeats,
    group_rows,
    is_text,
    narrowest,
    plain_type,
    scales_of,
    spell_cell,
    spell_series,
    weights_of,
)
from loss_scoring.service.cli.columns import FileColumns
from loss_scoring.service.cli.source import Source
from loss_scoring.service.cli.threads import ahead
from loss_scoring.service.errors import MAX_LISTED_ERRORS

if TYPE_CHECKING:
    from loss_scoring.service.codecs.arrow.lists import Side

_FIRST_CHECK = 1 << 12
"""Series after which those of different blocks are first compared."""
Column = Callable[[str], pa.ChunkedArray]
"""Returns a column of a file, in the order of its rows."""
_ALLOW = "Name it by --cutoff-col, or pass --duplicates allow"


class Block(NamedTuple):
    """Whole series.

    Attributes:
        groups: The series, in the order of the file.
        values: Returns the elements of a column, series by series.
        rows: How many rows of the file they are.
        first_row: Which row of the file the first element is from, if each row is an element and
            in its place.
        weights: Of the elements, if they have any.
        scales: Of the series, if they have any.
        times: Returns those of the rows, where each row is an element and they have any.
    """

    groups: Groups
    values: Callable[[str], npt.NDArray[Any]]
    rows: int
    first_row: int | None
    weights: npt.NDArray[np.float64] | None = None
    scales: npt.NDArray[np.float64] | None = None
    times: Callable[[], pa.ChunkedArray] | None = None


def read_series(source: Source, layout: FileColumns, *, sort: bool) -> Iterator[Block]:
    """Yield all series of a file, in its order.

    Args:
        source: The file.
        layout: Its columns.
        sort: Read all of the long form first and sort it by key, for files where the rows of a
            series are not together.

    Raises:
        TableError: If the rows of a series are not together, a key is null, a list is null, empty
            or of another length than that of the target, a series appears twice, or a file with a
            row a series is to be sorted.
    """
    if layout.nested:
        if sort:
            fault = "--sort is for files with a row an element; here each row is a series"
            raise TableError(("", fault))
        yield from _nested_blocks(ahead(source.read(layout.columns)), layout)
        return
    kind = element_type(source.schema, layout)
    if sort:
        yield from _sorted_block(source, layout, kind)
        return
    seen = _SeenKeys(partial(_refuse_apart, layout))
    rows = 0
    for table, groups in _whole_series(_tables(source, layout.columns, layout), layout):
        seen.add(groups.keys)
        _check_times(table.column, groups, layout, rows)
        yield _long_block(table.column, groups, layout, kind)._replace(first_row=rows)
        rows += len(table)
    seen.check()


def _tables(source: Source, columns: list[str], layout: FileColumns) -> Iterator[pa.Table]:
    """Read rows, which are decoded in another thread; keys come as the file codes them."""
    for batch in ahead(source.read(columns, layout.keys)):
        if len(batch):
            yield pa.Table.from_batches([batch])


def _sorted_block(source: Source, layout: FileColumns, kind: pa.DataType) -> Iterator[Block]:
    """Yield all series by key, whose rows may be anywhere and keep their order."""

    def read(*names: str) -> pa.Table:
        schema = pa.schema([source.schema.field(name) for name in names])
        return pa.Table.from_batches(source.read(names), schema)

    # A column that can be read by itself is in memory only while it is needed; in the order in
    # which they are, the next is read meanwhile.
    times = () if layout.time is None else (layout.time,)
    waiting = deque(dict.fromkeys((*layout.keys, *times, *layout.doubles, *layout.numbers)))
    columns = ahead(map(read, tuple(waiting)), steps=1)

    def read_column(name: str) -> pa.ChunkedArray:
        if not waiting or name != waiting[0]:
            return read(name).column(0)
        waiting.popleft()
        return next(columns).column(0)

    column = read_column if source.is_columnar else read(*layout.columns).column
    groups = _group(pa.table({name: column(name) for name in layout.keys}), layout, by_key=True)
    if not len(groups):
        return
    _check_times(column, groups, layout, 0)
    yield _long_block(column, groups, layout, kind)


def read_breakdown(source: Source, layout: FileColumns, by: tuple[str, ...], time: str) -> Block:
    """Return all elements of a file, pooled by some columns.

    Args:
        source: The file, which is read into memory.
        layout: Its columns.
        by: The columns to pool by.
        time: The column of times, if there is one of the name.

    Raises:
        TableError: If a column is absent, a key is null, a series has one time twice, or the file
            has a row a series.
    """
    if layout.nested:
        raise TableError(("", "--by is for files with a row an element; here each row is a series"))
    names = source.schema.names
    read = dict.fromkeys([*layout.columns, *by, time])
    schema = pa.schema([source.schema.field(name) for name in read if name in names])
    tables = map(pa.Table.from_batches, ([batch] for batch in ahead(source.read(schema.names))))
    table = pa.concat_tables([schema.empty_table(), *tables])
    series = _group(table, layout)
    _check_times(table.column, series, layout, 0)
    groups = break_down(table, series, by, time if time in names else None)
    return _long_block(table.column, groups, layout, element_type(source.schema, layout))


def _long_block(column: Column, groups: Groups, layout: FileColumns, kind: pa.DataType) -> Block:
    """Return series of columns with a row an element."""

    def values(name: str) -> npt.NDArray[Any]:
        return array_of_column(column(name), kind, groups.order)

    weights = scales = None
    if layout.weight is not None:
        weights = weights_of(layout.weight, column(layout.weight), groups)
    if layout.scale is not None:
        scales = scales_of(layout.scale, column(layout.scale), groups)
    times = None if layout.time is None else cache(partial(column, layout.time))
    rows = int(groups.offsets[-1])
    return Block(groups, values, rows, None, weights, scales, times)


def _whole_series(
    tables: Iterator[pa.Table], layout: FileColumns
) -> Iterator[tuple[pa.Table, Groups]]:
    """Cut tables between series; the last series of each may go on in the next."""
    rest: list[pa.Table] = []  # rows of one series
    key: pa.Table = None
    first_row = 0
    for table in tables:
        groups = _together(table, layout, first_row)
        first_row += len(table)
        goes_on = (
            bool(rest) and len(group_rows(pa.concat_tables([key, groups.keys.slice(0, 1)]))) == 1
        )
        waiting = sum(map(len, rest))
        ends = groups.offsets[1:-1] + waiting
        keys = [groups.keys.slice(0, len(groups) - 1)]
        if rest and not goes_on:
            ends = np.append(waiting, ends)
            keys.insert(0, key)
        if len(ends):
            whole = pa.concat_tables([*rest, table.slice(0, groups.offsets[-2])])
            yield whole, Groups(pa.concat_tables(keys), np.append(0, ends), None)
            rest = []
        rest.append(table.slice(groups.offsets[-2]))
        key = groups.keys.slice(len(groups) - 1)
    if rest:
        whole = pa.concat_tables(rest)
        yield whole, Groups(key, np.array([0, len(whole)]), None)


def _together(table: pa.Table, layout: FileColumns, first_row: int) -> Groups:
    """Return the series of some rows; refuse rows that are not together."""
    groups = _group(table, layout, first_row)
    if groups.order is not None:
        last = groups.rows_at(groups.offsets[1:] - 1)
        _refuse_apart(layout, groups, last - groups.first + 1 != np.diff(groups.offsets))
    return groups


def _group(
    table: pa.Table, layout: FileColumns, first_row: int = 0, *, by_key: bool = False
) -> Groups:
    """Return the series of some rows, their keys in plain types; refuse rows without a key."""
    try:
        groups = group_rows(table.select(layout.keys), by_key=by_key)
    except NullKeyError as error:
        raise _without_key(error.column, first_row + int(error.rows[0])) from error
    columns = [column.cast(plain_type(column.type)) for column in groups.keys.columns]
    keys = pa.table(columns, groups.keys.column_names)
    for name in layout.keys:
        if is_text(keys.schema.field(name).type):  # an empty cell of a CSV file is no key
            blank = pc.equal(keys.column(name), "").to_numpy()
            if blank.any():
                raise _without_key(name, first_row + int(groups.first[blank].min()))
    return replace(groups, keys=keys)


def _without_key(name: str, row: int) -> TableError:
    return TableError((name, f"holds nulls, the first in row {row}, which belongs to no series"))


def _check_times(column: Column, groups: Groups, layout: FileColumns, first_row: int) -> None:
    """Refuse a series that has one time twice."""
    if layout.time is None:
        return
    times = column(layout.time)
    if is_text(times.type):  # an empty cell of a CSV file is no time
        times = pc.if_else(pc.equal(times, ""), pa.scalar(None, times.type), times)
    repeats = find_repeats(times, groups)
    if not repeats.rows.size:
        return
    row, earlier = int(repeats.rows[0]), int(repeats.earlier[0])
    where = f"in rows {earlier + first_row} and {row + first_row} of"
    series = spell_series(groups.keys, int(repeats.series[0]))
    fault = (
        f"is {spell_cell(times, row)} {where} series {series} (the first of "
        f"{len(repeats.rows)} such rows read so far); {HINT} {_ALLOW}"
    )
    raise TableError((layout.time, fault))


def _nested_blocks(batches: Iterator[pa.RecordBatch], layout: FileColumns) -> Iterator[Block]:
    seen = _SeenKeys(_refuse_repeated)
    rows = 0
    for batch in batches:
        table = pa.Table.from_batches([batch])
        _check_keys(table, layout, rows)
        rows += len(table)
        if not len(table):
            continue
        keys = table.select(layout.keys)
        lists = (*layout.numbers, *filter(None, [layout.weight]))
        sides = {name: _side(table, name, keys) for name in lists}
        target = sides[layout.target]
        for model in lists[1:]:
            differ = np.diff(sides[model].offsets) != np.diff(target.offsets)
            if sides[model].channels != target.channels:
                differ[:] = True
            if (unequal := np.flatnonzero(differ)).size:
                fault = f"differs from {layout.target} in length in series {_names(keys, unequal)}"
                raise TableError((model, fault))
        if layout.duplicates == "error":
            seen.add(keys)
        kind = narrowest(sides[name].flat.type for name in layout.numbers)
        groups = Groups(keys, target.offsets, None)
        block = Block(groups, partial(_flat, sides, kind), len(table), None)
        if layout.weight is not None:
            flat = pa.chunked_array([sides[layout.weight].flat])
            block = block._replace(weights=weights_of(layout.weight, flat, groups))
        if layout.scale is not None:
            scales = array_of_column(table.column(layout.scale), pa.float64())
            block = block._replace(scales=scales)
        yield block
    seen.check()


def _check_keys(table: pa.Table, layout: FileColumns, first_row: int) -> None:
    """Refuse rows without a key."""
    for key in layout.keys:
        column = table.column(key)
        absent = column.is_null()
        if is_text(column.type):
            absent = pc.or_kleene(absent, pc.equal(column, ""))
        if (row := absent.index(True).as_py()) >= 0:
            raise _without_key(key, first_row + row)


def _flat(sides: "dict[str, Side]", kind: pa.DataType, name: str) -> npt.NDArray[Any]:
    return sides[name].numbers(kind)


def _side(table: pa.Table, name: str, keys: pa.Table) -> "Side":
    from loss_scoring.service.codecs.arrow.lists import flatten  # takes pydantic

    column = table.column(name)
    empty = pc.equal(pc.list_value_length(column), 0)
    for what, found in (("null", column.is_null()), ("empty", empty)):
        if (rows := np.flatnonzero(found.fill_null(False).to_numpy())).size:
            raise TableError((name, f"is {what} in series {_names(keys, rows)}"))
    return flatten(name, column)


def _names(keys: pa.Table, rows: npt.NDArray[np.int64]) -> str:
    """Name some series in a message."""
    named = [spell_series(keys, int(row)) for row in rows[:MAX_LISTED_ERRORS]]
    more = f" and {len(rows) - len(named)} more" if len(rows) > len(named) else ""
    return "; ".join(named) + more


class _SeenKeys:
    """The keys of all blocks so far.

    While each is above the one before it, as in a sorted file, none can be there twice. Otherwise
    they are compared whenever there are twice as many as before.
    """

    def __init__(self, refuse: Callable[[Groups, npt.NDArray[np.bool_]], None]) -> None:
        self._refuse = refuse
        self._keys: list[pa.Table] = []
        self._count, self._due = 0, _FIRST_CHECK
        self._ascend = True

    def add(self, keys: pa.Table) -> None:
        last = [part.slice(len(part) - 1) for part in self._keys[-1:]]
        self._ascend = self._ascend and _ascends(pa.concat_tables([*last, keys]))
        self._keys.append(keys)
        self._count += len(keys)
        if self._count >= self._due and not self._ascend:
            self.check()
            self._due = 2 * self._count

    def check(self) -> None:
        if self._keys and not self._ascend:
            groups = group_rows(pa.concat_tables(self._keys))
            if len(groups) < self._count:
                self._refuse(groups, np.diff(groups.offsets) > 1)


def _ascends(keys: pa.Table) -> bool:
    """Tell whether each key is above the one before it."""
    above = np.zeros(len(keys) - 1, np.bool_)
    tied = ~above
    for column in keys.columns:
        before, after = column.slice(0, len(keys) - 1), column.slice(1)
        above |= tied & np.array(pc.less(before, after), np.bool_)
        tied &= np.array(pc.equal(before, after), np.bool_)
    return bool(above.all())


def _refuse_apart(layout: FileColumns, groups: Groups, apart: npt.NDArray[np.bool_]) -> None:
    names = _names(groups.keys, np.flatnonzero(apart))
    fault = (
        f"the rows of series {names} are not together; sort the file by "
        f"{', '.join(layout.keys)}, or pass --sort"
    )
    raise TableError(("", fault))


def _refuse_repeated(groups: Groups, repeated: npt.NDArray[np.bool_]) -> None:
    series = np.flatnonzero(repeated)
    first, second = groups.rows_at(groups.offsets[series[0]] + np.array([0, 1]))
    fault = (
        f"rows {first} and {second} are both series "
        f"{spell_series(groups.keys, int(series[0]))} (the first of {len(series)} such series read "
        f"so far); {HINT} {_ALLOW}"
    )
    raise TableError(("", fault))
