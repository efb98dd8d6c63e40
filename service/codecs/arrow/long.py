"""Requests in the long form: a row is an element, and all models are scored against one target.

Reading one takes three steps, as its memory is not known beforehand: ``decode`` checks the stream,
with hardly more than the body itself; ``LongTable.runs`` finds the runs of equal keys, which takes
``key_bytes``; then ``LongTable.request`` groups them and lays the numbers out, with which it is
``needed_bytes``. What the command line and ``score_table`` do alike is in ``core.table``.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loss_scoring.core import Ragged, ScoreOptions
from loss_scoring.core.table import (
    HINT,
    Groups,
    Layout,
    ModelColumns,
    NullKeyError,
    Runs,
    TableError,
    element_type,
    faults_of,
    find_models,
    find_repeats,
    find_runs,
    find_time,
    increases,
    is_text,
    tensor_of_column,
    text_faults,
)
from loss_scoring.service.codecs.arrow.stream import (
    Reserve,
    read_table,
    text_bytes,
    text_lengths,
    texts_of,
)
from loss_scoring.service.codecs.options import LongColumns, escape
from loss_scoring.service.codecs.pools import NUMBERS
from loss_scoring.service.codecs.request import LongForm, ScoreRequest, check_elements
from loss_scoring.service.errors import Faults, TooLargeError

_TIME_BYTES = 128
"""What finding repeated rows takes for each, where times do not increase within each series."""
_RUN_BYTES, _ROW_BYTES, _KEY_BYTES = 128, 24, 24
"""What grouping takes for each run and row, and for each row of a column of texts or floats."""


@dataclass(frozen=True, eq=False)
class LongTable:
    """A table that was read and checked, but for its missing elements.

    Attributes:
        table: The columns that are read.
        layout: Which of them is what.
        texts: Columns that are no models, unless their cells say otherwise.
        options: What to compute.
        text_bytes: What the texts of the table take, those that views share counted for each.
        max_bytes: The most that the keys may take in the answer.
    """

    table: pa.Table
    layout: Layout
    texts: tuple[str, ...]
    options: ScoreOptions
    text_bytes: int
    max_bytes: int

    @property
    def elements(self) -> int:
        """The number of (prediction, target) pairs, those of each model counted."""
        return int(self.table.num_rows) * len(self.layout.models)

    @property
    def key_bytes(self) -> int:
        """The most that ``runs`` takes, and grouping of it: texts may be copied twice."""
        types = [self.table.schema.field(name).type for name in self.layout.keys]
        kinds = (pa.types.is_dictionary, is_text, pa.types.is_floating)
        copied = sum(any(is_kind(type_) for is_kind in kinds) for type_ in types)
        return 2 * self.text_bytes + _KEY_BYTES * int(self.table.num_rows) * int(copied)

    @cached_property
    def runs(self) -> Runs:
        """Neighbours with equal keys.

        Raises:
            InvalidError: If a key is null, or a column of numbers holds text.
        """
        faults = Faults()
        for name, detail in text_faults(
            self.table, self.layout.numbers, self.texts, exclude="exclude_columns"
        ):
            faults.add(_pointer(name), detail)
        for name, detail in faults_of(self.table.schema, self.layout):
            faults.add(_pointer(name), detail)
        faults.check()
        try:
            return find_runs(self.table.select(self.layout.keys))
        except NullKeyError as error:
            pointer = _pointer(error.column)
            faults.add_each(error.rows, lambda row: (f"{pointer}/{row}", "is null"))
            faults.check()
            raise

    def needed_bytes(self) -> int:
        """Return the most that ``request`` takes, and ``runs``, beside the stream."""
        rows = int(self.table.num_rows)
        sides = 2 * self.elements * int(self._element.bit_width) // 8
        runs = _RUN_BYTES * len(self.runs.starts)
        return self.key_bytes + sides + runs + _ROW_BYTES * rows

    @property
    def _element(self) -> pa.DataType:
        return element_type(self.table.schema, self.layout)

    @cached_property
    def groups(self) -> Groups:
        """The series."""
        return self.runs.group()

    @cached_property
    def _may_repeat(self) -> bool:
        """Whether a series may have one time twice, by a look that takes next to nothing."""
        time = self.layout.time
        return time is not None and not increases(self.table.column(time), self.groups)

    def time_bytes(self) -> int:
        """Return the most that ``request`` takes beside ``needed_bytes`` to find repeated rows."""
        return _TIME_BYTES * int(self.table.num_rows) * self._may_repeat

    def _check_repeats(self, name: str) -> None:
        times, groups = self.table.column(name), self.groups
        repeats = find_repeats(times, groups)
        advice = f"{HINT} Name it in group_columns, or pass duplicates=allow"

        def fault(i: int) -> tuple[str, str]:
            detail = f"{repeats.describe(i, times, groups)}; {advice}"
            return f"{_pointer(name)}/{repeats.rows[i]}", detail

        faults = Faults()
        faults.add_each(range(len(repeats.rows)), fault)
        faults.check()

    def request(self) -> ScoreRequest:
        """Group the rows and lay the numbers out, in place if there is one model.

        Raises:
            InvalidError: If a series has one time twice.
            TooLargeError: If the keys are so long that repeating them for each model takes too
                much.
        """
        if self.layout.time is not None and self._may_repeat:
            self._check_repeats(self.layout.time)
        groups, models = self.groups, self.layout.models
        key_bytes = len(models) * _key_bytes(groups.keys) + _left_out_bytes(self.layout)
        if key_bytes > self.max_bytes:
            raise TooLargeError(
                f"the group columns take {key_bytes} bytes in the answer, once for each series and "
                f"model; this server allows {self.max_bytes}"
            )
        columns = [self.table.column(name) for name in self.layout.numbers]
        if len(models) == 1 and groups.order is None:
            target, prediction = (
                tensor_of_column(column, self._element).numpy() for column in columns
            )
            copied = any(c.type != self._element or c.null_count for c in columns)
        else:
            target, prediction = self._laid_out(columns, groups)
            copied = True
        offsets = _all_offsets(groups.offsets, len(models))
        return ScoreRequest(
            prediction=Ragged.trusted(prediction, offsets),
            target=Ragged.trusted(target, offsets),
            options=self.options,
            ids=range(len(offsets) - 1),
            copied=copied,
            long=LongForm(self.layout, groups, key_bytes),
        )

    def _laid_out(
        self, columns: list[pa.ChunkedArray], groups: Groups
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the target once for each model, and the models one after another.

        A batch is one buffer a side, so a target that models share would be copied there.
        """
        rows, models = self.table.num_rows, len(columns) - 1
        dtype = self._element.to_pandas_dtype()
        target, prediction = (NUMBERS.empty(rows * models, dtype) for _ in range(2))
        places = [target[:rows], *(prediction[m * rows :][:rows] for m in range(models))]
        for place, column in zip(places, columns, strict=True):
            values = tensor_of_column(column, self._element).numpy()
            if groups.order is None:
                place[:] = values
            else:
                np.take(values, groups.order, out=place, mode="clip")  # "raise" would buffer it
        for m in range(1, models):
            target[m * rows :][:rows] = target[:rows]
        return target, prediction


