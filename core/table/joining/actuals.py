"""Actual values from a table of their own, beside the forecasts that they belong to.

Forecasts are written at a cutoff; what became true arrives later, somewhere else. A row of actual
values belongs to each row of forecasts with the same key, so forecasts of several cutoffs share it.
Keys are compared by value: units of time, widths of integers, dictionaries and zones do not matter.
What cannot be compared (a time with a zone and one without, a number and a text) is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .cells import comparable, decoded, holds_numbers, is_text, one_array, spell_type
from .faults import HINT, TableError, absent_faults
from .spelling import spell_series

ON = ("unique_id", "ds")
_UNITS = ("s", "ms", "us", "ns")


class UnmatchedWarning(UserWarning):
    """Rows of forecasts were not scored, as they have no actual value."""


@dataclass(frozen=True)
class Matches:
    """How the rows of two tables belong together.

    Attributes:
        matched: Rows of forecasts that have an actual value.
        without_actual: Those that have none, or none yet.
        without_forecast: Rows of actual values that no forecast is for.
    """

    matched: int
    without_actual: int
    without_forecast: int

    def __str__(self) -> str:
        """Return the counts, for a message."""
        return (
            f"{self.matched} rows of forecasts have an actual value, {self.without_actual} have "
            f"none yet; {self.without_forecast} actual values are without a forecast"
        )


class Actuals:
    """A table of actual values, in which rows are found by their key.

    Args:
        table: One row a key, with the columns ``on`` and ``target``.
        on: The columns that together name a row, in both tables.
        target: The column of actual values.

    Raises:
        TableError: If a column is absent, or not of numbers where it should be, a key is null, or
            two rows have the same key.

    Example:
        >>> actuals = Actuals(pa.table({"unique_id": ["a", "a"], "ds": [1, 2], "y": [5.0, 6.0]}))
        >>> forecasts = pa.table({"unique_id": ["a", "a"], "ds": [2, 3], "Naive": [4.0, 4.0]})
        >>> actuals.join(forecasts).to_pylist()
        [{'unique_id': 'a', 'ds': 2, 'Naive': 4.0, 'y': 6.0}]
        >>> print(actuals.matches)
        1 rows of forecasts have an actual value, 1 have none yet; 1 actual values are without a \
forecast
    """

    def __init__(self, table: pa.Table, on: Sequence[str] = ON, target: str = "y") -> None:
        self.on, self.target = tuple(on), target
        check_columns(table.column_names, (*self.on, target), "the actual values")
        if not holds_numbers(type_ := table.schema.field(target).type):
            raise TableError((target, f"of the actual values must hold numbers, not {type_}"))
        values = table.column(target)
        self._values = one_array(values.cast(decoded(values.type)))
        self._keys = table.select(self.on)
        for name in self.on:
            _check_nulls(name, self._keys.column(name), "the actual values")
        self._index: _Index | None = None
        self.start()

    @property
    def table(self) -> pa.Table:
        """The columns ``on`` and ``target``."""
        return self._keys.append_column(self.target, self._values)

    def start(self) -> None:
        """Count matches from here on."""
        self._used = np.zeros(len(self._values), np.bool_)
        self._counts = np.zeros(2, np.int64)
        self._sample: pa.Table = None

    @property
    def matches(self) -> Matches:
        """What the tables that were joined since ``start`` had in common with this one."""
        matched, rows = self._counts.tolist()
        return Matches(matched, rows - matched, int(len(self._used) - self._used.sum()))

    def check(self) -> Matches:
        """Return ``matches``.

        Raises:
            TableError: If no row of forecasts had an actual value.
        """
        if not self.matches.matched and self._sample is not None and len(self._keys):
            sides = [spell_series(keys, 0) for keys in (self._sample, self._keys)]
            first = f"the first of forecasts is {sides[0]}, the first of actual values {sides[1]}"
            raise TableError(("", f"no row of forecasts has an actual value; {first}"))
        return self.matches

    def schema(self, forecasts: pa.Schema) -> pa.Schema:
        """Return the columns of ``join``'s result for forecasts with these columns."""
        return forecasts.append(pa.field(self.target, self._values.type))

    def join(self, forecasts: pa.Table) -> pa.Table:
        """Return the rows of forecasts that have an actual value, with the column of these.

        Raises:
            TableError: As ``check_forecasts`` and ``find``.
        """
        self.check_forecasts(forecasts.column_names)
        rows = self.find(forecasts.select(self.on))
        found = rows >= 0
        if not found.all():
            forecasts, rows = forecasts.filter(pa.array(found)), rows[found]
        return forecasts.append_column(self.target, self.take(rows))

    def check_forecasts(self, names: Sequence[str]) -> None:
        """Check the columns of forecasts.

        Raises:
            TableError: If one of the key is absent, or there is one of the name of the target.
        """
        if self.target in names:
            fault = "is in the forecasts too; rename or leave out one of the two"
            raise TableError((self.target, fault))
        check_columns(names, self.on, "the forecasts")

    def find(self, keys: pa.Table) -> NDArray[np.int64]:
        """Return for each row of forecasts that of its actual value, -1 if there is none.

        Args:
            keys: The columns ``on`` of forecasts.

        Raises:
            TableError: If a key is null, or cannot be compared with that of the actual values.
        """
        rows = self._find(keys)
        if self._sample is None and len(rows):
            self._sample = keys.slice(0, 1)
        found = rows >= 0
        self._counts += int(found.sum()), len(rows)
        self._used[rows[found]] = True
        return rows

    def take(self, rows: NDArray[np.int64]) -> pa.Array:
        """Return the actual values in some rows."""
        return self._values.take(pa.array(rows))

    def _find(self, keys: pa.Table) -> NDArray[np.int64]:
        """Return for each row of forecasts that of its actual value, -1 if there is none."""
        types = []
        for name in self.on:
            column = keys.column(name)
            _check_nulls(name, column, "the forecasts")
            types.append(_common_type(name, column, self._keys.column(name)))
        if self._index is None or self._index.types != types:
            self._index = _Index(self._keys, types)
        return self._index.find(keys)


