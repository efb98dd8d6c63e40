"""A frame of forecasts, as Nixtla's ``cross_validation`` returns it, to series and back."""

import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import narwhals as nw
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lossclient.arguments import is_count, require
from lossclient.cells import Cells, Frame, cells_of, content, floats_of, is_mixed, keys_in
from lossclient.columns import Columns, find_models, numbers_of, resolve
from lossclient.comparison.pooling import HORIZON, break_down
from lossclient.exceptions import InvalidInput
from lossclient.forecasts import Floats, Forecasts, Key, of_python
from lossclient.joining import Actuals, Matches, TableError, UnmatchedWarning
from lossclient.joining.actuals import check_columns
from lossclient.joining.groups import Groups, find_repeats, group_rows, sort_by_time
from lossclient.joining.roles import ModelColumns
from lossclient.joining.seasonal import SeasonalDifferences
from lossclient.options import SQUARED, Loss, ScoreOptions

_WITHOUT_TAKE = (pa.types.is_string_view, pa.types.is_binary_view, pa.types.is_run_end_encoded)
"""Types of which Arrow takes no rows."""
FrameT = TypeVar("FrameT")
"""Whatever kind of frame the caller has."""
Rows = npt.NDArray[np.int64]
Duplicates = Literal["error", "allow"]
"""What several rows of a series with one time do."""


@dataclass(frozen=True, eq=False)
class Reading:
    """A frame that was read.

    Attributes:
        forecasts: Its series.
        keys: One row a series, in the frame's own types: id, and cutoff if there is one; pyarrow's
            views and runs as plain columns.
        models: The columns of predictions, and what was taken for none.
        groups: The rows of each series, in the order of time, under keys that are compared.
        times: Those of all rows, which are compared; None if rows come as they are.
        matches: How forecasts and actual values belong together, if these are apart.
    """

    forecasts: Forecasts
    keys: Frame
    models: ModelColumns
    groups: Groups
    times: pa.ChunkedArray | None
    matches: Matches | None = None

    def warn(self, stacklevel: int) -> None:
        """Warn of columns that are no models, and of rows that have no actual value."""
        self.models.warn(stacklevel)
        if self.matches is not None and self.matches.without_actual:
            warnings.warn(f"not all is scored: {self.matches}", UnmatchedWarning, stacklevel)


def open_frame(df: Any, columns: Columns) -> Frame:
    """Return whatever frame it is, with pandas those columns too that are in its index.

    Labels of pandas that are no strings, like AutoGluon's 0.1, become strings.

    Raises:
        InvalidInput: If it is none, a name is that of two columns, or columns have several levels.
    """
    try:
        frame: Frame = nw.from_native(df, eager_only=True)
    except TypeError as error:
        frame = _of_arrow(df, error)
    except nw.exceptions.NarwhalsError as error:  # two columns of one name
        raise InvalidInput(f"the frame cannot be read: {error}") from error
    if not frame.implementation.is_pandas_like():
        return frame
    native = frame.to_native()
    labels = list(native.columns)
    if native.columns.nlevels > 1:
        raise InvalidInput(
            f"columns of {native.columns.nlevels} levels, as {labels[0]!r}; give each one name"
        )
    if not all(isinstance(label, str) for label in labels):
        names = list(map(str, labels))
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise InvalidInput(f"several columns of the frame have the name {twice[0]!r}")
        native = native.set_axis(names, axis=1)
    wanted = {columns.id, columns.cutoff, columns.time, *(columns.by or ())}
    wanted -= {None, *native.columns}
    indexed = [name for name in native.index.names if name in wanted]
    try:
        native = native.reset_index(level=indexed) if indexed else native
    except ValueError as error:  # two levels have one name
        raise InvalidInput(f"the index cannot be read: {error}") from error
    return nw.from_native(native, eager_only=True)


