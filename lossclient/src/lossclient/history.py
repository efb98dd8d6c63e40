"""The scales of series by their history: how far off a seasonal naive forecast was in it.

As ``loss_scoring.core.table.History`` makes them, to the bit: of no row after a cutoff.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lossclient.cells import Cells, cells_of, floats_of
from lossclient.columns import Columns, numbers_of
from lossclient.exceptions import InvalidInput
from lossclient.grouping import Int64s, codes_of, group

SQUARED: Mapping[str, bool] = {"mase": False, "rmsse": True}
"""The losses that are divided by a scale, and whether it is the root of a mean of squares."""
_SPELLED = (pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC"))
_NUMBERS = str.maketrans("uf", "ii")
"""Kinds of numpy's numbers, which are compared with each other."""


class Limits(NamedTuple):
    """Up to where the history of each series counts.

    Attributes:
        ids: Of the series.
        times: Their cutoffs, or the times of their first rows.
        inclusive: Whether a row at that time counts.
    """

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
        times = _in_order(columns.time, times)
        self._ids, self._type = ids.take(pa.array(groups.first)), times.type
        moments = times.to_numpy(zero_copy_only=False)
        self._moments, codes = np.unique(moments, return_inverse=True)
        member = np.repeat(np.arange(len(groups.first)), np.diff(groups.offsets))
        self._places = member * (len(self._moments) + 1) + codes[order]
        target = floats_of(numbers_of(columns.target, cells(columns.target)), narrow=False)
        values = target.astype(np.float64, copy=False)[order]
        self._differences = _differences(values, groups.offsets, seasonality)

    def scales(self, loss: str, limits: Limits) -> npt.NDArray[np.float64]:
        """Return the scale of each series, NaN without a difference before its limit."""
        stops = self._limits(limits)
        series, size = _match(self._ids, limits.ids), len(self._moments) + 1
        first = np.searchsorted(self._places, series * size)
        last = np.where(series < 0, first, np.searchsorted(self._places, series * size + stops))
        terms = self._differences**2 if SQUARED[loss] else self._differences
        is_known = np.isfinite(terms)
        counts = _sums(is_known.astype(np.float64), first, last)
        with np.errstate(invalid="ignore"):
            means = _sums(np.where(is_known, terms, 0), first, last) / counts
        return np.sqrt(means) if SQUARED[loss] else means

    def _limits(self, limits: Limits) -> Int64s:
        """Return how many of all moments of the history count, for each series."""
        times = _in_order("cutoff", limits.times)
        moments = times.to_numpy(zero_copy_only=False)
        zones = {getattr(type_, "tz", None) is None for type_ in (times.type, self._type)}
        kinds = {x.dtype.kind.translate(_NUMBERS) for x in (moments, self._moments)}
        if len(zones) > 1 or len(kinds) > 1:
            raise InvalidInput(
                f"cutoffs or times are {times.type}, not comparable with {self._type} of train_df"
            )
        side: Any = "right" if limits.inclusive else "left"
        places: Int64s = np.searchsorted(self._moments, moments, side=side)
        return places


def _in_order(name: str, times: pa.Array) -> pa.Array:
    """Return times in a type whose order is theirs: text as the numbers or moments that it says."""
    if not (pa.types.is_string(times.type) or pa.types.is_large_string(times.type)):
        return times
    for wanted in _SPELLED:
        with suppress(pa.ArrowInvalid):
            return times.cast(wanted)
    raise InvalidInput(f"column {name!r} is text that says neither numbers nor times of ISO 8601")


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


def _differences(
    values: npt.NDArray[np.float64], offsets: Int64s, seasonality: int
) -> npt.NDArray[np.float64]:
    """Return how far each value is from that a season before, NaN where there is none."""
    differences = np.full(len(values), np.nan)
    with np.errstate(invalid="ignore"):
        differences[seasonality:] = np.abs(values[seasonality:] - values[:-seasonality])
    rank = np.arange(len(values)) - np.repeat(offsets[:-1], np.diff(offsets))
    differences[rank < seasonality] = np.nan
    return differences


def _sums(terms: npt.NDArray[np.float64], starts: Int64s, stops: Int64s) -> npt.NDArray[np.float64]:
    """Return the sum of the terms from each start to its stop, in pairs as numpy sums."""
    if not len(starts):
        return np.empty(0)
    places = np.stack([starts, stops], axis=1).ravel()
    sums = np.add.reduceat(np.append(terms, 0), places)[::2]
    return np.where(stops > starts, sums, 0)