class _Index:
    """Where each key is in a table, with keys in the types in which they are compared."""

    def __init__(self, keys: pa.Table, types: list[pa.DataType]) -> None:
        self.types = types
        self._sets: list[pa.Array] = []
        self._steps: list[NDArray[np.int64]] = []
        """After each column, the different combinations of those so far, ascending."""
        ranks = np.zeros(len(keys), np.int64)
        for column, type_ in zip(keys.columns, types, strict=True):
            coded = one_array(_as(column, type_)).dictionary_encode()
            self._sets.append(coded.dictionary)
            codes = coded.indices.to_numpy().astype(np.int64)
            combined = ranks * max(len(coded.dictionary), 1) + codes
            values, ranks = np.unique(combined, return_inverse=True)
            self._steps.append(values)
        order = np.argsort(ranks, kind="stable")
        if len(repeated := np.flatnonzero(np.diff(ranks[order]) == 0)):
            first = repeated[np.argmin(order[repeated + 1])]
            key = spell_series(keys, int(order[first]))
            rows = f"rows {order[first]} and {order[first + 1]} of the actual values"
            more = f"(the first of {len(repeated)} such rows)"
            raise TableError(("", f"{rows} are both of {key} {more}; {HINT}"))
        self._rows = order

    def find(self, keys: pa.Table) -> NDArray[np.int64]:
        ranks = np.zeros(len(keys), np.int64)
        found = np.ones(len(keys), np.bool_)
        for column, type_, known, values in zip(
            keys.columns, self.types, self._sets, self._steps, strict=True
        ):
            codes = _places(column, type_, known)
            found &= codes >= 0
            combined = ranks * max(len(known), 1) + codes
            ranks = np.searchsorted(values, combined)
            ranks[ranks == len(values)] = 0
            found &= values[ranks] == combined if len(values) else False
        rows = np.full(len(keys), -1, np.int64)
        rows[found] = self._rows[ranks[found]]
        return rows


def _places(column: pa.ChunkedArray, type_: pa.DataType, known: pa.Array) -> NDArray[np.int64]:
    """Return where each cell is among known ones, -1 where it is not."""
    if pa.types.is_dictionary(column.type):
        coded = one_array(column)
        entries = _places(pa.chunked_array([coded.dictionary]), type_, known)
        spread: NDArray[np.int64] = np.take(entries, coded.indices.to_numpy())
        return spread
    places = pc.index_in(one_array(_as(column, type_)), value_set=known)
    found: NDArray[np.int64] = places.fill_null(-1).to_numpy().astype(np.int64)
    return found


