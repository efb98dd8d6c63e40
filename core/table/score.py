"""Score a table: group its rows, score each model against the one target, lay the answer out."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pyarrow as pa
import torch

from loss_scoring.core.kernels import Scores
from loss_scoring.core.options import ALL_LOSSES, LossSpec, Missing, ScoreOptions, ZeroDivision
from loss_scoring.core.ragged import Ragged
from loss_scoring.core.scoring import MissingValueError, score
from loss_scoring.core.table.answer import answer_table
from loss_scoring.core.table.columns import (
    LeftOutWarning,
    ModelColumns,
    TableError,
    find_models,
    text_faults,
)
from loss_scoring.core.table.groups import Groups, group_rows
from loss_scoring.core.table.layout import Duplicates, Layout, element_type, faults_of, find_time
from loss_scoring.core.table.numbers import tensor_of_column
from loss_scoring.core.table.spelling import spell_series
from loss_scoring.core.table.times import RepeatedTimeError, find_repeats

_KEYS = ("unique_id", "cutoff")


def score_table(  # noqa: PLR0913 - the columns and the options of the contract, all with a default
    table: pa.Table,
    *,
    group_by: Sequence[str] = _KEYS,
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
        series together, in the order of their columns. The columns are those of ``group_by``,
        ``model``, ``length``, one a loss (null where no element was left), ``<loss>_masked`` and
        ``<loss>_gradient`` (in the order of the rows of the series).

    Raises:
        TableError: If a column is absent, named twice or of the wrong type, a column that nobody
            excluded holds numbers as text, a key is null (``NullKeyError``), a series has
            one time twice (``RepeatedTimeError``), or an element is missing and ``missing`` is
            ``error``.
        ValueError: If a loss is unknown or given twice, or ``duplicates`` is neither, or both
            ``predictions`` and ``exclude`` are given.

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
    keys = tuple(group_by)
    if duplicates not in get_args(Duplicates):
        raise ValueError(f"duplicates must be 'error' or 'allow', not {duplicates!r}")
    if predictions is not None and exclude:
        raise ValueError("exclude is for models that nobody names; leave them out of predictions")
    if predictions is None:
        found = find_models(table.schema, {*keys, time, target}, exclude=exclude)
    else:
        found = ModelColumns(tuple(predictions))
    layout = Layout(keys, target, found.models, found.left_out)
    layout = replace(layout, time=find_time(table.schema, time, layout))
    faults = [
        *text_faults(table, layout.numbers, found.texts),
        *faults_of(table.schema, layout),
    ]
    if faults:
        if keys == _KEYS and "cutoff" not in table.schema.names:
            hint = "; pass group_by=['unique_id'] where there is none"
            faults = [(name, detail + hint * (name == "cutoff")) for name, detail in faults]
        raise TableError(*faults)
    if found.left_out:
        silenced = "name columns by predictions= or leave them out by exclude= to silence this"
        warnings.warn(f"{found}; {silenced}", LeftOutWarning, stacklevel=2)
    if duplicates == "error" and layout.time is None and time in {*table.schema.names} - {*keys}:
        warnings.warn(
            f"rows with the same {time!r} are not looked for: its values cannot be compared; cast "
            "it, or pass duplicates='allow' to silence this",
            stacklevel=2,
        )
    groups = group_rows(table.select(layout.keys))
    if duplicates == "error" and layout.time is not None:
        _check_repeats(table.column(layout.time), groups, layout.time)
    kind = element_type(table.schema, layout)

    def side(name: str) -> Ragged:
        values = tensor_of_column(table.column(name), kind, groups.order)
        return Ragged.trusted(values.to(device), groups.offsets)

    actual = side(target)
    scores = [
        _score_model(groups, layout, model, side(model), actual, options) for model in layout.models
    ]
    return answer_table(groups.keys, groups.offsets, layout.models, Scores.cat(scores), options)


def _check_repeats(times: pa.ChunkedArray, groups: Groups, name: str) -> None:
    repeats = find_repeats(times, groups)
    if len(repeats.rows):
        allowed = "Name it in group_by, or pass duplicates='allow'"
        raise RepeatedTimeError(name, repeats, times, groups, allowed)


def _score_model(  # noqa: PLR0913, PLR0917 - one private call
    groups: Groups,
    layout: Layout,
    model: str,
    prediction: Ragged,
    actual: Ragged,
    options: ScoreOptions,
) -> Scores:
    try:
        return score(
            prediction,
            actual,
            options.losses,
            gradients=options.gradients,
            missing=options.missing,
            zero_division=options.zero_division,
        ).to("cpu")
    except MissingValueError as error:
        series, side, position = error.missing.first[0]
        place = groups.offsets[series] + position
        row = int(place if groups.order is None else np.take(groups.order, place))
        name = spell_series(groups.keys, series)
        column = model if side == "prediction" else layout.target
        where = f"row {row}, of the series {name} (the first of {error.missing.affected} series)"
        detail = f"is missing or not finite in {where}; missing='skip' or 'propagate' allows it"
        raise TableError((column, detail)) from error
