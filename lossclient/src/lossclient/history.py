"""The scales of series by their history: how far off a seasonal naive forecast was in it.

As ``loss_scoring.core.table.History`` makes them, to the bit: of no row after a cutoff.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lossclient.cells import Cells, cells_of, floats_of
from lossclient.columns import Columns, numbers_of
from lossclient.exceptions import InvalidInput
from lossclient.grouping import Int64s, codes_of, group
from lossclient.joining.seasonal import SeasonalDifferences, in_order

SQUARED: Mapping[str, bool] = {"mase": False, "rmsse": True}
"""The losses that are divided by a scale, and whether it is the root of a mean of squares."""


class Limits(NamedTuple):
    """Up to where the history of each series counts.

    Attributes:
        name: The column of the times.
        ids: Of the series.
        times: Their cutoffs, or the times of their first rows.
        inclusive: Whether a row at that time counts.
    """

    name: str
    ids: pa.Array
    times: pa.Array
    inclusive: bool


class History:
    """Past values of series.

    Args:
        frame: As `open_frame` returns it: a row a series and time, in any order.
        columns: The names of its columns; id, time and target are read.
        comparable: Returns ids and times that are compared by value.
        seasonality: How many rows a season has.

    Raises:
        InvalidInput: If a column is absent or of a wrong type, or a series has one time twice.
    """

    def __init__(
        self,
        frame: Any,
        columns: Columns,
        comparable: Callable[[str, Cells, str], pa.Array],
        seasonality: int,
    ) -> None:
        cells = cache(lambda name: cells_of(frame, name))
        if columns.time is None:
            raise InvalidInput("a history has times: pass time_col")
        for name in (columns.id, columns.time, columns.target):
            if name not in frame.columns:
                raise InvalidInput(f"no column {name!r} in train_df")
        ids, times = (
            comparable(name, cells(name), "so it is of no use in train_df")
            for name in (columns.id, columns.time)
        )
        groups = group([ids], times)
        order = slice(None) if groups.order is None else groups.order
        if len(groups.repeats):
            row = np.arange(len(ids))[order][groups.repeats[0]]
            again = f"{columns.time} {times[row].as_py()} twice, in row {row}"
            raise InvalidInput(f"series {ids[row].as_py()!r} of train_df has {again}")
        self._ids = ids.take(pa.array(groups.first))
        target = floats_of(numbers_of(columns.target, cells(columns.target)), narrow=False)
        values = target.astype(np.float64, copy=False)[order]
        times = in_order(columns.time, pa.chunked_array([times]), ", in train_df")
        if groups.order is not None:
            times = times.take(pa.array(order))
        self._differences = SeasonalDifferences(
            values, groups.offsets, times, seasonality, "train_df"
        )

    def scales(self, loss: str, limits: Limits) -> npt.NDArray[np.float64]:
        """Return the scale of each series, NaN without a difference before its limit.

        Raises:
            TableError: If ids or times cannot be compared with those of the history.
        """
        times = pa.chunked_array([limits.times])
        counts = self._differences.limits(
            limits.name, times, "right" if limits.inclusive else "left"
        )
        return self._differences.scales(
            _match(self._ids, limits.ids), counts, squared=SQUARED[loss]
        )


def _match(known: pa.Array, wanted: pa.Array) -> Int64s:
    """Return where each id is among the known ones, -1 for nowhere."""
    try:
        both = [pa.table([ids], ["id"]) for ids in (known, wanted)]
        joined = pa.concat_tables(both, promote_options="permissive").column(0).combine_chunks()
    except pa.ArrowException as error:
        types = f"{wanted.type} and {known.type}"
        raise InvalidInput(f"the ids of the frame and of train_df are {types}") from error
    codes = codes_of(joined)
    places = np.full(int(codes.max(initial=-1)) + 1, -1)
    places[codes[: len(known)]] = np.arange(len(known))
    return places[codes[len(known) :]]
