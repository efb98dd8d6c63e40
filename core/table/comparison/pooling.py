"""Elements of series, pooled by other columns: a category, a weekday, the horizon."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..joining.faults import TableError, absent_faults
from ..joining.groups import Groups, codes, key_codes, takeable

HORIZON = "horizon"
"""Where no column has this name: the place of an element in its series by time, from 1."""


class UnorderedError(ValueError):
    """Text of which it is not known what comes first, such as 3/4/2026."""


def columns_to_pool_by(by: str | Sequence[str]) -> tuple[str, ...]:
    """Return the columns, each once; ``model`` goes without saying, as each row is of one."""
    names = (by,) if isinstance(by, str) else by
    return tuple(name for name in dict.fromkeys(names) if name != "model")


def break_down(table: pa.Table, series: Groups, by: Sequence[str], time: str | None) -> Groups:
    """Group the elements of series by other columns.

    Elements of a group are ordered by series and time, and groups by their values, so that an
    answer has the same bits in whatever order the rows are.

    Args:
        table: One row an element.
        series: Its series.
        by: The columns; ``horizon`` is derived where there is none. Without any, all elements are
            one group.
        time: The column of times; None leaves the rows of a series in order.

    Raises:
        NullKeyError: If a value of a column is null.
        TableError: If a column is absent, or a horizon is wanted without times that have an order.

    Example:
        >>> series = Groups(pa.table({"id": ["a", "b"]}), np.array([0, 2, 4]), None)
        >>> groups = break_down(pa.table({"ds": [2, 1, 1, 2]}), series, ["horizon"], "ds")
        >>> groups.keys["horizon"].to_pylist(), groups.offsets.tolist(), groups.order.tolist()
        ([1, 2], [0, 2, 4], [1, 2, 0, 3])
    """
    derived = HORIZON in by and HORIZON not in table.column_names
    names = [name for name in by if name != HORIZON or not derived]
    if absent := [name for name in names if name not in table.column_names]:
        raise TableError(*absent_faults(absent, table.column_names))
    columns = {name: takeable(table[name]) for name in names}
    for name, column in columns.items():
        key_codes(name, column)
    if derived and time is None:
        raise TableError(("", "there is no column of times to derive a horizon from"))
    rows = series.rows_at(np.arange(series.offsets[-1]))
    member = np.repeat(codes(series.keys, series.keys.column_names), np.diff(series.offsets))
    moments = () if time is None else (_moments(table, time, derived=derived)[rows],)
    rows, sizes = rows[np.lexsort((*moments, member))], np.bincount(member)
    horizon = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1
    group = np.zeros(len(rows), np.int64)
    if derived:
        parts = {name: codes(table, [name])[rows] for name in names} | {HORIZON: horizon}
        group = codes(pa.table(parts), by)
    elif names:
        group = codes(table, names)[rows]
    within = np.argsort(group, kind="stable")
    offsets = np.append(0, np.cumsum(np.bincount(group, minlength=0 if by else 1)))
    rows, starts = rows[within], offsets[:-1]
    keys = {
        name: columns[name].take(pa.array(rows[starts]))
        if name in columns
        else pa.array(horizon[within[starts]])
        for name in by
    }
    return Groups(pa.table(keys), offsets, rows)


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


def moments_of(times: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """Number times without nulls in their order; text by what it means.

    Raises:
        UnorderedError: If they are text, and neither whole numbers nor ISO 8601.

    Example:
        >>> moments_of(pa.array(["10", "9"])).tolist()
        [1, 0]
    """
    times = times if isinstance(times, pa.ChunkedArray) else pa.chunked_array([times])
    if any(is_text(times.type) for is_text in (pa.types.is_string, pa.types.is_large_string)):
        times = _meant(times)
    elif pa.types.is_string_view(times.type) or pa.types.is_dictionary(times.type):
        return moments_of(times.cast(getattr(times.type, "value_type", pa.large_string())))
    return codes(pa.table({"time": times}), ["time"])


def _meant(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    for type_ in (pa.int64(), pa.timestamp("ns"), pa.timestamp("ns", "UTC")):
        try:
            return texts.cast(type_)
        except pa.ArrowInvalid:
            continue
    raise UnorderedError(
        f"holds text such as {str(texts[0])[:64]!r}, of unknown order; "
        "cast it to times for a horizon"
    )
