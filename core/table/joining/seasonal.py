"""Scales of series by their history: how far off a seasonal naive forecast was in it."""

from contextlib import suppress
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .cells import decoded, is_text, spell_type
from .faults import TableError
from .groups import Groups, RepeatedTimeError, find_repeats, group_rows, match_rows, sort_by_time

_NUMBERS = str.maketrans("uf", "ii")
"""Kinds of numpy's numbers, which are compared with each other."""
_SPELLED = (pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC"))


class SeasonalDifferences:
    """How far each value of a history is from that a season before, in the order of time.

    Args:
        keys: The columns that name a series; a row a value, in any order.
        name: The column of times.
        times: Those of the values.
        values: A difference with one that is NaN or infinite is left out.
        seasonality: How many rows a season has.
        cutoff: The column of cutoffs among the keys of what is scored.
        label: What messages call the history.

    Raises:
        TableError: If a key or time is null, a series has one time twice, or times have no order.

    Example:
        >>> history = pa.table({"id": ["a"] * 4, "ds": [1, 3, 2, 4]})
        >>> ids, values = history.select(["id"]), np.array([1.0, 4, 2, 9])
        >>> history = SeasonalDifferences(ids, "ds", history["ds"], values, 1)
        >>> series = group_rows(pa.table({"id": ["a"] * 3 + ["b"], "cutoff": [4, 3, 0, 4]}))
        >>> history.scales(series, squared=False).tolist()
        [2.6666666666666665, 1.5, nan, nan]
    """

    def __init__(  # noqa: PLR0913, PLR0917 - columns
        self,
        keys: pa.Table,
        name: str,
        times: pa.ChunkedArray,
        values: NDArray[np.float64],
        seasonality: int,
        cutoff: str | None = "cutoff",
        label: str = "the history",
    ) -> None:
        groups = group_rows(keys)
        if len((repeats := find_repeats(times, groups)).rows):
            raise RepeatedTimeError(name, repeats, times, groups, f"These are rows of {label}.")
        times = in_order(name, times, f", in {label}")
        groups = sort_by_time(times, groups)
        self._series, self._type = groups.keys, times.type
        self._time, self._cutoff, self._label = name, cutoff, label
        self._moments, codes = np.unique(times.to_numpy(), return_inverse=True)
        self._keys = groups.member * (len(self._moments) + 1) + groups.arranged(codes)
        values = groups.arranged(values)
        self._differences = np.full(len(values), np.nan)
        with np.errstate(invalid="ignore"):
            self._differences[seasonality:] = np.abs(values[seasonality:] - values[:-seasonality])
        rank = np.arange(len(values)) - groups.offsets[groups.member]
        self._differences[rank < seasonality] = np.nan

    def scales(
        self, groups: Groups, times: pa.ChunkedArray | None = None, *, squared: bool
    ) -> NDArray[np.float64]:
        """Return the mean of the differences of each series, NaN if there is none.

        Args:
            groups: The series; those of their cutoffs count that are not after them.
            times: Of their rows, in the order of their table; without cutoffs, differences count
                that are before all of them.
            squared: Whether it is the root of the mean of their squares.

        Raises:
            TableError: If neither cutoffs nor times are known, or they or the keys cannot be
                compared with those of the history.
        """
        limits = self._limits(groups, times)
        series = match_rows(
            self._series, groups.keys.select(self._series.column_names), self._label
        )
        size = len(self._moments) + 1
        starts = np.searchsorted(self._keys, series * size)
        stops = np.where(series < 0, starts, np.searchsorted(self._keys, series * size + limits))
        with np.errstate(over="ignore"):
            terms = self._differences**2 if squared else self._differences
        is_known = np.isfinite(self._differences)
        counts = _sums(is_known.astype(np.float64), starts, stops)
        with np.errstate(invalid="ignore"):
            means = _sums(np.where(is_known, terms, 0), starts, stops) / counts
        return np.sqrt(means) if squared else means

    def _limits(self, groups: Groups, times: pa.ChunkedArray | None) -> NDArray[np.int64]:
        """Return how many of all moments of the history count, for each series."""
        if self._cutoff in groups.keys.column_names:
            return self._before(str(self._cutoff), groups.keys.column(self._cutoff), "right")
        if times is None:
            raise TableError(("", "has neither cutoffs nor times, up to which history is used"))
        limits = groups.arranged(self._before(self._time, times, "left"))
        return np.minimum.reduceat(limits, groups.offsets[:-1]) if len(groups) else limits

    def _before(
        self, name: str, times: pa.ChunkedArray, side: Literal["left", "right"]
    ) -> NDArray[np.int64]:
        """Return how many of all moments of the history are before each time.

        Args:
            name: The column of the times.
            times: In any type that can be compared with those of the history.
            side: ``right`` counts a moment that is the time itself.
        """
        times = in_order(name, times)
        moments = times.to_numpy()
        types = times.type, self._type
        zones = {getattr(type_, "tz", None) is None for type_ in types}
        kinds = {x.dtype.kind.translate(_NUMBERS) for x in (moments, self._moments)}
        if len(zones) > 1 or len(kinds) > 1:
            found, own = map(spell_type, types)
            raise TableError((name, f"is {found}, not comparable with {own} of {self._label}"))
        known = _within(self._moments, moments.dtype)
        counts: NDArray[np.int64] = np.searchsorted(
            known, _within(moments, self._moments.dtype), side=side
        )
        return counts


def _within(moments: NDArray[Any], unit: np.dtype[Any]) -> NDArray[Any]:
    """Return moments no further than a finer unit reaches, to which numpy would wrap them."""
    if moments.dtype == unit or moments.dtype.kind not in "mM":
        return moments
    most = np.iinfo(np.int64).max - 10**15  # days less, as numpy also wraps where it rounds down
    ends = np.array([-most, most]).view(np.promote_types(moments.dtype, unit))
    within: NDArray[Any] = np.clip(moments, *ends.astype(moments.dtype))
    return within


def in_order(name: str, times: pa.ChunkedArray, where: str = "") -> pa.ChunkedArray:
    """Return times in a type whose order is theirs: text as the numbers or moments that it says.

    Args:
        name: Their column.
        times: In any type.
        where: What messages end with.

    Raises:
        TableError: If a time is null, or text that says neither a number nor a time.
    """
    type_ = decoded(times.type)
    if pa.types.is_dictionary(times.type):
        times = times.cast(type_)
    if times.null_count:
        row = times.is_null().index(True).as_py()
        detail = f"is null in row {row}, so that nothing is before or after it{where}"
        raise TableError((name, detail))
    if not is_text(type_):
        return times
    for wanted in _SPELLED:
        with suppress(pa.ArrowInvalid):
            return times.cast(wanted)
    raise TableError((name, f"is text that says neither numbers nor times of ISO 8601{where}"))


def _sums(
    terms: NDArray[np.float64], starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the sum of the terms from each start to its stop, in pairs as numpy sums."""
    if not len(starts):
        return np.empty(0)
    slices = np.stack([starts, stops], axis=1).ravel()
    sums = np.add.reduceat(np.append(terms, 0), slices)[::2]
    return np.where(stops > starts, sums, 0)
