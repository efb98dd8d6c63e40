"""Score a table: group its rows, score each model against the one target, lay the answer out.

The answer has one row a series and model, the models of a series together: the key of the series in
its own types, ``model``, ``length``, one column a loss, ``<loss>_masked`` for each loss with a
quotient and, on request, ``<loss>_gradient``, in the order of the rows within the series. Scores
come model by model, all series of the first, then all of the second.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loss_scoring.core.kernels import Scores
from loss_scoring.core.losses import DEFAULT_LOSSES, LOSSES
from loss_scoring.core.options import LossLike, LossSpec, Missing, ScoreOptions, ZeroDivision
from loss_scoring.core.ragged import Ragged
from loss_scoring.core.scoring import MissingElements, MissingValueError, score
from loss_scoring.core.table.columns import (
    Duplicates,
    Layout,
    element_type,
    faults_of,
    find_models,
    find_time,
    key_faults,
    text_faults,
)
from loss_scoring.core.table.comparison.pooling import HORIZON, break_down, columns_to_pool_by
from loss_scoring.core.table.history import History
from loss_scoring.core.table.joining import Actuals, TableError, UnmatchedWarning
from loss_scoring.core.table.joining.groups import (
    Groups,
    RepeatedTimeError,
    find_repeats,
    group_rows,
)
from loss_scoring.core.table.joining.roles import ModelColumns
from loss_scoring.core.table.joining.spelling import spell_series
from loss_scoring.core.table.numbers import array_of_column
from loss_scoring.core.table.weights import scales_of, weights_of

if TYPE_CHECKING:
    import torch

KEYS = ("unique_id", "cutoff")


_P = ParamSpec("_P")
_R = TypeVar("_R")
_OLD_NAMES = {"time": "time_col", "target": "target_col", "predictions": "models"}


def by_new_names(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return arguments of ``score_table`` by the names that it has for them today.

    Raises:
        TypeError: If one is given by both names.
    """
    for old in _OLD_NAMES.keys() & arguments.keys():
        if _OLD_NAMES[old] in arguments:
            raise TypeError(f"{old} means {_OLD_NAMES[old]}, which is given too")
    return {_OLD_NAMES.get(name, name): value for name, value in arguments.items()}


def _also_by_old_names(function: Callable[_P, _R]) -> Callable[_P, _R]:
    @wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return function(*args, **by_new_names(kwargs))

    return called


