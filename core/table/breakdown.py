"""Elements pooled by other columns than those of a series: a category, a weekday, the horizon."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from loss_scoring.core.table.columns import TableError, absent_faults, is_text
from loss_scoring.core.table.comparison.frames import codes
from loss_scoring.core.table.groups import Groups, NullKeyError
from loss_scoring.core.table.spelling import spell_cell

HORIZON = "horizon"
"""Where no column has this name: the place of an element in its series by time, from 1."""


def columns_of_breakdown(by: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the columns to break down by; None if series are scored.

    ``model`` goes without saying, as every row of an answer is of one model.
    """
    if by is None:
        return None
    names = (by,) if isinstance(by, str) else by
    return tuple(name for name in dict.fromkeys(names) if name != "model")


def break_down(table: pa.Table, series: Groups, by: Sequence[str], time: str | None) -> Groups:
    """Group the elements of series by other columns.

    Elements of a group are ordered by series and time, and groups by their values, so that an
    answer has the same bits in whatever order the rows are.

    Args:
        table: One row an element.
        series: Its series.
        by: The columns; ``horizon`` is derived where there is none.
        time: The column of times, if there is one.

    Raises:
        NullKeyError: If a value of a column is null.
        TableError: If a column is absent, or a horizon is wanted without times that have an order.

    Example:
        >>> from loss_scoring.core.table import group_rows
        >>> table = pa.table({"id": ["a", "a", "b", "b"], "ds": [2, 1, 1, 2]})
        >>> groups = break_down(table, group_rows(table.select(["id"])), ["horizon"], "ds")
        >>> groups.keys["horizon"].to_pylist(), groups.offsets.tolist(), groups.order.tolist()
        ([1, 2], [0, 2, 4], [1, 2, 0, 3])
    """
    derived = HORIZON in by and HORIZON not in table.column_names
    names = [name for name in by if name != HORIZON or not derived]
    if absent := [name for name in names if name not in table.column_names]:
        raise TableError(*absent_faults(absent, table.column_names))
    for name in names:
        if table[name].null_count:
            raise NullKeyError(name, np.flatnonzero(table[name].is_null().to_numpy()))
    if derived and time is None:
        raise TableError(("", "there is no column of times to derive a horizon from"))
    rows = np.arange(len(table)) if series.order is None else series.order
    member = np.repeat(codes(series.keys, series.keys.column_names), np.diff(series.offsets))
    order = (member,) if time is None else (_moments(table, time, derived=derived)[rows], member)
    rows = rows[np.lexsort(order)]
    sizes = np.bincount(member)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1
    columns = {
        name: _take(table[name], rows) if name in names else pa.chunked_array([places])
        for name in by
    }
    if not columns:
        return Groups(pa.table({}), np.array([0, len(rows)]), rows)
    in_order = pa.table(columns)
    group = codes(in_order, by)
    within = np.argsort(group, kind="stable")
    offsets = np.append(0, np.cumsum(np.bincount(group)))
    return Groups(in_order.take(pa.array(within[offsets[:-1]])), offsets, rows[within])


def _take(column: pa.ChunkedArray, rows: NDArray[np.int64]) -> pa.ChunkedArray:
    if pa.types.is_string_view(column.type):  # Arrow cannot take rows of views
        column = column.cast(pa.large_string())
    return column.take(pa.array(rows))


def _moments(table: pa.Table, time: str, *, derived: bool) -> NDArray[np.int64]:
    """Number times in their order; text that is whole numbers or ISO 8601 by what it means.

    Raises:
        TableError: If a horizon is to be derived, and there is a null, or text of another kind.
    """
    times = table[time]
    if is_text(times.type):
        times = _meant(times, time, derived=derived)
    if not times.null_count:
        return codes(pa.table({time: times}), [time])
    if derived:
        row = int(np.flatnonzero(times.is_null().to_numpy())[0])
        raise TableError((time, f"is null in row {row}, which is at no place of a horizon"))
    known = times.is_valid().to_numpy()
    moments = np.full(len(times), -1)
    moments[known] = codes(pa.table({time: times.filter(pa.array(known))}), [time])
    return moments


def _meant(texts: pa.ChunkedArray, time: str, *, derived: bool) -> pa.ChunkedArray:
    for type_ in (pa.int64(), pa.timestamp("ns"), pa.timestamp("ns", "UTC")):
        try:
            return texts.cast(type_)
        except pa.ArrowInvalid:
            continue
    if derived:
        row = int(pc.index(pc.is_valid(texts), True).as_py())
        shown = spell_cell(texts, row)
        raise TableError(
            (time, f"holds text such as {shown}, of unknown order; cast it to times for a horizon")
        )
    return texts
