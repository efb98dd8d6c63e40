"""A frame of forecasts, as Nixtla's ``cross_validation`` returns it, to series and back."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import narwhals as nw
import numpy as np
import pyarrow as pa

from lossclient.arguments import require
from lossclient.cells import Cells, Frame, by_value, cells_of, content, floats_of, is_mixed
from lossclient.columns import Columns, ModelColumns, find_models, numbers_of, resolve
from lossclient.exceptions import InvalidInput
from lossclient.forecasts import Floats, Forecasts, Key, of_python
from lossclient.grouping import Groups, group, plain

_WITHOUT_ROWS = (pa.types.is_string_view, pa.types.is_binary_view, pa.types.is_run_end_encoded)
_WITHOUT_KEY = "so the row belongs to no series"
_WITHOUT_TIME = "so the row has no time to be ordered by; fill it, or pass time_col=None"

FrameT = TypeVar("FrameT")
"""Whatever kind of frame the caller has."""
Duplicates = Literal["error", "allow"]
"""What several rows of a series with one time do."""
_Compared = Mapping[str, pa.Array]
"""Keys and times as Arrow compares them."""


@dataclass(frozen=True, eq=False)
class Reading:
    """A frame that was read.

    Attributes:
        forecasts: Its series.
        keys: One row a series, in the frame's own types: id, and cutoff if there is one; pyarrow's
            views and runs as plain columns.
        models: The columns of predictions, and what was taken for none.
    """

    forecasts: Forecasts
    keys: Frame
    models: ModelColumns


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
    wanted = {columns.id, columns.cutoff, columns.time} - {None, *native.columns}
    indexed = [name for name in native.index.names if name in wanted]
    try:
        native = native.reset_index(level=indexed) if indexed else native
    except ValueError as error:  # two levels have one name
        raise InvalidInput(f"the index cannot be read: {error}") from error
    return nw.from_native(native, eager_only=True)


def read_frame(
    df: Any, columns: Columns, losses: Sequence[str] = (), duplicates: Duplicates = "error"
) -> Reading:
    """Find the series of a frame.

    Args:
        df: A pandas, polars or pyarrow frame, or anything else with ``__arrow_c_stream__``, which
            is taken for a pyarrow table.
        columns: Names of its columns. With pandas, id, cutoff and time may be in the index.
        losses: Those that will be asked for, whose columns stand beside the keys in the answer.
        duplicates: Whether a series may have several rows of one time.

    Raises:
        InvalidInput: If a column is absent or of a wrong type, a key is null, or a time of a series
            comes twice. (With pandas a key that is NaN is null, too; elsewhere all NaN are one key,
            and -0.0 is 0.0.)
    """
    require(duplicates in ("error", "allow"), "duplicates", "'error' or 'allow'", duplicates)
    frame = open_frame(df, columns)
    names = frame.columns
    columns = resolve(names, columns)
    keys = [columns.id] if columns.cutoff is None else [columns.id, columns.cutoff]
    taken = {"model", "length"}.union(*((x, f"{x}_masked", f"{x}_gradient") for x in losses))
    for name in keys:
        if name in taken:
            raise InvalidInput(f"the answer has a column {name!r} too; rename that of the frame")
    cells = cache(lambda name: cells_of(frame, name))
    times = [] if columns.time is None else [columns.time]
    compared = {name: _comparable(name, cells(name), _WITHOUT_KEY) for name in keys}
    compared |= {name: _comparable(name, cells(name), _WITHOUT_TIME) for name in times}
    try:
        when = None if columns.time is None else compared[columns.time]
        groups = group([compared[name] for name in keys], when)
        named = _with_rows(frame.select(*keys), cells, compared)[groups.first]
    except pa.ArrowException as error:
        types = ", ".join(f"{name} ({content(cells(name))})" for name in (*keys, *times))
        raise InvalidInput(f"the series cannot be found by {types}: {error}") from error

    def key_of(series: int) -> Key:
        row = int(groups.first[series])
        return Key(*(_value(frame, name, compared, row) for name in keys))

    if duplicates == "error" and len(groups.repeats):
        raise InvalidInput(_duplicates(frame, columns, groups, compared, key_of))
    # Only now: a column that tells rows of one time apart is no model, whatever it holds.
    found = find_models(names, columns, cells)
    numbers = {name: numbers_of(name, cells(name)) for name in (columns.target, *found.models)}

    def values_of(name: str, *, narrow: bool = True) -> Floats:
        values = floats_of(numbers[name], narrow=narrow)
        return values if groups.order is None else values[groups.order]

    target = values_of(columns.target)
    forecasts = Forecasts(
        offsets=groups.offsets,
        target=target,
        models=found.models,
        predictions=tuple(
            values_of(name, narrow=target.dtype == np.float32) for name in found.models
        ),
        key_of=key_of,
        rows=groups.order,
        in_rows=True,
    )
    return Reading(forecasts, named, found)


def write_frame(reading: Reading, answer: pa.Table) -> Any:
    """Lay an answer out in a frame of the caller's kind.

    Args:
        reading: The frame that was read.
        answer: One row for each series and model, the models of a series together.

    Returns:
        The same rows: the key, ``model``, and the columns of the answer.
    """
    series, models = len(reading.keys), reading.forecasts.models
    names = pa.array(list(models), pa.string()).take(
        pa.array(np.tile(np.arange(len(models)), series))
    )
    keys = reading.keys[np.repeat(np.arange(series), len(models))]
    whole = answer.add_column(0, "model", names)
    scores = nw.DataFrame.from_arrow(whole, backend=keys.implementation)
    both = nw.concat([nw.maybe_reset_index(keys), scores], how="horizontal")
    return both.to_native()


def _of_arrow(df: Any, error: Exception) -> Frame:
    """Return a frame of whatever else has an Arrow stream of several columns."""
    if hasattr(df, "__arrow_c_stream__") or hasattr(df, "__arrow_c_array__"):
        try:
            return nw.from_native(pa.table(df), eager_only=True)
        except (pa.ArrowException, TypeError, ValueError) as of_arrow:  # a column alone
            error = of_arrow
    raise InvalidInput(
        f"a frame is wanted (pandas, polars, pyarrow, or any with __arrow_c_stream__), "
        f"not {type(df).__name__}{_way_out(df)}"
    ) from error


def _way_out(df: Any) -> str:
    """Return how to make a frame of something."""
    for method in ("toPandas", "compute", "collect"):  # Spark, dask, polars
        if callable(getattr(df, method, None)):
            return f"; call its {method}() first"
    if isinstance(df, str | Path):
        return "; read the file first, as by pandas.read_parquet"
    if isinstance(df, Mapping | list | tuple | np.ndarray):
        return "; make a frame of it, or call score_series"
    return ""


def _comparable(name: str, cells: Cells, without: str) -> pa.Array:
    """Return keys or times, of which equal ones are alike and none is null.

    Args:
        name: Of the column.
        cells: Its content.
        without: What a null means, for an error.

    Raises:
        InvalidInput: If they cannot be compared by value, or one is null.
    """
    try:
        column = by_value(cells)
        values = None if column is None else plain(column)
    except pa.ArrowException:
        values = None
    if values is None or pa.types.is_nested(values.type):
        if is_mixed(cells):
            way_out = " of several types; convert them to one"
        else:
            way_out = ", which cannot be compared by value; convert it to text, numbers or times"
        raise InvalidInput(f"column {name!r} holds {content(cells)}{way_out}")
    if values.null_count:
        row = int(np.flatnonzero(values.is_null())[0])
        raise InvalidInput(f"column {name!r} is null in row {row}, {without}")
    return values


def _with_rows(keys: Frame, cells: Callable[[str], Cells], compared: _Compared) -> Frame:
    """Return keys of which rows can be taken: Arrow takes none of views and runs."""
    for name in keys.columns:
        column = cells(name)
        if isinstance(column, pa.ChunkedArray) and any(is_(column.type) for is_ in _WITHOUT_ROWS):
            native = keys.to_native()
            if not isinstance(native, pa.Table):
                raise pa.ArrowNotImplementedError("no rows can be taken of its type")
            plain_one = native.set_column(keys.columns.index(name), name, compared[name])
            keys = nw.from_native(plain_one, eager_only=True)
    return keys


def _value(frame: Frame, name: str, compared: _Compared, row: int) -> object:
    """Return what the caller wrote in a row.

    A time that Python cannot hold, for its year or its nanoseconds, is numpy's.
    """
    native = frame.to_native()
    with suppress(OverflowError, ValueError, NotImplementedError):
        if isinstance(native, pa.Table):
            return native.column(name)[row].as_py()
        if frame.implementation.is_pandas_like() or frame.schema[name] == nw.Object:
            return of_python(frame[name][row])
        return compared[name][row].as_py()  # polars itself cuts nanoseconds, and may abort
    scalar = compared[name][row]
    kind = np.timedelta64 if pa.types.is_duration(scalar.type) else np.datetime64
    return kind(scalar.value, "D" if pa.types.is_date32(scalar.type) else scalar.type.unit)


def _duplicates(
    frame: Frame,
    columns: Columns,
    groups: Groups,
    compared: _Compared,
    key_of: Callable[[int], Key],
) -> str:
    """Say which rows have one time in one series."""
    places = groups.repeats[0] + np.array([-1, 0])
    first, again = places if groups.order is None else groups.order[places]
    key = key_of(int(np.searchsorted(groups.offsets, places[1], side="right")) - 1)
    cutoff = "" if columns.cutoff is None else f" at cutoff {key.cutoff}"
    time = _value(frame, str(columns.time), compared, int(again))
    count = f", the first of {len(groups.repeats)} such pairs" if len(groups.repeats) > 1 else ""
    hint = "drop one (was the frame concatenated with itself?)"
    if columns.cutoff is None:
        hint += ", name the column that tells them apart as cutoff_col"
    return (
        f"series {key.id!r}{cutoff} has {columns.time} {time} twice, in rows {first} and {again}"
        f"{count}; {hint}, or allow them by duplicates='allow'"
    )
