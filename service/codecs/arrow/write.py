"""Answers in Arrow, written without a call into Arrow where they are lists.

The metadata of two answers of one kind, with the same columns, differ in a few numbers only: rows,
nulls, and where buffers start and end. So pyarrow writes those of one answer of each kind, and for
every other the numbers are packed into their places; those of answers of one shape are the same.
The buffers behind them are the scores themselves.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

from loss_scoring.core import LOSSES, ScoreOptions, Scores
from loss_scoring.core.table import nulls_of
from loss_scoring.service.codecs.arrow.size import END, BatchLayout

LARGE = 1 << 16
"""Bytes from which copying a part costs more than sending another."""
_ABSENT = memoryview(b"")
_PADDING = [memoryview(bytes(size)) for size in range(8)]
_INT64 = pa.int64()
_Part = Any
"""A memoryview or an array: mypy knows none of their buffers."""


class _Lists(NamedTuple):
    """How elements are nested: the fixed length of the lists of each level, 0 if offsets say it."""

    lengths: tuple[int, ...]
    offset_dtype: DTypeLike
    dtype: np.dtype[Any]


@dataclass(frozen=True, eq=False)  # so that it is hashed as an object
class _Template:
    """What all answers with the same columns have in common."""

    schema: bytes
    layout: BatchLayout
    masked: int  # columns of masked counts
    may_be_void: bool  # whether there may be nothing to divide by, without weights as well
    lists: _Lists | None  # of gradients


def write_table(table: pa.Table | pa.RecordBatch) -> list[memoryview]:
    """Write a stream; its parts are views of the columns wherever they are large."""
    gathered = _Gather()
    with pa.ipc.new_stream(pa.PythonFile(gathered, "w"), table.schema) as writer:
        writer.write(table)
    return gathered.parts


class _Gather:
    """A file that keeps what is written to it, in parts that are not copied."""

    closed = False

    def __init__(self) -> None:
        self.parts: list[memoryview] = []

    def write(self, part: bytes | pa.Buffer) -> None:
        self.parts.append(memoryview(part).cast("B"))

    def flush(self) -> None:
        pass


def write_lists(  # noqa: PLR0913 - the columns, and what decides which may be null
    scores: Scores,
    options: ScoreOptions,
    ids: Sequence[int | str] | pa.Array,
    offsets: NDArray[np.int64],
    gradient_type: pa.DataType | None,
    *,
    weighted: bool = False,
) -> list[memoryview]:
    """Write id and length, then losses, masked counts and gradients as columns."""
    losses, masked, gradients = scores.arrays()
    id_type, buffers = _ids(ids)
    template = _template(id_type, tuple(losses), tuple(masked), gradient_type)
    buffers += (_ABSENT, lengths := offsets[1:] - offsets[:-1])
    may_be_void = weighted or template.may_be_void
    may_be_null = may_be_void or options.missing != "error" or options.zero_division == "skip"
    nulls = []
    for name, values in losses.items():
        count, bitmap = 0, _ABSENT
        if may_be_null:
            count, bitmap = _nulls(nulls_of(name, values, masked.get(name), lengths, options))
        nulls.append(count)
        buffers += (bitmap, values)
    for counts in masked.values():
        buffers += (_ABSENT, counts)
    if template.lists is not None:
        buffers += _gradients(offsets, gradients.values(), template.lists)
    sizes = [buffer.nbytes for buffer in buffers]
    shape = len(offsets) - 1, int(offsets[-1]), *nulls
    gaps = [-size % 8 for size in sizes]
    if any(gaps):
        padding = map(_PADDING.__getitem__, gaps)
        buffers = list(chain.from_iterable(zip(buffers, padding, strict=True)))
    parts = [template.schema, _metadata(template, shape, tuple(sizes)), *buffers, END]
    if isinstance(ids, pa.Array) and pa.types.is_dictionary(id_type):
        parts[1:1] = _dictionary(ids)
    if sum(sizes) < LARGE:
        return [memoryview(b"".join(parts))]
    return [memoryview(part).cast("B") for part in parts if len(part)]


@lru_cache(maxsize=1024)
def _metadata(template: _Template, shape: tuple[int, ...], sizes: tuple[int, ...]) -> bytes:
    """Return the metadata of a batch.

    Args:
        template: Of answers like it.
        shape: Series, elements, and how many of each loss are null.
        sizes: The bytes of each buffer.
    """
    rows, elements, *nulls = shape
    nodes = [rows, 0, rows, 0]
    for count in (*nulls, *(0 for _ in range(template.masked))):
        nodes += (rows, count)
    if template.lists is not None:
        lengths = template.lists.lengths
        for _ in nulls:
            count = rows
            for length in lengths:
                nodes += (count, 0)
                count = count * length if length else elements // max(lengths[-1], 1)
            nodes += (count, 0)
    starts = [0, *accumulate(size + 7 & -8 for size in sizes)]
    places = chain.from_iterable(zip(starts, sizes, strict=False))
    return template.layout.pack(rows, starts[-1], nodes, places)


@lru_cache(maxsize=256)
def _template(
    id_type: pa.DataType,
    losses: tuple[str, ...],
    masked: tuple[str, ...],
    gradient: pa.DataType | None,
) -> _Template:
    fields = [("id", id_type), ("length", _INT64), *((name, pa.float64()) for name in losses)]
    fields += [(f"{name}_masked", _INT64) for name in masked]
    # Of one row, as of none the metadata would leave the numbers out.
    columns = [pa.nulls(1, type_) for _, type_ in fields]
    if pa.types.is_string_view(id_type):
        columns[0] = pa.array(["too long for a view"], id_type)
    lists = None
    if gradient is not None:
        fields += [(f"{name}_gradient", gradient) for name in losses]
        lists = _lists(gradient)
        column = pa.array([1.0])
        for length in reversed(lists.lengths):
            column = (
                pa.FixedSizeListArray.from_arrays(column, 1)  # a row may be as long as memory
                if length
                else pa.ListArray.from_arrays([0, 1], column)
            )
        columns += [column] * len(losses)
    batch = pa.RecordBatch.from_arrays(columns, [name for name, _ in fields])
    return _Template(
        pa.schema(fields).serialize().to_pybytes(),
        BatchLayout.of(batch.serialize()),
        len(masked),
        any(LOSSES[name].scaled or LOSSES[name].denominator is not None for name in losses),
        lists,
    )


def _nulls(are_null: NDArray[np.bool_] | None) -> tuple[int, _Part]:
    """Return how many losses are null, and the bitmap of those that are not."""
    if are_null is None or not (count := int(np.count_nonzero(are_null))):
        return 0, _ABSENT
    return count, np.packbits(~are_null, bitorder="little")


def _lists(gradient: pa.DataType) -> _Lists:
    offset_dtype = np.int64 if pa.types.is_large_list(gradient) else np.int32
    lengths = []
    while pa.types.is_nested(gradient):
        lengths.append(gradient.list_size if pa.types.is_fixed_size_list(gradient) else 0)
        gradient = gradient.value_type
    return _Lists(tuple(lengths), offset_dtype, np.dtype(gradient.to_pandas_dtype()))


def _gradients(
    offsets: NDArray[np.integer[Any]], gradients: Iterable[NDArray[Any]], lists: _Lists
) -> list[_Part]:
    """Return the buffers of gradients, laid out as the prediction was."""
    if len(lists.lengths) > 1:
        offsets = offsets // lists.lengths[-1]
    offsets = offsets.astype(lists.offset_dtype, copy=False)
    buffers: list[_Part] = []
    for flat in gradients:
        for length in lists.lengths:
            buffers += (_ABSENT,) if length else (_ABSENT, offsets)
        buffers += (_ABSENT, _as_dtype(flat, lists.dtype))
    return buffers


def _as_dtype(flat: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return gradients in the type of the prediction, clipped to what that holds."""
    if flat.dtype == dtype:
        return flat
    limit = np.finfo(dtype).max
    return flat.clip(-limit, limit).astype(dtype)


def _ids(ids: Sequence[int | str] | pa.Array) -> tuple[pa.DataType, list[_Part]]:
    if isinstance(ids, range):
        return _INT64, [_ABSENT, np.arange(ids.start, ids.stop)]
    if not isinstance(ids, pa.Array):
        is_integer = all(isinstance(name, int) for name in ids)
        ids = pa.array(ids, _INT64) if is_integer else pa.array(map(str, ids), pa.string())
    is_view = pa.types.is_string_view(ids.type)
    if is_view:  # its texts may be in any number of buffers; laid out again, in one or none
        ids = ids.cast(pa.string()).cast(ids.type)
    elif ids.offset:
        ids = pa.concat_arrays([ids])
    _, first, *rest = ids.buffers()  # no id is null
    if is_view and not rest:
        rest = [None]
    return ids.type, [_ABSENT, *(memoryview(x or b"") for x in (first, *rest))]


def _dictionary(ids: pa.Array) -> list[bytes]:
    stream = b"".join(write_table(pa.record_batch([ids[:0]], ["id"])))
    messages = pa.ipc.MessageReader.open_stream(stream)
    return [x.serialize().to_pybytes() for x in messages if x.type == "dictionary"]
