"""Requests in the long form: a row is an element, and all models are scored against one target.

What the command line and ``score_table`` do alike is in ``core.table``.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loss_scoring.core import Ragged, ScoreOptions
from loss_scoring.core.table import (
    HINT,
    CellsError,
    Groups,
    Layout,
    ModelColumns,
    NullKeyError,
    Runs,
    TableError,
    array_of_column,
    element_type,
    faults_of,
    find_models,
    find_repeats,
    find_runs,
    find_time,
    increases,
    is_text,
    key_faults,
    scales_of,
    text_faults,
    weights_of,
)
from loss_scoring.service.codecs.arrow.names import entry_bytes, names_bytes, texts_bytes
from loss_scoring.service.codecs.arrow.stream import read_table, text_bytes
from loss_scoring.service.codecs.options import LongColumns, escape
from loss_scoring.service.codecs.pools import NUMBERS
from loss_scoring.service.codecs.request import (
    Limits,
    LongRequest,
    Memory,
    NamesBytes,
    check_elements,
)
from loss_scoring.service.errors import Faults, TooLargeError

_TIME_BYTES = 128
"""What finding repeated rows takes for each, where times do not increase within each series."""
_RUN_BYTES, _ROW_BYTES, _KEY_BYTES = 128, 24, 24
"""What grouping takes for each run and row, and for each row of a column of texts or floats."""


def decode(
    body: memoryview, options: ScoreOptions, columns: LongColumns, limits: Limits, memory: Memory
) -> LongRequest:
    """Read a request from a stream with a row an element; other columns are not read.

    Its memory is not known beforehand, and asked for as it becomes known: to decompress the stream;
    to find the runs of equal keys; to group those and lay the numbers out; to find repeated rows.

    Raises:
        UnreadableError: If the body is not a valid Arrow IPC stream.
        InvalidError: If columns, types or keys break the contract, or a series has one time twice.
        TooLargeError: If it is over a limit, the elements of each model counted, or its keys in the
            answer are.
    """
    table, layout, texts = _read(body, columns, options, limits, memory)
    rows, models = int(table.num_rows), len(layout.models)
    element = element_type(table.schema, layout)
    memory.reserve(key_bytes := _grouping_bytes(table, layout, limits.bytes))
    runs = _find_runs(table, layout, texts, options)
    sides = 2 * rows * models * int(element.bit_width) // 8
    if layout.doubles:
        sides += 8 * rows * (models + len(layout.doubles))
    cast = max(
        *(_cast_bytes(table.column(name), element) for name in layout.numbers),
        *(_cast_bytes(table.column(name), pa.float64()) for name in layout.doubles),
    )
    needed = key_bytes + sides + cast + _RUN_BYTES * len(runs.starts) + _ROW_BYTES * rows
    memory.reserve(needed)
    memory.check()
    groups = runs.group()
    memory.check()
    if layout.time is not None and not increases(table.column(layout.time), groups):
        memory.reserve(needed + _TIME_BYTES * rows)
        memory.check()
        _check_repeats(table.column(layout.time), groups, _pointer(layout.time))
    names, kept_bytes = _names_bytes(groups, layout, limits.bytes)
    numbers = [table.column(name) for name in layout.numbers]
    copied = models > 1 or groups.order is not None
    if copied:
        target, prediction = _laid_out(numbers, element, groups.order, memory)
    else:
        target, prediction = (array_of_column(column, element) for column in numbers)
        copied = any(column.type != element or column.null_count for column in numbers)
    weights, scales = _doubles(table, layout, groups)
    ends = groups.offsets[1:] + rows * np.arange(models)[:, None]
    offsets = np.concatenate([[0], ends.ravel()])
    return LongRequest(
        prediction=Ragged.trusted(prediction, offsets),
        target=Ragged.trusted(target, offsets),
        options=options,
        layout=layout,
        groups=groups,
        names_bytes=names,
        kept_bytes=kept_bytes,
        copied=copied or bool(layout.doubles),
        weights=weights,
        scales=scales,
    )


def _read(
    body: memoryview, columns: LongColumns, options: ScoreOptions, limits: Limits, memory: Memory
) -> tuple[pa.Table, Layout, tuple[str, ...]]:
    """Return the columns to read, which is what, and those of text that may be models."""
    layout = Layout((), "", ())
    texts: tuple[str, ...] = ()

    def choose(schema: pa.Schema) -> Sequence[str]:
        nonlocal layout, texts
        faults = Faults()
        if options.scaled and columns.scale is None:
            needed = f"must name a column: {' and '.join(options.scaled)} must have a scale"
            faults.add("?scale_column", needed)
        elif columns.scale is not None and not options.scaled:
            faults.add("?scale_column", "none of the losses asked for takes it")
        layout, texts = _layout(schema, columns, faults)
        for name, detail in faults_of(schema, layout):
            if name or not texts:  # which may be what is wrong where there are no models
                faults.add(_pointer(name), detail)
        faults.check()
        for name in filter(None, (*layout.keys, layout.time)):
            getattr(schema.field(name).type, "tz", None)  # raises where a zone is not UTF-8
        time = () if layout.time is None else (layout.time,)
        return list(dict.fromkeys([*layout.keys, *layout.numbers, *layout.doubles, *time, *texts]))

    table = read_table(body, limits.bytes, choose, memory, columns.groups)
    check_elements(table.num_rows * len(layout.models), limits.elements)
    return table, layout, texts


def _layout(
    schema: pa.Schema, columns: LongColumns, faults: Faults
) -> tuple[Layout, tuple[str, ...]]:
    """Return which column is what, and those of text that were taken for no models."""
    found, count = ModelColumns(columns.predictions or ()), Counter(schema.names)
    if columns.predictions is None:
        named = (columns.time, columns.target, columns.weight, columns.scale)
        taken = {*columns.groups, *filter(None, named)}
        try:
            found = find_models(schema, taken, exclude=columns.excluded)
        except TableError as error:
            for name, detail in error.faults:
                faults.add("?exclude_columns", f"column {name!r} {detail}")
    texts = tuple(name for name in found.texts if count[name] == 1)
    layout = Layout(
        *(columns.groups, columns.target, found.models, found.left_out),
        weight=columns.weight,
        scale=columns.scale,
    )
    if columns.duplicates == "error":
        try:
            layout = replace(layout, time=find_time(schema, columns.time, layout))
        except TableError as error:
            for _, detail in error.faults:
                faults.add("?time_column", f"column {columns.time!r} {detail}")
    return layout, texts


def _grouping_bytes(table: pa.Table, layout: Layout, max_bytes: int) -> int:
    """Return the most that finding and grouping runs takes: texts may be copied twice."""
    texts = sum(map(text_bytes, table.columns))
    if texts > max_bytes:
        raise TooLargeError(
            f"the columns of text hold {texts} bytes; this server allows {max_bytes}"
        )
    keys = table.select(layout.keys)
    kinds = (pa.types.is_dictionary, is_text, pa.types.is_floating)
    copied = sum(any(is_kind(column.type) for is_kind in kinds) for column in keys.columns)
    entries = sum(map(entry_bytes, keys.columns))
    return 2 * texts + 4 * entries + _KEY_BYTES * int(table.num_rows) * copied


def _find_runs(
    table: pa.Table, layout: Layout, texts: tuple[str, ...], options: ScoreOptions
) -> Runs:
    """Return neighbours with equal keys; no key may be null, and no number text."""
    faults, named = Faults(), (*layout.numbers, *layout.doubles)
    for name, detail in text_faults(table, named, texts, exclude="exclude_columns"):
        faults.add(_pointer(name), detail)
    losses = (spec.name for spec in options.losses)
    for name, detail in (*faults_of(table.schema, layout), *key_faults(layout.keys, losses)):
        faults.add(_pointer(name), detail)
    faults.check()
    try:
        return find_runs(table.select(layout.keys))
    except NullKeyError as error:
        pointer = _pointer(error.column)
        faults.add_each(error.rows, lambda row: (f"{pointer}/{row}", "is null"))
        faults.check()
        raise


def _check_repeats(times: pa.ChunkedArray, groups: Groups, pointer: str) -> None:
    repeats = find_repeats(times, groups)
    advice = f"{HINT} Name it in group_columns, or pass duplicates=allow"

    def fault(i: int) -> tuple[str, str]:
        return f"{pointer}/{repeats.rows[i]}", f"{repeats.describe(i, times, groups)}; {advice}"

    faults = Faults()
    faults.add_each(range(len(repeats.rows)), fault)
    faults.check()


def _laid_out(
    columns: list[pa.ChunkedArray],
    element: pa.DataType,
    order: NDArray[np.int64] | None,
    memory: Memory,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the target once for each model, and the models one after another.

    A batch is one buffer a side, so a target that models share would be copied there.
    """
    rows, models = len(columns[0]), len(columns) - 1
    dtype = element.to_pandas_dtype()
    target, prediction = (NUMBERS.empty(rows * models, dtype).reshape(models, rows) for _ in "yp")
    for place, column in zip((target[0], *prediction), columns, strict=True):
        memory.check()
        values = array_of_column(column, element)
        if order is None:
            place[:] = values
        else:
            np.take(values, order, out=place, mode="clip")  # "raise" would buffer it
    target[1:] = target[0]
    return target.reshape(-1), prediction.reshape(-1)


