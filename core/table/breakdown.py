"""Elements pooled by other columns than those of a series: a category, a weekday, the horizon."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loss_scoring.core.table.comparison.frames import ScoresError, codes
from loss_scoring.core.table.comparison.pooling import HORIZON, UnorderedError, moments_of, pool
from loss_scoring.core.table.groups import Groups, NullKeyError
from loss_scoring.core.table.joining.faults import TableError, absent_faults


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
        TableError: If a column is absent or its values cannot be compared, or a horizon is wanted
            without times that have an order.

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
    try:
        member = np.repeat(codes(series.keys, series.keys.column_names), np.diff(series.offsets))
        moments = None if time is None else _moments(table, time, derived=derived)[rows]
        pools = pool(table, by, rows, member, moments)
    except ScoresError as error:
        raise TableError(("", str(error))) from error
    first = pools.offsets[:-1]
    keys = {
        name: _take(table[name], pools.rows[first])
        if name in names
        else pa.chunked_array([pools.horizon[first]])
        for name in by
    }
    return Groups(pa.table(keys), pools.offsets, pools.rows)


def _take(column: pa.ChunkedArray, rows: NDArray[np.int64]) -> pa.ChunkedArray:
    if pa.types.is_string_view(column.type):  # Arrow cannot take rows of views
        column = column.cast(pa.large_string())
    return column.take(pa.array(rows))


def _moments(table: pa.Table, time: str, *, derived: bool) -> NDArray[np.int64]:
    """Number times in their order, nulls first.

    Raises:
        TableError: If a horizon is to be derived, and there is a null, or text of unknown order.
    """
    times = table[time]
    known = times.is_valid().to_numpy()
    if derived and not known.all():
        row = int(np.flatnonzero(~known)[0])
        raise TableError((time, f"is null in row {row}, which is at no place of a horizon"))
    moments = np.full(len(times), -1)
    try:
        moments[known] = moments_of(times.drop_null())
    except UnorderedError as error:
        if derived:
            raise TableError((time, str(error))) from error
        moments[known] = codes(pa.table({time: times.drop_null()}), [time])
    return moments