@_also_by_old_names
def score_table(  # noqa: C901, PLR0913 - the columns and the options of the contract, all with a default
    table: pa.Table,
    *,
    group_by: Sequence[str] = KEYS,
    by: str | Sequence[str] | None = None,
    time_col: str = "ds",
    cutoff_col: str = "cutoff",
    target_col: str = "y",
    models: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    losses: Iterable[LossLike] = DEFAULT_LOSSES,
    gradients: bool = False,
    missing: Missing = "error",
    duplicates: Duplicates = "error",
    zero_division: ZeroDivision = "zero",
    weight_col: str | None = None,
    scale_col: str | None = None,
    train_df: pa.Table | None = None,
    seasonality: int | None = None,
    actuals: pa.Table | None = None,
    on: Sequence[str] = (),
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
        time_col: The column by which a row that is in a series twice is found, if there is one of
            the name; never a model unless ``models`` names it.
        cutoff_col: The column of ``group_by``, if any, up to which ``train_df`` is used.
        target_col: The column of actual values.
        models: One column of predictions each. Default: all columns of numbers, in any type, that
            are not named otherwise and have no name of an index, a forecast step, a prediction
            interval or a quantile; see ``loss_scoring.core.table.find_models``.
        exclude: Columns that are no models, where ``models`` names none.
        losses: Losses as ``LossSpec.of`` takes them; mae, mape and smape by default.
        gradients: Whether to return d loss / d prediction.
        missing: What a null, NaN or infinite element does; see ``ScoreOptions``.
        duplicates: What two rows of a series with the same time are: an ``error``, or two elements
            (``allow``). A null is the same as no other time.
        zero_division: What an element with a quotient that is not finite does; likewise.
        weight_col: The column of what each element weighs, finite and at least 0; see
            ``loss_scoring.core.score``.
        scale_col: The column of what scaled losses are divided by, the same in all rows of a
            series.
        train_df: In place of ``scale_col``, past values of the series, of which the scales of mase
            and rmsse are made, with no row after the cutoff of a series; see ``History``.
        seasonality: How many rows of ``train_df`` a season has.
        actuals: The actual values, if they are not in ``table``: one row for each ``on``, with the
            column ``target_col``. Rows of ``table`` that have none are not scored; see ``Actuals``.
        on: The columns by which rows of the two belong together; the first of ``group_by``, and
            ``time_col``, by default.
        device: Where to compute.

    Returns:
        One row a series and model: series in the order of their first rows, the models of a
        series together, in the order of their columns. With ``by``, one a group and model, groups
        in ascending order, of the same bits in whatever order the rows of the table are. The
        columns are those of ``group_by``, or of ``by``, then ``model``, ``length``, one a loss
        (null where no element was left, or there was nothing to divide by), ``<loss>_masked`` and
        ``<loss>_gradient`` (in the order of the rows of the series).

    Raises:
        TableError: If a column is absent, named twice or of the wrong type, a column that nobody
            excluded holds numbers as text, a key is null (``NullKeyError``), a series has
            one time twice (``RepeatedTimeError``), a weight is invalid or a scale varies
            (``CellsError``), or an element is missing and ``missing`` is ``error``.
        ValueError: If a loss is unknown or given twice, or ``duplicates`` is neither, or both
            ``models`` and ``exclude`` are given, there is no scale for a loss that needs one,
            or gradients or scales are wanted of pooled elements.

    Warns:
        UserWarning: If the values of the column ``ds`` cannot be compared.
        UnmatchedWarning: If rows have no actual value, where these are apart; it counts them.
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
        LossSpec.all_of(losses),
        gradients,
        missing,
        zero_division,
    )
    names = [spec.name for spec in options.losses]
    given = {"scale_col": scale_col, "train_df": train_df, "seasonality": seasonality}
    _check_scales(options, [name for name, value in given.items() if value is not None])
    _check_cutoff(cutoff_col, group_by)
    if actuals is not None:
        known = Actuals(actuals, on or (group_by[0], time_col), target_col)
        table = known.join(table)
        if known.check().without_actual:
            warnings.warn(f"not all is scored: {known.matches}", UnmatchedWarning, stacklevel=3)
    elif on:
        raise ValueError("on is for actuals")
    pooled = None if by is None else columns_to_pool_by(by)
    if pooled is not None and gradients:
        raise ValueError("gradients are of series; leave out by")
    if pooled is not None and options.scaled:
        raise ValueError(f"{' and '.join(options.scaled)} are of series; leave out by")
    if options.scaled and scale_col is None and train_df is None:
        needed = "must have scales; pass scale_col, or train_df and seasonality"
        raise ValueError(f"{' and '.join(options.scaled)} {needed}")
    layout = _find_layout(
        table,
        Layout(tuple(group_by), target_col, (), time=time_col, weight=weight_col, scale=scale_col),
        pooled or (),
        models,
        exclude,
        duplicates,
        names,
    )
    groups = group_rows(table.select(layout.keys))
    if layout.time is not None:
        times = table.column(layout.time)
        if len((repeats := find_repeats(times, groups)).rows):
            allowed = "Name it in group_by, or pass duplicates='allow'"
            raise RepeatedTimeError(layout.time, repeats, times, groups, allowed)
    if pooled is not None:
        groups = break_down(
            table, groups, pooled, time_col if time_col in table.column_names else None
        )
    kind = element_type(table.schema, layout)

    def values(name: str) -> NDArray[Any]:
        return array_of_column(table.column(name), kind, groups.order)

    weights = scales = None
    if weight_col is not None:
        weights = weights_of(weight_col, table.column(weight_col), groups)
    if scale_col is not None:
        scales = dict.fromkeys(
            options.scaled, scales_of(scale_col, table.column(scale_col), groups)
        )
    if train_df is not None:
        history = History(train_df, group_by, time_col, target_col, seasonality or 0, cutoff_col)
        times = table.column(time_col) if time_col in table.schema.names else None
        scales = {name: history.scales(name, groups, times) for name in options.scaled}
    return score_models(groups, layout, values, options, device, weights=weights, scales=scales)