def _doubles(
    table: pa.Table, layout: Layout, groups: Groups
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Return weights and scales, as often as there are models."""
    models, weights, scales = len(layout.models), None, None
    try:
        if layout.weight is not None:
            cells = weights_of(layout.weight, table.column(layout.weight), groups)
            weights = NUMBERS.empty(models * len(cells), np.float64)
            weights.reshape(models, -1)[:] = cells
        if layout.scale is not None:
            column = table.column(layout.scale)
            scales = np.tile(scales_of(layout.scale, column, groups), models)
    except CellsError as error:
        faults, pointer, rows, describe = Faults(), error.column, error.rows, error.describe
        faults.add_each(range(len(rows)), lambda i: (f"{_pointer(pointer)}/{rows[i]}", describe(i)))
        faults.check()
    return weights, scales


def _pointer(name: str) -> str:
    return f"/{escape(name)}" if name else "?prediction_columns"


def _cast_bytes(column: pa.ChunkedArray, element: pa.DataType) -> int:
    """Return what numbers take while they are read that are not as they are computed."""
    if column.type == element and column.num_chunks == 1 and not column.null_count:
        return 0
    entries = entry_bytes(column)  # of a byte each, perhaps
    return (3 * len(column) + entries) * int(element.byte_width)  # cast, filled, joined


def _names_bytes(groups: Groups, layout: Layout, max_bytes: int) -> tuple[NamesBytes, int]:
    """Return what keys, models and left out columns take in the answer, and groups until then."""
    models = layout.models
    keys = [names_bytes(column, len(models)) for column in groups.keys.columns]
    written = sum(key.json for key in keys)
    if written > max_bytes:
        raise TooLargeError(
            f"the group columns take {written} bytes in the answer, once for each series and "
            f"model; this server allows {max_bytes}"
        )
    parts = [*keys, texts_bytes(models, len(groups))]
    parts.append(texts_bytes(tuple(text for fault in layout.left_out for text in fault), 1))
    order_bytes = 0 if groups.order is None else groups.order.nbytes
    return (
        NamesBytes(sum(part.arrow for part in parts), sum(part.json for part in parts)),
        2 * groups.keys.nbytes + groups.offsets.nbytes + order_bytes,
    )