def _as(column: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    """Return keys in the type in which they are compared, equal where others are."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type) and pa.types.is_integer(type_):
        return column.cast(type_)
    return comparable(column if column.type == type_ else column.cast(type_))


def _common_type(name: str, forecast: pa.ChunkedArray, actual: pa.ChunkedArray) -> pa.DataType:
    """Return the type in which two columns can be compared by value.

    Raises:
        TableError: If there is none.
    """
    sides = [decoded(column.type) for column in (forecast, actual)]
    kinds = [_kind(type_) for type_ in sides]
    if kinds[0] == kinds[1] == "text":
        return pa.large_string()
    if set(kinds) <= {"integer", "number"}:
        return _number(name, kinds, forecast, actual)
    if "text" in kinds and {"time", "zoned time", "date"} & set(kinds):
        text, other = (forecast, sides[1]) if kinds[0] == "text" else (actual, sides[0])
        return _parsed(name, text, other)
    if set(kinds) <= {"time", "date"} or kinds[0] == kinds[1] == "zoned time":
        return _time(name, sides, (forecast, actual))
    if sides[0] == sides[1] and "other" not in kinds:
        return sides[0]
    raise TableError((name, f"{_differs(sides)}; cast one to the other"))


def _kind(type_: pa.DataType) -> str:
    if is_text(type_):
        return "text"
    if pa.types.is_integer(type_):
        return "integer"
    if pa.types.is_floating(type_):
        return "number"
    if pa.types.is_date(type_):
        return "date"
    if pa.types.is_timestamp(type_):
        return "zoned time" if type_.tz else "time"
    same = (pa.types.is_boolean, pa.types.is_time, pa.types.is_decimal, pa.types.is_duration)
    return "same" if any(is_kind(type_) for is_kind in same) else "other"


def _differs(sides: Sequence[pa.DataType]) -> str:
    forecast, actual = map(spell_type, sides)
    return f"is {forecast} in the forecasts and {actual} in the actual values"


def _number(
    name: str, kinds: list[str], forecast: pa.ChunkedArray, actual: pa.ChunkedArray
) -> pa.DataType:
    """Return int64 for whole numbers: pandas makes floats of integers of which some are null."""
    if kinds == ["number", "number"]:
        return pa.float64()
    for column in (forecast, actual):
        try:
            column.cast(decoded(column.type)).cast(pa.int64())
        except pa.ArrowInvalid as error:
            sides = [decoded(side.type) for side in (forecast, actual)]
            raise TableError((name, f"{_differs(sides)}, and not all are whole numbers")) from error
    return pa.int64()


def _parsed(name: str, text: pa.ChunkedArray, other: pa.DataType) -> pa.DataType:
    """Return the type of times, if a column of text holds such times."""
    unit = "ns" if getattr(other, "unit", None) == "ns" else "us"  # text may have fractions
    type_ = pa.timestamp(unit, getattr(other, "tz", None))
    try:
        text.cast(pa.string()).cast(type_)
    except pa.ArrowInvalid as error:
        raise TableError(
            (name, f"is text on one side and {other} on the other: {error}")
        ) from error
    return type_


def _time(name: str, sides: list[pa.DataType], columns: Sequence[pa.ChunkedArray]) -> pa.DataType:
    """Return the finest of two units; of zoned times the zone does not matter."""
    if sides[0] == sides[1]:
        return sides[0]
    units = [type_.unit for type_ in sides if pa.types.is_timestamp(type_)] or ["ms"]
    zone = "UTC" if getattr(sides[0], "tz", None) else None
    type_ = pa.timestamp(max(units, key=_UNITS.index), zone)
    for column in columns:
        try:
            column.cast(decoded(column.type)).cast(type_)
        except pa.ArrowInvalid as error:
            raise TableError((name, f"{_differs(sides)}: {error}")) from error
    return type_


def check_columns(present: Sequence[str], names: Sequence[str], where: str) -> None:
    """Check that a table has columns, once each.

    Raises:
        TableError: If it has not.
    """
    absent = [name for name in names if name not in present]
    if absent:
        faults = absent_faults(absent, present)
        raise TableError(*((name, f"{detail} in {where}") for name, detail in faults))
    for name in names:
        if present.count(name) > 1:
            raise TableError((name, f"is in {where} more than once"))


def _check_nulls(name: str, column: pa.ChunkedArray, where: str) -> None:
    """Refuse a key that is null; one of a dictionary may be a null entry."""
    coded = pa.types.is_dictionary(column.type)
    may_hold = coded and any(chunk.dictionary.null_count for chunk in column.chunks)
    plain = column.cast(decoded(column.type)) if may_hold else column
    if plain.null_count:
        row = plain.is_null().index(True).as_py()
        raise TableError((name, f"of {where} holds nulls, the first in row {row}"))