def decode(  # noqa: PLR0913 - limits are no part of the request
    body: memoryview,
    options: ScoreOptions,
    columns: LongColumns,
    *,
    max_bytes: int,
    max_elements: int,
    reserve: Reserve = lambda _size: None,
) -> LongTable:
    """Read a request from a stream with a row an element; other columns are not looked at.

    Args:
        body: The stream.
        options: What to compute.
        columns: Which of its columns are what.
        max_bytes: The most bytes once decompressed.
        max_elements: The most elements, each model counted.
        reserve: Called with what is decompressed before it is.

    Raises:
        UnreadableError: If the body is not a valid Arrow IPC stream.
        InvalidError: If columns or types break the contract.
        TooLargeError: If it has more than ``max_elements`` elements, or more than ``max_bytes``
            once decompressed.
    """
    layout = Layout((), "", ())
    texts: tuple[str, ...] = ()

    def choose(schema: pa.Schema) -> list[str]:
        nonlocal layout, texts
        faults = Faults()
        layout, texts = _layout(schema, columns, faults)
        for name, detail in faults_of(schema, layout):
            if name or not texts:  # which may be what is wrong where there are no models
                faults.add(_pointer(name), detail)
        faults.check()
        for name in filter(None, (*layout.keys, layout.time)):
            getattr(schema.field(name).type, "tz", None)  # raises where a zone is not UTF-8
        time = () if layout.time is None else (layout.time,)
        return list(dict.fromkeys([*layout.keys, *layout.numbers, *time, *texts]))

    table = read_table(body, max_bytes, choose, columns.groups, reserve)
    check_elements(table.num_rows * len(layout.models), max_elements)
    text = sum(map(text_bytes, table.columns))
    if text > max_bytes:
        raise TooLargeError(
            f"the columns of text hold {text} bytes; this server allows {max_bytes}"
        )
    return LongTable(table, layout, texts, options, text, max_bytes)


def _layout(
    schema: pa.Schema, columns: LongColumns, faults: Faults
) -> tuple[Layout, tuple[str, ...]]:
    """Return which column is what, and those of text that were taken for no models."""
    found = ModelColumns(columns.predictions or ())
    if columns.predictions is None:
        taken = {*columns.groups, columns.time, columns.target}
        try:
            found = find_models(schema, taken, exclude=columns.excluded)
        except TableError as error:
            for name, detail in error.faults:
                faults.add("?exclude_columns", f"column {name!r} {detail}")
    texts = tuple(name for name in found.texts if schema.names.count(name) == 1)
    layout = Layout(columns.groups, columns.target, found.models, found.left_out)
    if columns.duplicates == "error":
        try:
            layout = replace(layout, time=find_time(schema, columns.time, layout))
        except TableError as error:
            for _, detail in error.faults:
                faults.add("?time_column", f"column {columns.time!r} {detail}")
    return layout, texts


def _pointer(name: str) -> str:
    return f"/{escape(name)}" if name else "?prediction_columns"


def _all_offsets(offsets: NDArray[np.int64], models: int) -> NDArray[np.int64]:
    """Return the offsets of the series of all models."""
    if models == 1:
        return offsets
    more = offsets[1:] + offsets[-1] * np.arange(models)[:, None]
    return np.concatenate([[0], more.ravel()])


def _key_bytes(keys: pa.Table) -> int:
    """Return about how many bytes the keys of all series take."""
    return sum(_column_bytes(column) for column in keys.columns)


def _left_out_bytes(layout: Layout) -> int:
    return sum(len(name) + 64 for name, _ in layout.left_out)


def _column_bytes(column: pa.ChunkedArray) -> int:
    total = 0
    for chunk in column.chunks:
        texts = texts_of(chunk)
        if not is_text(texts.type):
            total += 32 * len(chunk)
            continue
        lengths = text_lengths(texts)
        if pa.types.is_dictionary(chunk.type):
            lengths = lengths[chunk.indices.to_numpy()]
        total += 8 * len(chunk) + int(lengths.sum(dtype=np.int64))
    return total
