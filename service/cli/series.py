"""Rows of a file to series: the long form, one row an element, and the nested, one row a series."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from loss_scoring.core import Ragged
from loss_scoring.core.table import (
    HINT,
    Groups,
    TableError,
    element_type,
    find_repeats,
    group_rows,
    is_text,
    spell_cell,
    spell_series,
    tensor_of_column,
)
from loss_scoring.service.cli.columns import Layout
from loss_scoring.service.cli.files import BATCH_ROWS, Source
from loss_scoring.service.codecs.arrow.lists import Side, flatten
from loss_scoring.service.errors import MAX_LISTED_ERRORS

_FIRST_LOOK = 1 << 12
"""Series after which those of different blocks are first compared."""


@dataclass(frozen=True, eq=False)
class Block:
    """Whole series with the predictions of every model.

    Attributes:
        keys: One row a series.
        target: The actual values.
        predictions: For each model, over the same offsets.
        rows: How many rows of the file it took.
        first_row: The row of the file that its first element is from, where each row is an element
            and they are in their places; else None.
    """

    keys: pa.Table
    target: Ragged
    predictions: dict[str, Ragged]
    rows: int
    first_row: int | None


def read_series(source: Source, layout: Layout, *, sort: bool) -> Iterator[Block]:
    """Yield all series of a file, in its order, as blocks of whole series.

    Args:
        source: The file.
        layout: Its columns.
        sort: Read all of the long form first and sort it by key, for files where the rows of a
            series are not together.

    Raises:
        TableError: If the rows of a series are not together, a key is null, a list is null, empty
            or of another length than that of the target, or a series comes twice.
    """
    batches = _with_keys(source.read(layout.columns), layout)
    if layout.nested:
        yield from _nested_blocks(batches, layout)
        return
    if sort:
        fields = [source.schema.field(name) for name in layout.columns]
        whole = pa.Table.from_batches(batches, pa.schema(fields))
        keys = [(key, "ascending") for key in layout.keys]
        batches = iter(whole.sort_by(keys).to_batches(max_chunksize=BATCH_ROWS))
    yield from _long_blocks(batches, layout, in_place=not sort)


def _with_keys(batches: Iterator[pa.RecordBatch], layout: Layout) -> Iterator[pa.RecordBatch]:
    """Pass batches on whose rows all have a key."""
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
        yield batch


def _nested_blocks(batches: Iterator[pa.RecordBatch], layout: Layout) -> Iterator[Block]:
    seen = _Seen(_refuse_repeated)
    for batch in batches:
        block = _nested_block(pa.Table.from_batches([batch]), layout)
        if layout.duplicates == "error":
            seen.add(block.keys)
        yield block
    seen.check()


def _nested_block(table: pa.Table, layout: Layout) -> Block:
    keys = table.select(layout.keys)
    target = _side(table, layout.target, keys)
    predictions = {}
    for model in layout.models:
        side = _side(table, model, keys)
        differ = np.diff(side.offsets) != np.diff(target.offsets)
        if side.channels != target.channels:
            differ[:] = True
        if (rows := np.flatnonzero(differ)).size:
            fault = f"differs from {layout.target} in length in series {_names(keys, rows)}"
            raise TableError((model, fault))
        predictions[model] = side.values
    return _block(keys, target.values, predictions, target.offsets, table.num_rows)


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


def _long_blocks(
    batches: Iterator[pa.RecordBatch], layout: Layout, *, in_place: bool
) -> Iterator[Block]:
    seen = _Seen(partial(_refuse_apart, layout))
    rows = 0
    for table in _whole_series(batches, layout):
        groups = _together(table, layout)
        seen.add(groups.keys)
        first_row = rows if in_place else None
        _check_times(table, groups, layout, first_row)
        rows += table.num_rows
        type_ = element_type(table.schema, layout)
        target, *predictions = [tensor_of_column(table.column(n), type_) for n in layout.numbers]
        by_model = dict(zip(layout.models, predictions, strict=True))
        yield _block(groups.keys, target, by_model, groups.offsets, table.num_rows, first_row)
    seen.check()


def _whole_series(batches: Iterator[pa.RecordBatch], layout: Layout) -> Iterator[pa.Table]:
    rest: list[pa.Table] = []  # the last series of a batch may go on in the next
    for batch in batches:
        table = pa.Table.from_batches([batch])
        if table.num_rows == 0:
            continue
        groups = _together(table, layout)
        starts = groups.offsets[:-1]
        goes_on = bool(rest) and _is_one_series(rest[-1].slice(len(rest[-1]) - 1), table, layout)
        if goes_on and len(groups) == 1:
            rest.append(table)
            continue
        if rest or len(groups) > 1:
            yield pa.concat_tables([*rest, table.slice(0, starts[-1])]).combine_chunks()
        rest = [table.slice(starts[-1])]
    if rest:
        yield pa.concat_tables(rest).combine_chunks()


def _check_times(table: pa.Table, groups: Groups, layout: Layout, first_row: int | None) -> None:
    """Refuse a series that has one time twice.

    Args:
        table: Whole series.
        groups: They themselves.
        layout: The columns.
        first_row: Which row of the file the table begins with, None if that is not known.
    """
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
        f"{len(repeats.rows)} such rows read so far); {HINT} Name it by --cutoff-col, or pass "
        "--duplicates allow"
    )
    raise TableError((layout.time, fault))


def _is_one_series(last: pa.Table, table: pa.Table, layout: Layout) -> bool:
    """Tell whether the first row of a table goes on with the series of another row."""
    both = pa.concat_tables([last.select(layout.keys), table.slice(0, 1).select(layout.keys)])
    return len(group_rows(both)) == 1


def _together(table: pa.Table, layout: Layout) -> Groups:
    """Return the series of some rows; refuse rows that are not together."""
    groups = group_rows(table.select(layout.keys))
    if groups.order is not None:
        first, last = groups.order[groups.offsets[:-1]], groups.order[groups.offsets[1:] - 1]
        _refuse_apart(layout, groups, last - first + 1 != np.diff(groups.offsets))
    return groups


def _refuse_apart(layout: Layout, groups: Groups, apart: npt.NDArray[np.bool_]) -> None:
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
        f"so far); {HINT} Name it by --cutoff-col, or pass --duplicates allow"
    )
    raise TableError(("", fault))


class _Seen:
    """The keys of all blocks so far; looked at whenever there are twice as many as before."""

    def __init__(self, refuse: Callable[[Groups, npt.NDArray[np.bool_]], None]) -> None:
        self._refuse = refuse
        self._keys: list[pa.Table] = []
        self._count, self._due = 0, _FIRST_LOOK

    def add(self, keys: pa.Table) -> None:
        self._keys.append(keys)
        self._count += keys.num_rows
        if self._count >= self._due:
            self.check()
            self._due = 2 * self._count

    def check(self) -> None:
        """Refuse a series that was added twice."""
        if not self._keys:
            return
        groups = group_rows(pa.concat_tables(self._keys))
        sizes = np.diff(groups.offsets)
        if (sizes > 1).any():
            self._refuse(groups, sizes > 1)


def _block(  # noqa: PLR0913, PLR0917 - one private call
    keys: pa.Table,
    target: torch.Tensor,
    predictions: dict[str, torch.Tensor],
    offsets: npt.NDArray[np.int64],
    rows: int,
    first_row: int | None = None,
) -> Block:
    shared = torch.from_numpy(offsets)
    sides = [target, *predictions.values()]
    dtype = torch.float32 if all(s.dtype == torch.float32 for s in sides) else torch.float64
    return Block(
        keys,
        Ragged(target.to(dtype), shared),
        {model: Ragged(values.to(dtype), shared) for model, values in predictions.items()},
        rows,
        first_row,
    )
