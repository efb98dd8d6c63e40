"""A frame of forecasts, as Nixtla's ``cross_validation`` returns it, to series and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import narwhals as nw
import numpy as np
import pyarrow as pa

from lossclient.columns import Columns, Frame, resolve
from lossclient.exceptions import InvalidInput
from lossclient.forecasts import Floats, Forecasts, Key
from lossclient.grouping import group, plain

_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
"""What a column of numbers is in Arrow; one that is null throughout has all elements missing."""
_WITHOUT_ROWS = (pa.types.is_string_view, pa.types.is_binary_view, pa.types.is_run_end_encoded)

FrameT = TypeVar("FrameT")
"""Whatever kind of frame the caller has."""


@dataclass(frozen=True, eq=False)
class Reading:
    """A frame that was read.

    Attributes:
        forecasts: Its series.
        keys: One row a series, in the frame's own types: id, and cutoff if there is one; pyarrow's
            views and runs as plain columns.
    """

    forecasts: Forecasts
    keys: Frame


def open_frame(df: Any, columns: Columns) -> Frame:
    """Return whatever frame it is, with pandas those columns too that are in its index.

    Raises:
        InvalidInput: If it is none, or a name of a column stands twice or is no string.
    """
    try:
        frame: Frame = nw.from_native(df, eager_only=True)
    except TypeError as error:
        frame = _of_arrow(df, error)
    except nw.exceptions.NarwhalsError as error:  # a column stands twice
        raise InvalidInput(f"the frame cannot be read: {error}") from error
    if strange := [name for name in frame.columns if not isinstance(name, str)]:
        raise InvalidInput(f"names of columns must be strings, not {strange[0]!r}")
    if not frame.implementation.is_pandas_like():
        return frame
    wanted = {columns.id, columns.cutoff, columns.time} - {None, *frame.columns}
    native = frame.to_native()
    indexed = [name for name in native.index.names if name in wanted]
    if not indexed:
        return frame
    try:
        return nw.from_native(native.reset_index(level=indexed), eager_only=True)
    except ValueError as error:  # two levels have one name
        raise InvalidInput(f"the index cannot be read: {error}") from error


def read_frame(df: Any, columns: Columns, losses: Sequence[str] = ()) -> Reading:
    """Find the series of a frame.

    Args:
        df: A pandas, polars or pyarrow frame, or anything else with ``__arrow_c_stream__``, which
            is taken for a pyarrow table.
        columns: Names of its columns. With pandas, id, cutoff and time may be in the index.
        losses: Those that will be asked for, whose columns stand beside the keys in the answer.

    Raises:
        InvalidInput: If a column is absent or of a wrong type, or a key is null. (With pandas a
            key that is NaN is null, too; elsewhere all NaN are one key, and -0.0 is 0.0.)
    """
    frame = open_frame(df, columns)
    columns = resolve(frame, columns)
    keys = [columns.id] if columns.cutoff is None else [columns.id, columns.cutoff]
    taken = {"model", "length"}.union(*((x, f"{x}_masked", f"{x}_gradient") for x in losses))
    for name in keys:
        if name in taken:
            raise InvalidInput(f"the answer has a column {name!r} too; rename that of the frame")
    models = tuple(columns.models or ())
    times = [] if columns.time is None else [columns.time]
    try:
        table = frame.select(*dict.fromkeys([*keys, *times, columns.target, *models])).to_arrow()
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidInput(f"the frame cannot be read: {error}") from error
    for name in (columns.target, *models):
        if not any(is_kind(table.column(name).type) for is_kind in _NUMBERS):
            raise InvalidInput(f"column {name!r} must hold numbers, not {frame.schema[name]}")
    try:
        found = {name: _without_null(name, table.column(name)) for name in (*keys, *times)}
        when = None if columns.time is None else found[columns.time]
        groups = group([found[name] for name in keys], when)
        named = _with_rows(frame.select(*keys), table, found)[groups.first]
    except pa.ArrowException as error:  # structs and lists, of which Arrow makes no series
        types = ", ".join(f"{name} ({table.column(name).type})" for name in (*keys, *times))
        raise InvalidInput(f"the series cannot be found by {types}: {error}") from error

    def values_of(name: str) -> Floats:
        values = _values(table.column(name))
        return values if groups.order is None else values[groups.order]

    forecasts = Forecasts(
        offsets=groups.offsets,
        target=values_of(columns.target),
        models=models,
        predictions=tuple(values_of(name) for name in models),
        key_of=lambda series: Key(*named.row(series)),
        rows=groups.order,
        in_rows=True,
    )
    return Reading(forecasts, named)


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
        f"not {type(df).__name__}; collect a lazy one first"
    ) from error


def _without_null(name: str, column: pa.ChunkedArray) -> pa.Array:
    values = plain(column)
    if values.null_count:
        row = int(np.flatnonzero(values.is_null())[0])
        raise InvalidInput(f"column {name!r} is null in row {row}, so the row belongs to no series")
    return values


def _with_rows(keys: Frame, table: pa.Table, found: Mapping[str, pa.Array]) -> Frame:
    """Return keys of which rows can be taken: Arrow takes none of views and runs."""
    for name in keys.columns:
        if any(is_kind(table.column(name).type) for is_kind in _WITHOUT_ROWS):
            native = keys.to_native()
            if not isinstance(native, pa.Table):
                raise pa.ArrowNotImplementedError("no rows can be taken of its type")
            plain_one = native.set_column(keys.columns.index(name), name, found[name])
            keys = nw.from_native(plain_one, eager_only=True)
    return keys


def _values(column: pa.ChunkedArray) -> Floats:
    """Return a column as floats, float32 or float64, a null as NaN; in place where that may be."""
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    elif not pa.types.is_floating(column.type):
        column = column.cast(pa.float64(), safe=False)
    return column.to_numpy()  # type: ignore[no-any-return]
