"""The scales of series by their history: how far off a seasonal naive forecast was in it."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loss_scoring.core.losses import LOSSES
from loss_scoring.core.table.columns import Layout, faults_of, text_faults
from loss_scoring.core.table.groups import (
    Groups,
    RepeatedTimeError,
    find_repeats,
    group_rows,
    match_rows,
)
from loss_scoring.core.table.joining.cells import decoded, is_text, spell_type
from loss_scoring.core.table.joining.faults import TableError
from loss_scoring.core.table.numbers import array_of_column

_NUMBERS = str.maketrans("uf", "ii")
"""Kinds of numpy's numbers, which are compared with each other."""
_SPELLED = (pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC"))


class History:
    """Past values of series, of which scales are made.

    The scale of ``mase`` is the mean of ``|y[t] - y[t - seasonality]|`` over the rows of a series
    up to its cutoff, that of ``rmsse`` the root of the mean of its square; as in
    ``utilsforecast.losses``. No row after the cutoff is used, whatever the history holds; where
    series have no cutoff, none that is not before their first row.

    Args:
        table: One row a series and time, in any order.
        keys: The columns that name a series; its history has those of them that are in the table,
            but for the cutoff, and at least one.
        time: The column of times.
        target: The column of values. A difference with a missing value is left out.
        seasonality: How many rows a season has.
        cutoff: The column of cutoffs among the keys.

    Raises:
        TableError: If a column is absent or of the wrong type, or a series has one time twice.
        ValueError: If ``seasonality`` is less than 1.

    Example:
        >>> table = pa.table({"unique_id": ["a"] * 4, "ds": [1, 2, 3, 4], "y": [1, 2, 4, 9]})
        >>> history = History(table, ["unique_id", "cutoff"], "ds", "y", seasonality=1)
        >>> series = group_rows(pa.table({"unique_id": ["a", "a", "b"], "cutoff": [3, 2, 3]}))
        >>> history.scales("mase", series).tolist()
        [1.5, 1.0, nan]
    """

    def __init__(  # noqa: PLR0913, PLR0917 - columns
        self,
        table: pa.Table,
        keys: Sequence[str],
        time: str,
        target: str,
        seasonality: int,
        cutoff: str = "cutoff",
    ) -> None:
        if seasonality < 1:
            raise ValueError(f"seasonality must be at least 1, not {seasonality}")
        own = [name for name in keys if name != cutoff]
        self._ids = [name for name in own if name in table.schema.names] or own
        self._cutoff = cutoff
        layout = Layout(tuple(self._ids), target, (time,))
        faults = [*text_faults(table, [target]), *faults_of(table.schema, layout)]
        faults = [fault for fault in faults if fault[0] != time or time not in table.schema.names]
        if faults:
            raise TableError(*((name, f"{detail}, in the history") for name, detail in faults))
        groups = group_rows(table.select(self._ids))
        times = table.column(time)
        if len((repeats := find_repeats(times, groups)).rows):
            raise RepeatedTimeError(time, repeats, times, groups, "These are rows of the history.")
        self._keys = groups.keys
        times = _in_order(time, times)
        self._type = times.type
        self._moments, codes = np.unique(times.to_numpy(), return_inverse=True)
        member = np.repeat(np.arange(len(groups)), np.diff(groups.offsets))
        codes = codes if groups.order is None else codes[groups.order]
        values = array_of_column(table.column(target), pa.float64(), groups.order)
        in_time = np.lexsort((codes, member))
        self._places = (member * (len(self._moments) + 1) + codes)[in_time]
        self._differences = _differences(values[in_time], groups.offsets, seasonality)

    def scales(
        self, loss: str, groups: Groups, times: pa.ChunkedArray | None = None
    ) -> NDArray[np.float64]:
        """Return what a loss of each series is divided by, NaN without a difference before it.

        Args:
            loss: A loss that is scaled.
            groups: The series.
            times: Of their rows, in the order of their table; needed without cutoffs.

        Raises:
            TableError: If neither cutoffs nor times are known, or they cannot be compared with
                those of the history.
        """
        limits = self._limits(groups, times)
        series = match_rows(self._keys, groups.keys.select(self._ids))
        size = len(self._moments) + 1
        starts = np.searchsorted(self._places, series * size)
        stops = np.searchsorted(self._places, series * size + limits)
        stops = np.where(series < 0, starts, stops)
        is_square = LOSSES[loss].root
        with np.errstate(over="ignore"):
            terms = self._differences**2 if is_square else self._differences
        is_known = np.isfinite(self._differences)
        counts = _sums(is_known.astype(np.float64), starts, stops)
        with np.errstate(invalid="ignore"):
            means = _sums(np.where(is_known, terms, 0), starts, stops) / counts
        return np.sqrt(means) if is_square else means

    def _limits(self, groups: Groups, times: pa.ChunkedArray | None) -> NDArray[np.int64]:
        """Return how many of all moments of the history count, for each series."""
        if self._cutoff in groups.keys.column_names:
            cutoffs = groups.keys.column(self._cutoff)
            return self._among(self._cutoff, cutoffs, "right")
        if times is None:
            raise TableError(("", "has neither cutoffs nor times, up to which history is used"))
        limits = self._among("time", times, "left")
        limits = limits if groups.order is None else limits[groups.order]
        return np.minimum.reduceat(limits, groups.offsets[:-1]) if len(groups) else limits

    def _among(self, name: str, times: pa.ChunkedArray, side: Any) -> NDArray[np.int64]:
        times = _in_order(name, times)
        moments = times.to_numpy()
        types = times.type, self._type
        zones = {getattr(type_, "tz", None) is None for type_ in types}
        kinds = {x.dtype.kind.translate(_NUMBERS) for x in (moments, self._moments)}
        if len(zones) > 1 or len(kinds) > 1:
            found, own = map(spell_type, types)
            raise TableError((name, f"is {found}, not comparable with {own} of the history"))
        places: NDArray[np.int64] = np.searchsorted(self._moments, moments, side=side)
        return places


def _in_order(name: str, times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times in a type whose order is theirs: text as the numbers or moments that it says."""
    type_ = decoded(times.type)
    if pa.types.is_dictionary(times.type):
        times = times.cast(type_)
    if times.null_count:
        row = times.is_null().index(True).as_py()
        raise TableError((name, f"is null in row {row}, so that nothing is before or after it"))
    if not is_text(type_):
        return times
    for wanted in _SPELLED:
        with suppress(pa.ArrowInvalid):
            return times.cast(wanted)
    raise TableError((name, "is text that says neither numbers nor times of ISO 8601"))


def _differences(
    values: NDArray[np.float64], offsets: NDArray[np.int64], seasonality: int
) -> NDArray[np.float64]:
    """Return how far each value is from that a season before, NaN where there is none."""
    differences = np.full(len(values), np.nan)
    with np.errstate(invalid="ignore"):
        differences[seasonality:] = np.abs(values[seasonality:] - values[:-seasonality])
    lengths = np.diff(offsets)
    rank = np.arange(len(values)) - np.repeat(offsets[:-1], lengths)
    differences[rank < seasonality] = np.nan
    return differences


def _sums(
    terms: NDArray[np.float64], starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the sum of the terms from each start to its stop, in pairs as numpy sums."""
    if not len(starts):
        return np.empty(0)
    places = np.stack([starts, stops], axis=1).ravel()
    sums = np.add.reduceat(np.append(terms, 0), places)[::2]
    return np.where(stops > starts, sums, 0)
