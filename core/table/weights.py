"""What elements weigh, and what the losses of a series are divided by, from columns of a table."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loss_scoring.core.scoring import invalid_weights
from loss_scoring.core.table.joining.faults import TableError
from loss_scoring.core.table.joining.groups import Groups
from loss_scoring.core.table.joining.spelling import spell_series
from loss_scoring.core.table.numbers import array_of_column

VALID_WEIGHT = "finite and at least 0"


class CellsError(TableError):
    """Cells of a column of numbers break the rules.

    Attributes:
        column: Its name.
        rows: All such rows of the table, in order.
        describe: Says what is wrong with one of them, by its place among these.
    """

    def __init__(
        self, column: str, rows: NDArray[np.int64], describe: Callable[[int], str]
    ) -> None:
        self.column, self.rows, self.describe = column, rows, describe
        first = f"in row {rows[0]} {describe(0)} (the first of {len(rows)} such rows)"
        super().__init__((column, first))


def weights_of(name: str, column: pa.ChunkedArray, groups: Groups) -> NDArray[np.float64]:
    """Return the weight of each element, series by series.

    Raises:
        CellsError: If one is null, negative or not finite.
    """
    weights = _doubles(column, groups)
    _check(name, invalid_weights(weights), weights, groups, f"a weight must be {VALID_WEIGHT}")
    return weights


def scales_of(name: str, column: pa.ChunkedArray, groups: Groups) -> NDArray[np.float64]:
    """Return the scale of each series, NaN for null.

    Raises:
        CellsError: If it is not the same in all rows of a series.
    """
    cells = _doubles(column, groups)
    first = cells[groups.offsets[:-1]]
    expected = np.repeat(first, np.diff(groups.offsets))
    differ = (cells != expected) & ~(np.isnan(cells) & np.isnan(expected))
    _check(
        name,
        np.flatnonzero(differ),
        cells,
        groups,
        "a series has one scale, the same in all its rows",
    )
    return first


def _doubles(column: pa.ChunkedArray, groups: Groups) -> NDArray[np.float64]:
    return array_of_column(column, pa.float64(), groups.order)


def _check(
    name: str, positions: NDArray[np.int64], cells: NDArray[np.float64], groups: Groups, rule: str
) -> None:
    if not len(positions):
        return
    positions = positions[np.argsort(groups.rows_at(positions))]
    rows = groups.rows_at(positions)

    def describe(i: int) -> str:
        series = int(np.searchsorted(groups.offsets, positions[i], side="right")) - 1
        return (
            f"of the series {spell_series(groups.keys, series)} is {cells[positions[i]]:g}; {rule}"
        )

    raise CellsError(name, rows, describe)