def read_frame(
    df: Any,
    columns: Columns,
    losses: Sequence[str] = (),
    duplicates: Duplicates = "error",
    actuals: Actuals | None = None,
) -> Reading:
    """Find the series of a frame.

    Args:
        df: A pandas, polars or pyarrow frame, or anything else with ``__arrow_c_stream__``, which
            is taken for a pyarrow table.
        columns: Names of its columns. With pandas, id, cutoff and time may be in the index.
        losses: Names of those that are asked for, whose columns are beside the keys in the answer.
        duplicates: Whether a series may have several rows of one time.
        actuals: The actual values, if they are apart.

    Raises:
        InvalidInput: If a column is absent or of a wrong type, a key is null, or a time of a series
            comes twice, or the actual values do not fit. (With pandas a key that is NaN is null,
            too; elsewhere all NaN are one key, and -0.0 is 0.0.)
    """
    require(duplicates in ("error", "allow"), "duplicates", "'error' or 'allow'", duplicates)
    frame = open_frame(df, columns)
    scored_rows = values = None
    names = frame.columns
    if actuals is not None:
        frame, scored_rows, values = _with_actuals(frame, actuals)
        names = [*names, actuals.target]
    columns = resolve(names, columns)
    of_losses = ((name, f"{name}_masked", f"{name}_gradient") for name in losses)
    _check_keys(
        columns.keys if columns.by is None else columns.by, {"model", "length"}.union(*of_losses)
    )

    @cache
    def cells(name: str) -> Cells:
        if actuals is not None and name == actuals.target:
            return values
        return cells_of(frame, name)

    rows = _Rows(frame, columns, cells, scored_rows)
    if duplicates == "error":
        rows.check_times()
    if columns.by is not None:
        rows.pool(columns.by)
    # Only now: a column that tells rows of one time apart is no model, whatever it holds.
    found = find_models(names, columns, cells)
    read = (columns.target, *found.models, *columns.doubles.values())
    numbers = {name: numbers_of(name, cells(name)) for name in read}
    groups = rows.groups

    def values_of(name: str, *, narrow: bool = True) -> Floats:
        return groups.arranged(floats_of(numbers[name], narrow=narrow))

    target = values_of(columns.target)
    narrow = target.dtype == np.float32
    forecasts = Forecasts(
        offsets=groups.offsets,
        target=target,
        models=found.models,
        predictions=tuple(values_of(name, narrow=narrow) for name in found.models),
        key_of=rows.key_of,
        rows=groups.order if scored_rows is None else groups.arranged(scored_rows),
        in_rows=True,
        doubles={
            name: values_of(column, narrow=False).astype(np.float64, copy=False)
            for name, column in columns.doubles.items()
        },
    )
    matches = None if actuals is None else actuals.matches
    return Reading(forecasts, rows.names, found, groups, rows.times, matches)


def read_actuals(df: Any, on: Sequence[str], target: str) -> Actuals:
    """Read a frame of actual values.

    Args:
        df: As of `read_frame`.
        on: The columns that together name a row.
        target: The column of actual values.

    Raises:
        InvalidInput: If a column is absent or of a wrong type, a key is null, or two rows have the
            same key.
    """
    frame = open_frame(df, Columns(on[0], None, target, None, by=on))
    with _refused():
        check_columns(frame.columns, (*on, target), "the actual values")
        numbers = numbers_of(target, cells_of(frame, target))
        keys = {name: _keys(name, cells_of(frame, name)) for name in on}
        return Actuals(pa.table({**keys, target: numbers}), on, target)


def _with_actuals(frame: Frame, actuals: Actuals) -> tuple[Frame, Rows | None, pa.ChunkedArray]:
    """Return the rows that have an actual value, their places unless it is each, and the values."""
    with _refused():
        actuals.check_forecasts(frame.columns)
        keys = pa.table({name: _keys(name, cells_of(frame, name)) for name in actuals.on})
        rows = actuals.find(keys)
        actuals.check()
    scored_rows = np.flatnonzero(rows >= 0)
    if len(scored_rows) == len(rows):
        return frame, None, pa.chunked_array([actuals.take(rows)])
    return frame[scored_rows], scored_rows, pa.chunked_array([actuals.take(rows[scored_rows])])


