"""Rows of one series at one time: a table joined to itself, or series that share a key."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from loss_scoring.core.table.columns import TableError
from loss_scoring.core.table.groups import Groups, comparable, takeable
from loss_scoring.core.table.numbers import one_array
from loss_scoring.core.table.spelling import spell_cell, spell_series

HINT = (
    "does the table hold its rows twice, or is there another column, such as a cutoff, that tells "
    "series apart?"
)


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
    column = _compared(times, groups)
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
        >>> from loss_scoring.core.table import group_rows
        >>> table = pa.table({"id": ["a", "b", "a"], "ds": [1, 1, 1]})
        >>> repeats = find_repeats(table["ds"], group_rows(table.select(["id"])))
        >>> repeats.rows.tolist(), repeats.earlier.tolist(), repeats.series.tolist()
        ([2], [0], [0])
    """
    if increases(times, groups):
        none = np.empty(0, np.int64)
        return Repeats(none, none, none)
    coded = one_array(_compared(times, groups)).dictionary_encode()
    places = np.flatnonzero(coded.indices.is_valid())
    member = np.repeat(np.arange(len(groups)), np.diff(groups.offsets))[places]
    keys = coded.indices.drop_null().to_numpy() + len(coded.dictionary) * member
    ranked = np.argsort(keys, kind="stable")
    again = np.flatnonzero(np.diff(keys[ranked]) == 0)
    rows, earlier = places[ranked[again + 1]], places[ranked[again]]
    series = member[ranked[again]]
    if groups.order is not None:
        rows, earlier = groups.order[rows], groups.order[earlier]
    ascending = np.argsort(rows)
    return Repeats(rows[ascending], earlier[ascending], series[ascending])


def _compared(times: pa.ChunkedArray, groups: Groups) -> pa.ChunkedArray:
    """Return times that are equal where others are, series by series."""
    column = takeable(times)
    if groups.order is not None:
        column = column.take(pa.array(groups.order))
    return comparable(column)
