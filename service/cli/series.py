"""Rows of a file to blocks of whole series.

In the long form a row is an element, in the nested form a series.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from loss_scoring.core.table import (
    HINT,
    Groups,
    TableError,
    break_down,
    element_type,
    find_repeats,
    group_rows,
    is_text,
    narrowest,
    spell_cell,
    spell_series,
    tensor_of_column,
)
from loss_scoring.service.cli.columns import FileColumns
from loss_scoring.service.cli.files import BATCH_ROWS, Source
from loss_scoring.service.codecs.arrow.lists import Side, flatten
from loss_scoring.service.errors import MAX_LISTED_ERRORS

_FIRST_CHECK = 1 << 12
"""Series after which those of different blocks are first compared."""
_ALLOW = "Name it by --cutoff-col, or pass --duplicates allow"


class Block(NamedTuple):
    """Whole series.

    Attributes:
        groups: The series, in the order of the file.
        values: Returns the elements of a column, series by series.
        rows: How many rows of the file they are.
        first_row: Which row of the file the first element is from, if each row is an element and
            in its place.
    """

    groups: Groups
    values: Callable[[str], torch.Tensor]
    rows: int
    first_row: int | None


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
    tables = _with_keys(source.read(layout.columns), layout)
    if layout.nested:
        if sort:
            fault = "--sort is for files with a row an element; here each row is a series"
            raise TableError(("", fault))
        yield from _nested_blocks(tables, layout)
        return
    if sort:
        fields = [source.schema.field(name) for name in layout.columns]
        whole = pa.concat_tables([pa.schema(fields).empty_table(), *tables])
        whole = whole.sort_by([(key, "ascending") for key in layout.keys])
        starts = range(0, len(whole), BATCH_ROWS)
        tables = (whole.slice(start, BATCH_ROWS) for start in starts)
    seen = _SeenKeys(partial(_refuse_apart, layout))
    kind = element_type(source.schema, layout)
    rows = 0
    for table, groups in _whole_series(tables, layout):
        seen.add(groups.keys)
        first_row = None if sort else rows
        _check_times(table, groups, layout, first_row)
        yield Block(groups, partial(_elements, table, kind), len(table), first_row)
        rows += len(table)
    seen.check()


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
    tables = _with_keys(source.read(schema.names), layout)
    table = pa.concat_tables([schema.empty_table(), *tables])
    series = group_rows(table.select(layout.keys))
    _check_times(table, series, layout, 0)
    groups = break_down(table, series, by, time if time in names else None)
    kind = element_type(source.schema, layout)

    def values(name: str) -> torch.Tensor:
        return tensor_of_column(table.column(name), kind, groups.order)

    return Block(groups, values, len(table), None)


def _elements(table: pa.Table, kind: pa.DataType, name: str) -> torch.Tensor:
    return tensor_of_column(table.column(name), kind)


def _with_keys(batches: Iterator[pa.RecordBatch], layout: FileColumns) -> Iterator[pa.Table]:
    """Refuse rows without a key."""
    rows = 0
    for batch in batches:
        for key in layout.keys:
            column = batch.column(key)
            absent = column.is_null()
            if is_text(column.type):
                absent = pc.or_kleene(absent, pc.equal(column, ""))
            if (row := absent.index(True).as_py()) >= 0:
                detail = f"holds nulls, the first in row {rows + row}, which belongs to no series"
                raise TableError((key, detail))
        rows += len(batch)
        if len(batch):
            yield pa.Table.from_batches([batch])


def _whole_series(
    tables: Iterator[pa.Table], layout: FileColumns
) -> Iterator[tuple[pa.Table, Groups]]:
    """Cut tables between series; the last series of each may go on in the next."""
    rest: list[pa.Table] = []  # rows of one series
    for table in tables:
        begun = [rest[0].slice(0, 1)] if rest else []  # its key is that of all
        groups = _together(pa.concat_tables([*begun, table]), layout)
        if len(groups) > 1:
            offsets = groups.offsets[:-1] - len(begun) + sum(map(len, rest))
            offsets[0] = 0
            cut = groups.offsets[-2] - len(begun)
            whole = pa.concat_tables([*rest, table.slice(0, cut)])
            yield whole, Groups(groups.keys.slice(0, len(groups) - 1), offsets, None)
            rest = []
            table = table.slice(cut)  # noqa: PLW2901 - the last series
        rest.append(table)
    if rest:
        whole = pa.concat_tables(rest)
        yield whole, _together(whole, layout)


def _together(table: pa.Table, layout: FileColumns) -> Groups:
    """Return the series of some rows; refuse rows that are not together."""
    groups = group_rows(table.select(layout.keys))
    if groups.order is not None:
        first, last = groups.order[groups.offsets[:-1]], groups.order[groups.offsets[1:] - 1]
        _refuse_apart(layout, groups, last - first + 1 != np.diff(groups.offsets))
    return groups


def _check_times(
    table: pa.Table, groups: Groups, layout: FileColumns, first_row: int | None
) -> None:
    """Refuse a series that has one time twice."""
    if layout.time is None:
        return
    times = table.column(layout.time)
    if is_text(times.type):  # an empty cell of a CSV file is no time
        times = pc.if_else(pc.equal(times, ""), pa.scalar(None, times.type), times)
    repeats = find_repeats(times, groups)
    if not repeats.rows.size:
        return
    row, earlier = int(repeats.rows[0]), int(repeats.earlier[0])
    where = "twice in"
    if first_row is not None:
        where = f"in rows {earlier + first_row} and {row + first_row} of"
    series = spell_series(groups.keys, int(repeats.series[0]))
    fault = (
        f"is {spell_cell(times, row)} {where} series {series} (the first of "
        f"{len(repeats.rows)} such rows read so far); {HINT} {_ALLOW}"
    )
    raise TableError((layout.time, fault))


def _nested_blocks(tables: Iterator[pa.Table], layout: FileColumns) -> Iterator[Block]:
    seen = _SeenKeys(_refuse_repeated)
    for table in tables:
        keys = table.select(layout.keys)
        sides = {name: _side(table, name, keys) for name in layout.numbers}
        target = sides[layout.target]
        for model in layout.models:
            differ = np.diff(sides[model].offsets) != np.diff(target.offsets)
            if sides[model].channels != target.channels:
                differ[:] = True
            if (rows := np.flatnonzero(differ)).size:
                fault = f"differs from {layout.target} in length in series {_names(keys, rows)}"
                raise TableError((model, fault))
        if layout.duplicates == "error":
            seen.add(keys)
        kind = narrowest(side.flat.type for side in sides.values())
        groups = Groups(keys, target.offsets, None)
        yield Block(groups, partial(_flat, sides, kind), len(table), None)
    seen.check()


def _flat(sides: dict[str, Side], kind: pa.DataType, name: str) -> torch.Tensor:
    return sides[name].tensor(kind)


def _side(table: pa.Table, name: str, keys: pa.Table) -> Side:
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
    """The keys of all blocks so far; compared whenever there are twice as many as before."""

    def __init__(self, refuse: Callable[[Groups, npt.NDArray[np.bool_]], None]) -> None:
        self._refuse = refuse
        self._keys: list[pa.Table] = []
        self._count, self._due = 0, _FIRST_CHECK

    def add(self, keys: pa.Table) -> None:
        self._keys.append(keys)
        self._count += len(keys)
        if self._count >= self._due:
            self.check()
            self._due = 2 * self._count

    def check(self) -> None:
        if self._keys:
            groups = group_rows(pa.concat_tables(self._keys))
            if len(groups) < self._count:
                self._refuse(groups, np.diff(groups.offsets) > 1)


def _refuse_apart(layout: FileColumns, groups: Groups, apart: npt.NDArray[np.bool_]) -> None:
    names = _names(groups.keys, np.flatnonzero(apart))
    fault = (
        f"the rows of series {names} are not together; sort the file by "
        f"{', '.join(layout.keys)}, or pass --sort"
    )
    raise TableError(("", fault))


def _refuse_repeated(groups: Groups, repeated: npt.NDArray[np.bool_]) -> None:
    series = np.flatnonzero(repeated)
    place = int(groups.offsets[series[0]])
    rows = range(groups.offsets[-1]) if groups.order is None else groups.order
    fault = (
        f"rows {rows[place]} and {rows[place + 1]} are both series "
        f"{spell_series(groups.keys, int(series[0]))} (the first of {len(series)} such series read "
        f"so far); {HINT} {_ALLOW}"
    )
    raise TableError(("", fault))