@contextmanager
def _refused() -> Iterator[None]:
    """Raise what is wrong with a table as the client's own."""
    try:
        yield
    except TableError as error:
        raise InvalidInput(str(error)) from error


def read_history(df: Any, columns: Columns, seasonality: Any) -> SeasonalDifferences:
    """Read a frame of past values, a row a series and time, in any order.

    Raises:
        InvalidInput: If a column is absent or of a wrong type, or a series has one time twice.
    """
    require(is_count(seasonality), "seasonality", "a whole number of at least 1", seasonality)
    if columns.time is None:
        raise InvalidInput("a history has times: pass time_col")
    frame = open_frame(df, columns)
    for name in (columns.id, columns.time, columns.target):
        if name not in frame.columns:
            raise InvalidInput(f"no column {name!r} in train_df")
    ids, times = (
        _comparable(name, cells_of(frame, name), "so it is of no use in train_df")
        for name in (columns.id, columns.time)
    )
    target = numbers_of(columns.target, cells_of(frame, columns.target))
    with _refused():
        return SeasonalDifferences(
            pa.table({columns.id: ids}),
            columns.time,
            pa.chunked_array([times]),
            floats_of(target, narrow=False).astype(np.float64, copy=False),
            int(seasonality),
            columns.cutoff,
            "train_df",
        )


def _check_keys(keys: Iterable[str], taken: Collection[str]) -> None:
    for name in keys:
        if name in taken:
            raise InvalidInput(f"the answer has a column {name!r} too; rename that of the frame")


def scaled(
    reading: Reading, history: SeasonalDifferences, options: ScoreOptions
) -> list[tuple[ScoreOptions, Forecasts]]:
    """Return what is asked for, by scales: a request has one a series.

    Losses that take none go with the first that does, and so does the parameter of smape, which is
    refused where no loss takes it.
    """
    parts: dict[str, list[Loss]] = {}
    names = options.names or ()
    first = next(name for name in names if name in SQUARED)
    for name, loss in zip(names, options.losses or (), strict=True):
        parts.setdefault(name if name in SQUARED else first, []).append(loss)
    forecasts, groups = reading.forecasts, reading.groups
    with _refused():
        scales = {
            name: history.scales(groups, reading.times, squared=SQUARED[name])[groups.member]
            for name in parts
        }
    blocks = options.block_denom_grad
    return [
        (
            replace(options, losses=losses, block_denom_grad=blocks or name != first),
            replace(forecasts, doubles={**forecasts.doubles, "scale": scales[name]}),
        )
        for name, losses in parts.items()
    ]


def side_by_side(answers: Sequence[pa.Table], names: Sequence[str]) -> pa.Table:
    """Return answers for the same series as one: the losses in order, and what belongs to them."""
    columns = {name: answer.column(name) for answer in answers for name in answer.column_names}
    kinds = ("{}", "{}_masked", "{}_gradient")
    wanted = ["length", *(kind.format(name) for kind in kinds for name in names)]
    return pa.table({name: columns[name] for name in wanted if name in columns})


def write_frame(reading: Reading, answer: pa.Table) -> Any:
    """Lay an answer out in a frame of the caller's kind.

    Args:
        reading: The frame that was read.
        answer: One row for each series and model, the models of a series together.

    Returns:
        The same rows: the key, ``model``, and the columns of the answer.

    Raises:
        InvalidInput: If a column of the key has the name of a loss that nobody asked for by name.
    """
    _check_keys(reading.keys.columns, answer.column_names)
    series, models = len(reading.forecasts), reading.forecasts.models
    names = pa.array(list(models), pa.string()).take(
        pa.array(np.tile(np.arange(len(models)), series))
    )
    whole = answer.add_column(0, "model", names)
    scores = nw.DataFrame.from_arrow(whole, backend=reading.keys.implementation)
    if not reading.keys.columns:  # all elements are pooled
        return scores.to_native()
    keys = reading.keys[np.repeat(np.arange(series), len(models))]
    both = nw.concat([nw.maybe_reset_index(keys), scores], how="horizontal")
    return both.to_native()