def _check_scales(options: ScoreOptions, given: Sequence[str]) -> None:
    """Raise ``ValueError`` if these arguments and the losses do not belong together."""
    if ("train_df" in given) != ("seasonality" in given):
        raise ValueError("train_df and seasonality belong together")
    if "scale_col" in given and len(given) > 1:
        raise ValueError("scale_col and train_df both say what the scales are; give one")
    if given and not options.scaled:
        raise ValueError(f"none of the losses asked for takes {given[0]}")


def _check_cutoff(cutoff_col: str, group_by: Sequence[str]) -> None:
    """Raise ``ValueError`` if a column of cutoffs is named that names no series."""
    if cutoff_col not in {"cutoff", *group_by}:
        raise ValueError(f"cutoff_col {cutoff_col!r} must be one of group_by")


def _find_layout(  # noqa: PLR0913, PLR0917 - one private call
    table: pa.Table,
    named: Layout,
    by: Sequence[str],
    predictions: Sequence[str] | None,
    exclude: Sequence[str],
    duplicates: Duplicates,
    losses: Iterable[str],
) -> Layout:
    """Return the columns as they are in a table.

    Args:
        table: What is to be scored.
        named: The columns that the caller names, but for the models.
        by: The columns to pool by.
        predictions: Their columns, if the caller names them.
        exclude: Columns that are no models.
        duplicates: What two rows of a series with the same time are.
        losses: What is asked for, whose columns are beside the keys in the answer.
    """
    keys, time = named.keys, str(named.time)
    if duplicates not in get_args(Duplicates):
        raise ValueError(f"duplicates must be 'error' or 'allow', not {duplicates!r}")
    if predictions is not None and exclude:
        raise ValueError("exclude is for models that nobody names; leave them out of models")
    if predictions is None:
        taken = {*keys, *by, time, named.target, *named.doubles}
        found = find_models(table.schema, taken, exclude=exclude)
    else:
        found = ModelColumns(tuple(predictions))
    layout = replace(named, models=found.models, left_out=found.left_out)
    layout = replace(layout, time=find_time(table.schema, time, layout))
    present = [name for name in by if name != HORIZON or name in table.schema.names]
    keyed = replace(layout, keys=(*keys, *(name for name in present if name not in keys)))
    faults = [
        *text_faults(table, (*layout.numbers, *layout.doubles), found.texts),
        *faults_of(table.schema, keyed),
        *key_faults(keyed.keys, losses),
    ]
    if faults:
        if keys == KEYS and "cutoff" not in table.schema.names:
            hint = "; pass group_by=['unique_id'] where there is none"
            faults = [(name, detail + hint * (name == "cutoff")) for name, detail in faults]
        raise TableError(*faults)
    found.warn(stacklevel=4)
    if duplicates == "allow":
        return replace(layout, time=None)
    if layout.time is None and time in {*table.schema.names} - {*keys}:
        warnings.warn(
            f"rows with the same {time!r} are not looked for: its values cannot be compared; cast "
            "it, or pass duplicates='allow' to silence this",
            stacklevel=4,
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
        row = int(groups.rows_at(groups.offsets[self.series] + self.position))
        series = spell_series(groups.keys, self.series)
        where = f"row {row}, of the series {series} (the first of {self.affected} series)"
        detail = f"is missing or not finite in {where}; missing='skip' or 'propagate' allows it"
        super().__init__((self.column, detail))


def score_models(  # noqa: PLR0913 - a kernel's, and where
    groups: Groups,
    layout: Layout,
    values: Callable[[str], NDArray[Any]],
    options: ScoreOptions,
    device: torch.device | str,
    *,
    weights: NDArray[np.float64] | None = None,
    scales: Mapping[str, NDArray[np.float64]] | None = None,
) -> pa.Table:
    """Score whole series, each model against the one target.

    Args:
        groups: The series.
        layout: The columns.
        values: Returns the elements of a column, series by series, all columns in one type.
        options: What to compute.
        device: Where.
        weights: Of the elements, series by series; see ``weights_of``.
        scales: Of the series, by loss; see ``scales_of`` and ``History``.

    Raises:
        MissingElementError: If an element is missing and ``options.missing`` is ``error``.
        ValueError: If there are no scales, and a loss needs them.
    """

    def side(name: str) -> Ragged:
        elements = Ragged.trusted(values(name), groups.offsets)
        return elements if str(device) == "cpu" else elements.like(elements.values.to(device))

    weight = None if weights is None else Ragged.trusted(weights, groups.offsets)
    target, scores = side(layout.target), []
    for model in layout.models:
        try:
            made = _score(side(model), target, weight, scales or {}, options)
        except MissingValueError as error:
            raise MissingElementError(layout, model, error.missing, groups) from error
        scores.append(made.to("cpu"))
    return answer_table(groups.keys, groups.offsets, layout.models, Scores.cat(scores), options)


def _score(
    prediction: Ragged,
    target: Ragged,
    weights: Ragged | None,
    scales: Mapping[str, NDArray[np.float64]],
    options: ScoreOptions,
) -> Scores:
    """Score one model; a kernel takes one scale a series, so losses with others go apart."""
    parts: dict[int, list[LossSpec]] = {}
    first = next(iter(scales.values()), None)
    for spec in options.losses:
        parts.setdefault(id(scales.get(spec.name, first)), []).append(spec)
    columns: list[dict[str, Any]] = [{}, {}, {}]
    for specs in parts.values():
        own = (scales[spec.name] for spec in specs if spec.name in scales)
        made = score(
            prediction,
            target,
            specs,
            weights=weights,
            scales=next(own, None),
            gradients=options.gradients,
            missing=options.missing,
            zero_division=options.zero_division,
        )
        for column, more in zip(columns, made.columns, strict=True):
            column.update(more)
    names = [spec.name for spec in options.losses]
    return Scores(*({x: column[x] for x in names if x in column} for column in columns))


def answer_schema(
    keys: pa.Schema, options: ScoreOptions, element: pa.DataType, *, weighted: bool = False
) -> pa.Schema:
    """Return the columns of an answer.

    Args:
        keys: The columns that name a series.
        options: What is computed.
        element: What it is computed in.
        weighted: Whether elements have weights.
    """
    names = [spec.name for spec in options.losses]
    fields = [*keys, pa.field("model", pa.string()), pa.field("length", pa.int64())]
    fields += [pa.field(name, pa.float64()) for name in names]
    masked = options.masked(weighted=weighted)
    fields += [pa.field(f"{name}_masked", pa.int64()) for name in masked]
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
        options: What was computed. A loss without an element left, or anything to divide by, is
            null; a NaN that MAE propagated stays NaN.
    """
    count, series = len(models), len(offsets) - 1
    owner = pa.array(np.repeat(np.arange(series), count))
    columns: list[Any] = [_repeated(column, owner) for column in keys.columns]
    columns.append(_repeated_models(models, series))
    lengths = np.repeat(np.diff(offsets), count)
    columns.append(pa.array(lengths))
    losses, masked, gradients = scores.arrays()
    of_scores = np.tile(np.diff(offsets), count)
    for name, values in losses.items():
        nulls = nulls_of(name, values, masked.get(name), of_scores, options)
        mask = None if nulls is None else interleave(nulls, count)
        columns.append(pa.array(interleave(values, count), mask=mask, from_pandas=False))
    columns += [pa.array(interleave(counts, count)) for counts in masked.values()]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    for flat in gradients.values():
        values = pa.array(interleave_elements(flat, offsets, count))
        columns.append(pa.LargeListArray.from_arrays(pa.array(ends), values))
    element = pa.from_numpy_dtype(next(iter(gradients.values())).dtype) if gradients else pa.null()
    types = [column.type for column in columns[: keys.num_columns]]
    key_schema = pa.schema(list(zip(keys.column_names, types, strict=True)))
    weighted = masked.keys() == losses.keys()
    schema = answer_schema(key_schema, options, element, weighted=weighted)
    return pa.Table.from_arrays(columns, schema=schema)


def nulls_of(
    name: str,
    values: NDArray[np.float64],
    masked: NDArray[np.int64] | None,
    lengths: NDArray[np.int64],
    options: ScoreOptions,
) -> NDArray[np.bool_] | None:
    """Return which losses are null, as there was nothing to divide by; None if none can be.

    A NaN that a loss without a quotient propagated is no null: nothing of its series is masked.

    Args:
        name: Of the loss.
        values: It, NaN where it is null.
        masked: Its column of that, if there is one.
        lengths: Of the series, none of which is empty.
        options: What was computed.
    """
    if options.missing != "propagate" or LOSSES[name].has_quotient:
        nulls: NDArray[np.bool_] = values != values  # noqa: PLR0124 - a third of np.isnan's time
        return nulls
    return None if masked is None else masked == lengths


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
