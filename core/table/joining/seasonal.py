"""Scales of series by their history: how far off a seasonal naive forecast was in it."""

from contextlib import suppress
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .cells import decoded, is_text, spell_type
from .faults import TableError

_NUMBERS = str.maketrans("uf", "ii")
"""Kinds of numpy's numbers, which are compared with each other."""
_SPELLED = (pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC"))


class SeasonalDifferences:
    """How far each value of a history is from that a season before, in the order of time.

    Args:
        values: Series by series; a difference with one that is NaN or infinite is left out.
        offsets: What delimits the series.
        times: Those of the values, as ``in_order`` returns them.
        seasonality: How many rows a season has.
        label: What messages call the history.

    Example:
        >>> times = pa.chunked_array([[1, 3, 2, 4]])
        >>> history = SeasonalDifferences(np.array([1.0, 4, 2, 9]), np.array([0, 4]), times, 1)
        >>> limits = history.limits("cutoff", pa.chunked_array([[4, 3, 0]]), "right")
        >>> history.scales(np.array([0, 0, 0]), limits, squared=False).tolist()
        [2.6666666666666665, 1.5, nan]
    """

    def __init__(
        self,
        values: NDArray[np.float64],
        offsets: NDArray[np.int64],
        times: pa.ChunkedArray,
        seasonality: int,
        label: str = "the history",
    ) -> None:
        self._type, self._label = times.type, label
        self._moments, codes = np.unique(times.to_numpy(), return_inverse=True)
        member = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        in_time = np.lexsort((codes, member))
        self._keys = (member * (len(self._moments) + 1) + codes)[in_time]
        values = values[in_time]
        self._differences = np.full(len(values), np.nan)
        with np.errstate(invalid="ignore"):
            self._differences[seasonality:] = np.abs(values[seasonality:] - values[:-seasonality])
        rank = np.arange(len(values)) - np.repeat(offsets[:-1], np.diff(offsets))
        self._differences[rank < seasonality] = np.nan

    def limits(
        self, name: str, times: pa.ChunkedArray, side: Literal["left", "right"]
    ) -> NDArray[np.int64]:
        """Return how many of all moments of the history are before each time.

        Args:
            name: The column of the times.
            times: In any type that can be compared with those of the history.
            side: ``right`` counts a moment that is the time itself.

        Raises:
            TableError: If they cannot be compared.
        """
        times = in_order(name, times)
        moments = times.to_numpy()
        types = times.type, self._type
        zones = {getattr(type_, "tz", None) is None for type_ in types}
        kinds = {x.dtype.kind.translate(_NUMBERS) for x in (moments, self._moments)}
        if len(zones) > 1 or len(kinds) > 1:
            found, own = map(spell_type, types)
            raise TableError((name, f"is {found}, not comparable with {own} of {self._label}"))
        counts: NDArray[np.int64] = np.searchsorted(self._moments, moments, side=side)
        return counts

    def scales(
        self, series: NDArray[np.int64], limits: NDArray[np.int64], *, squared: bool
    ) -> NDArray[np.float64]:
        """Return the mean of the differences of series up to their limits, NaN if there is none.

        Args:
            series: The number of each in the history, -1 for one that has none.
            limits: How many of all moments count, as ``limits`` returns it.
            squared: Whether it is the root of the mean of their squares.
        """
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