class _Rows:
    """Which rows of a frame are a series, and what the caller calls it.

    Attributes:
        groups: The series, the rows of each in the order of time.
        names: Their keys, as in `Reading`.
        times: As in `Reading`.

    Raises:
        InvalidInput: If ids, cutoffs or times are null, or cannot be compared.
    """

    def __init__(
        self,
        frame: Frame,
        columns: Columns,
        cells: Callable[[str], Cells],
        scored_rows: Rows | None,
    ) -> None:
        self._frame, self._columns, self._cells = frame, columns, cells
        self._scored_rows = scored_rows
        self._pooled: tuple[str, ...] | None = None
        self._compared = {
            name: _comparable(name, cells(name), "so the row belongs to no series", scored_rows)
            for name in columns.keys
        }
        self.times: pa.ChunkedArray | None = None
        if columns.time is not None:
            without = "so the row has no time to be ordered by; fill it, or pass time_col=None"
            times = _comparable(columns.time, cells(columns.time), without, scored_rows)
            self._compared[columns.time] = times
            self.times = pa.chunked_array([times])
        try:
            ids = pa.table({name: self._compared[name] for name in columns.keys})
            self.groups = group_rows(ids)
            if self.times is not None:
                self.groups = sort_by_time(self.times, self.groups)
            keys = _takeable(frame.select(*columns.keys), cells, self._compared)
            self.names = keys[self.groups.first]
        except pa.ArrowException as error:
            types = ", ".join(f"{name} ({content(cells(name))})" for name in self._compared)
            raise InvalidInput(f"the series cannot be found by {types}: {error}") from error

    def pool(self, by: Sequence[str]) -> None:
        """Gather the elements of all series by other columns, or by the horizon."""
        frame, columns = self._frame, self._columns
        present = [name for name in by if name in frame.columns]
        if absent := [name for name in by if name not in (*present, HORIZON)]:
            raise InvalidInput(f"no column {absent[0]!r} to pool by")
        derived = len(present) < len(by)
        if derived and columns.time is None:
            raise InvalidInput("a horizon needs times; name their column by time_col")
        compared = {
            name: _comparable(
                name, self._cells(name), "so the row belongs to no group", self._scored_rows
            )
            for name in present
        }
        times = {} if columns.time is None else {columns.time: self.times}
        with _refused():
            self.groups = break_down(pa.table(compared | times), self.groups, by, columns.time)
        names = None
        if present:
            names = _takeable(frame.select(*present), self._cells, compared)[self.groups.first]
        if derived:
            steps = self.groups.keys.column(HORIZON).to_numpy()
            backend = frame.implementation
            both = nw.new_series(HORIZON, steps, nw.Int64(), backend=backend).to_frame()
            if names is not None:
                both = nw.concat([nw.maybe_reset_index(names), both], how="horizontal")
            names = both.select(*by)
        self.names = frame.select() if names is None else names
        self._pooled = tuple(by)

    def key_of(self, series: int) -> Key:
        if self._pooled is not None:  # of many series
            values = (f"{name}={self.names[name][series]}" for name in self._pooled)
            return Key(", ".join(values))
        row = int(self.groups.rows_at(self.groups.offsets[series]))
        return Key(*(self._value(name, row) for name in self._columns.keys))

    def check_times(self) -> None:
        """Refuse rows of one series that have one time."""
        if self.times is None:
            return
        repeats = find_repeats(self.times, self.groups)
        if not len(repeats.rows):
            return
        rows = np.array([repeats.earlier[0], repeats.rows[0]])
        first, second = rows if self._scored_rows is None else self._scored_rows[rows]
        key = self.key_of(int(repeats.series[0]))
        cutoff = "" if self._columns.cutoff is None else f" at cutoff {key.cutoff}"
        time = self._value(str(self._columns.time), int(rows[1]))
        count = f", the first of {len(repeats.rows)} such pairs" if len(repeats.rows) > 1 else ""
        hint = "drop one (was the frame concatenated with itself?)"
        if self._columns.cutoff is None:
            hint += ", name the column that tells them apart as cutoff_col"
        raise InvalidInput(
            f"series {key.id!r}{cutoff} has {self._columns.time} {time} twice, in rows {first} and "
            f"{second}{count}; {hint}, or allow them by duplicates='allow'"
        )

    def _value(self, name: str, row: int) -> object:
        """Return what the caller wrote in a row.

        A time that Python cannot hold, for its year or its nanoseconds, is numpy's.
        """
        frame, scalar = self._frame, self._compared[name][row]
        native = frame.to_native()
        with suppress(OverflowError, ValueError, NotImplementedError):
            if isinstance(native, pa.Table):
                return native.column(name)[row].as_py()
            if frame.implementation.is_pandas_like() or frame.schema[name] == nw.Object:
                return of_python(frame[name][row])
            return scalar.as_py()  # polars itself cuts nanoseconds, and may abort
        kind = np.timedelta64 if pa.types.is_duration(scalar.type) else np.datetime64
        return kind(scalar.value, "D" if pa.types.is_date32(scalar.type) else scalar.type.unit)


