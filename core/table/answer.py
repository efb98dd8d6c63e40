"""Scores of every model to one row a series and model, the models of a series together.

Scores come model by model, all series of the first, then all of the second. A row of the answer has
the key of the series in its own types, ``model``, ``length``, one column a loss, ``<loss>_masked``
for each loss with a quotient and, on request, ``<loss>_gradient``, in the order of the rows of the
table within their series.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loss_scoring.core.kernels import Scores
from loss_scoring.core.options import LOSSES, ScoreOptions


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
    count, series = len(models), len(keys)
    owner = pa.array(np.repeat(np.arange(series), count))
    columns: list[Any] = [_repeated(column, owner) for column in keys.columns]
    columns.append(pa.array(list(models) * series, pa.string()))
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
    """Return elements that are ordered by model, ordered by series; those of one stay in place.

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


def _repeated(column: pa.ChunkedArray, owner: pa.Array) -> pa.ChunkedArray:
    if pa.types.is_string_view(column.type):  # Arrow cannot take rows of views
        return column.cast(pa.large_string()).take(owner).cast(column.type)
    return column.take(owner)
