"""Score a table: group its rows, score each model against the one target, lay the answer out.

The answer has one row a series and model, the models of a series together: the key of the series in
its own types, ``model``, ``length``, one column a loss, ``<loss>_masked`` for each loss with a
quotient and, on request, ``<loss>_gradient``, in the order of the rows within the series. Scores
come model by model, all series of the first, then all of the second.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from loss_scoring.core.kernels import Scores
from loss_scoring.core.options import (
    ALL_LOSSES,
    LOSSES,
    LossSpec,
    Missing,
    ScoreOptions,
    ZeroDivision,
)
from loss_scoring.core.ragged import Ragged
from loss_scoring.core.scoring import MissingElements, MissingValueError, score
from loss_scoring.core.table.breakdown import break_down
from loss_scoring.core.table.columns import (
    Duplicates,
    Layout,
    LeftOutWarning,
    ModelColumns,
    TableError,
    element_type,
    faults_of,
    find_models,
    find_time,
    text_faults,
)
from loss_scoring.core.table.comparison.pooling import HORIZON, columns_to_pool_by
from loss_scoring.core.table.groups import (
    Groups,
    RepeatedTimeError,
    find_repeats,
    group_rows,
)
from loss_scoring.core.table.numbers import tensor_of_column
from loss_scoring.core.table.spelling import spell_series

_KEYS = ("unique_id", "cutoff")


def score_table(  # noqa: PLR0913 - the columns and the options of the contract, all with a default
    table: pa.Table,
    *,
    group_by: Sequence[str] = _KEYS,
    by: str | Sequence[str] | None = None,
    time: str = "ds",
    target: str = "y",
    predictions: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    losses: Iterable[LossSpec | str] = ALL_LOSSES,
    gradients: bool = False,
    missing: Missing = "error",
    duplicates: Duplicates = "error",
    zero_division: ZeroDivision = "zero",
    device: torch.device | str = "cpu",
) -> pa.Table:
    """Score every series of a table and every model.

    Rows with equal keys are a series, wherever they are; within it they keep their order. Where the
    rows of each series are together and a column is one chunk of floats without nulls, its numbers
    are read in place. The numbers are float if float holds those of the target and of all
    predictions exactly (it holds half, and integers of 8 and 16 bits), double otherwise.

    Args:
        table: One row an element. It is trusted: validate what came from elsewhere.
        group_by: The columns that together name a series.
        by: Columns to pool elements by instead, over all series; ``horizon``, where there is no
            such column, is the place of an element in its series by time, from 1. ``model`` may be
            among them, as every row is of one model.
        time: The column by which a row that is in a series twice is found, if there is one of the
            name; never a model unless ``predictions`` names it.
        target: The column of actual values.
        predictions: One column a model. Default: all columns of numbers, in any type, that are not
            named otherwise and have no name of an index, a forecast step, a prediction interval or
            a quantile; see ``core.table.find_models``.
        exclude: Columns that are no models, where ``predictions`` names none.
        losses: Names of losses, or ``LossSpec``s; all by default.
        gradients: Whether to return d loss / d prediction.
        missing: What a null, NaN or infinite element does; see ``ScoreOptions``.
        duplicates: What two rows of a series with the same time are: an ``error``, or two elements
            (``allow``). A null is the same as no other time.
        zero_division: What an element with a quotient that is not finite does; likewise.
        device: Where to compute.

    Returns:
        One row a series and model: series in the order of their first rows, the models of a
        series together, in the order of their columns. With ``by``, one a group and model, groups
        in ascending order, of the same bits in whatever order the rows of the table are. The
        columns are those of ``group_by``, or of ``by``, then ``model``, ``length``, one a loss
        (null where no element was left), ``<loss>_masked`` and ``<loss>_gradient`` (in the order
        of the rows of the series).

    Raises:
        TableError: If a column is absent, named twice or of the wrong type, a column that nobody
            excluded holds numbers as text, a key is null (``NullKeyError``), a series has
            one time twice (``RepeatedTimeError``), or an element is missing and ``missing`` is
            ``error``.
        ValueError: If a loss is unknown or given twice, or ``duplicates`` is neither, or both
            ``predictions`` and ``exclude`` are given, or gradients are wanted of pooled elements.

    Warns:
        UserWarning: If the values of the column ``ds`` cannot be compared.
        LeftOutWarning: If columns were taken for no models; it names them, and what was scored.

    Example:
        >>> import pyarrow as pa
        >>> table = pa.table({"unique_id": ["a", "b", "a"], "y": [1.0, 2.0, 3.0],
        ...                   "Naive": [2.0, 2.0, 6.0]})
        >>> scores = score_table(table, group_by=["unique_id"], losses=["mae"])
        >>> scores.select(["unique_id", "model", "length", "mae"]).to_pylist()[0]
        {'unique_id': 'a', 'model': 'Naive', 'length': 2, 'mae': 2.0}
    """
    options = ScoreOptions(
        tuple(LossSpec(loss) if isinstance(loss, str) else loss for loss in losses),
        gradients,
        missing,
        zero_division,
    )
    pooled = None if by is None else columns_to_pool_by(by)
    if pooled is not None and gradients:
        raise ValueError("gradients are of series; leave out by")
    layout = _find_layout(
        table, group_by, pooled or (), time, target, predictions, exclude, duplicates
    )
    groups = group_rows(table.select(layout.keys))
    if layout.time is not None:
        times = table.column(layout.time)
        if len((repeats := find_repeats(times, groups)).rows):
            allowed = "Name it in group_by, or pass duplicates='allow'"
            raise RepeatedTimeError(layout.time, repeats, times, groups, allowed)
    if pooled is not None:
        groups = break_down(table, groups, pooled, time if time in table.column_names else None)
    kind = element_type(table.schema, layout)

    def values(name: str) -> torch.Tensor:
        return tensor_of_column(table.column(name), kind, groups.order)

    return score_models(groups, layout, values, options, device)


def _find_layout(  # noqa: PLR0913, PLR0917 - one private call
    table: pa.Table,
    group_by: Sequence[str],
    by: Sequence[str],
    time: str,
    target: str,
    predictions: Sequence[str] | None,
    exclude: Sequence[str],
    duplicates: Duplicates,
) -> Layout:
    keys = tuple(group_by)
    if duplicates not in get_args(Duplicates):
        raise ValueError(f"duplicates must be 'error' or 'allow', not {duplicates!r}")
    if predictions is not None and exclude:
        raise ValueError("exclude is for models that nobody names; leave them out of predictions")
    if predictions is None:
        found = find_models(table.schema, {*keys, *by, time, target}, exclude=exclude)
    else:
        found = ModelColumns(tuple(predictions))
    layout = Layout(keys, target, found.models, found.left_out)
    layout = replace(layout, time=find_time(table.schema, time, layout))
    present = [name for name in by if name != HORIZON or name in table.schema.names]
    named = replace(layout, keys=(*keys, *(name for name in present if name not in keys)))
    faults = [
        *text_faults(table, layout.numbers, found.texts),
        *faults_of(table.schema, named),
    ]
    if faults:
        if keys == _KEYS and "cutoff" not in table.schema.names:
            hint = "; pass group_by=['unique_id'] where there is none"
            faults = [(name, detail + hint * (name == "cutoff")) for name, detail in faults]
        raise TableError(*faults)
    if found.left_out:
        silenced = "name columns by predictions= or leave them out by exclude= to silence this"
        warnings.warn(f"{found}; {silenced}", LeftOutWarning, stacklevel=3)
    if duplicates == "allow":
        return replace(layout, time=None)
    if layout.time is None and time in {*table.schema.names} - {*keys}:
        warnings.warn(
            f"rows with the same {time!r} are not looked for: its values cannot be compared; cast "
            "it, or pass duplicates='allow' to silence this",
            stacklevel=3,
        )
    return layout


class MissingElementError(TableError):
    """An element is null, NaN or infinite and ``missing`` is ``error``.

    Attributes:
        column: Of the first such element.
        series: Its series.
        position: Its place in the series.
        affected: How many series hold one, for the same model.
    """

    def __init__(
        self, layout: Layout, model: str, missing: MissingElements, groups: Groups
    ) -> None:
        self.series, side, self.position = missing.first[0]
        self.column = model if side == "prediction" else layout.target
        self.affected = missing.affected
        place = groups.offsets[self.series] + self.position
        row = int(place if groups.order is None else np.take(groups.order, place))
        series = spell_series(groups.keys, self.series)
        where = f"row {row}, of the series {series} (the first of {self.affected} series)"
        detail = f"is missing or not finite in {where}; missing='skip' or 'propagate' allows it"
        super().__init__((self.column, detail))


def score_models(
    groups: Groups,
    layout: Layout,
    values: Callable[[str], torch.Tensor],
    options: ScoreOptions,
    device: torch.device | str,
) -> pa.Table:
    """Score whole series, each model against the one target.

    Args:
        groups: The series.
        layout: The columns.
        values: Returns the elements of a column, series by series, all columns in one type.
        options: What to compute.
        device: Where.

    Raises:
        MissingElementError: If an element is missing and ``options.missing`` is ``error``.
    """

    def side(name: str) -> Ragged:
        return Ragged.trusted(values(name).to(device), groups.offsets)

    target, scores = side(layout.target), []
    for model in layout.models:
        try:
            made = score(
                side(model),
                target,
                options.losses,
                gradients=options.gradients,
                missing=options.missing,
                zero_division=options.zero_division,
            )
        except MissingValueError as error:
            raise MissingElementError(layout, model, error.missing, groups) from error
        scores.append(made.to("cpu"))
    return answer_table(groups.keys, groups.offsets, layout.models, Scores.cat(scores), options)


def answer_schema(keys: pa.Schema, options: ScoreOptions, element: pa.DataType) -> pa.Schema:
    """Return the columns of an answer.

    Args:
        keys: The columns that name a series.
        options: What is computed.
        element: What it is computed in.
    """
    names = [spec.name for spec in options.losses]
    fields = [*keys, pa.field("model", pa.string()), pa.field("length", pa.int64())]
    fields += [pa.field(name, pa.float64()) for name in names]
    fields += [
        pa.field(f"{name}_masked", pa.int64()) for name in names if LOSSES[name].has_quotient
    ]
    if options.gradients:
        fields += [pa.field(f"{name}_gradient", pa.large_list(element)) for name in names]
    return pa.schema(fields)


def answer_table(
    keys: pa.Table,
    offsets: NDArray[np.int64],
    models: tuple[str, ...],
    scores: Scores,
    options: ScoreOptions,
) -> pa.Table:
    """Lay scores out as one row a series and model, the models of a series together.

    Args:
        keys: One row a series.
        offsets: Where the elements of each series start and end.
        models: Their names.
        scores: On the CPU, of all series of the first model, then of the second, and so on.
        options: What was computed. A loss without an element left is null; a NaN that MAE
            propagated stays NaN.
    """
    count, series = len(models), len(offsets) - 1
    owner = pa.array(np.repeat(np.arange(series), count))
    columns: list[Any] = [_repeated(column, owner) for column in keys.columns]
    columns.append(_repeated_models(models, series))
    lengths = np.repeat(np.diff(offsets), count)
    columns.append(pa.array(lengths))
    losses, masked, gradients = scores.arrays()
    for name, values in losses.items():
        propagated = options.missing == "propagate" and name not in masked
        columns.append(pa.array(interleave(values, count), from_pandas=not propagated))
    columns += [pa.array(interleave(counts, count)) for counts in masked.values()]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    for flat in gradients.values():
        values = pa.array(interleave_elements(flat, offsets, count))
        columns.append(pa.LargeListArray.from_arrays(pa.array(ends), values))
    element = pa.from_numpy_dtype(next(iter(gradients.values())).dtype) if gradients else pa.null()
    types = [column.type for column in columns[: keys.num_columns]]
    key_schema = pa.schema(list(zip(keys.column_names, types, strict=True)))
    schema = answer_schema(key_schema, options, element)
    return pa.Table.from_arrays(columns, schema=schema)


def interleave(column: NDArray[Any], models: int) -> NDArray[Any]:
    """Return a column that is ordered by model, ordered by series."""
    return column.reshape(models, -1).T.ravel() if models > 1 else column


def interleave_elements(
    flat: NDArray[Any], offsets: NDArray[np.int64], models: int
) -> NDArray[Any]:
    """Return elements that are ordered by model, ordered by series; a single model's stay in place.

    Args:
        flat: As many elements for each model as ``offsets`` say.
        offsets: Where each series starts and ends.
        models: How many there are.
    """
    if models == 1 or len(offsets) == 1:
        return flat
    lengths = np.diff(offsets)
    if (lengths == lengths[0]).all():
        cube = flat.reshape(models, len(lengths), lengths[0])
        return cube.swapaxes(0, 1).reshape(-1)
    starts = (offsets[:-1, None] + offsets[-1] * np.arange(models)).ravel()
    sizes = np.repeat(lengths, models)
    places = np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
    places += np.arange(len(flat))
    return np.take(flat, places)


def _repeated_models(models: tuple[str, ...], series: int) -> pa.Array | pa.ChunkedArray:
    names = pa.array(models, pa.string())
    if names.nbytes * series >= 1 << 31:  # more than one array of strings holds
        return pa.array(list(models) * series, pa.string())
    return names.take(pa.array(np.tile(np.arange(len(models)), series)))  # without the GIL


def _repeated(column: pa.ChunkedArray, owner: pa.Array) -> pa.ChunkedArray:
    if pa.types.is_string_view(column.type):  # Arrow cannot take rows of views
        return column.cast(pa.large_string()).take(owner).cast(column.type)
    return column.take(owner)