def _comparable(name: str, cells: Cells, without: str, scored_rows: Rows | None = None) -> pa.Array:
    """Return keys or times, of which equal ones are alike and none is null.

    Args:
        name: Of the column.
        cells: Its content.
        without: What a null means, for an error.
        scored_rows: The caller's rows, if not all are there.
    """
    values = _keys(name, cells)
    if values.null_count:
        row = int(np.flatnonzero(values.is_null())[0])
        row = row if scored_rows is None else int(scored_rows[row])
        raise InvalidInput(f"column {name!r} is null in row {row}, {without}")
    return values


def _keys(name: str, cells: Cells) -> pa.Array:
    """Return keys or times, of which equal ones are alike."""
    values = keys_in(cells)
    if values is None:
        if is_mixed(cells):
            way_out = " of several types; convert them to one"
        else:
            way_out = ", which cannot be compared by value; convert it to text, numbers or times"
        raise InvalidInput(f"column {name!r} holds {content(cells)}{way_out}")
    return values


def _takeable(
    keys: Frame, cells: Callable[[str], Cells], compared: Mapping[str, pa.Array]
) -> Frame:
    """Return keys of which rows can be taken, as Arrow takes none of views and runs."""
    native = keys.to_native()
    for place, name in enumerate(keys.columns):
        type_ = getattr(cells(name), "type", None)  # objects have none
        if type_ is not None and any(is_type(type_) for is_type in _WITHOUT_TAKE):
            if not isinstance(native, pa.Table):
                raise pa.ArrowNotImplementedError("no rows can be taken of its type")
            native = native.set_column(place, name, compared[name])
    return nw.from_native(native, eager_only=True)


def _of_arrow(df: Any, error: Exception) -> Frame:
    """Return a frame of whatever else has an Arrow stream of several columns."""
    if hasattr(df, "__arrow_c_stream__") or hasattr(df, "__arrow_c_array__"):
        try:
            return nw.from_native(pa.table(df), eager_only=True)
        except (pa.ArrowException, TypeError, ValueError) as of_arrow:  # a column alone
            error = of_arrow
    way_out = ""
    for method in ("collect", "compute", "toPandas"):  # polars, dask, Spark
        if callable(getattr(df, method, None)):
            way_out = f"; call its {method}() first"
    if isinstance(df, str | Path):
        way_out = "; read the file first, as by pandas.read_parquet"
    elif isinstance(df, Mapping | list | tuple | np.ndarray):
        way_out = "; make a frame of it, or call score_series"
    raise InvalidInput(
        f"a frame is wanted (pandas, polars, pyarrow, or any with __arrow_c_stream__), "
        f"not {type(df).__name__}{way_out}"
    ) from error
