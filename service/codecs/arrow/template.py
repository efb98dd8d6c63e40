"""Arrow answers from templates.

The metadata of two answers of one kind, with the same columns, differ in a few numbers only: rows,
nulls, and where buffers start and end. So pyarrow writes those of one answer of each kind, and for
every other the numbers are packed into their places. The buffers behind them are the scores
themselves.
"""

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

from loss_scoring.core import Scores
from loss_scoring.service.codecs.arrow.lists import answer_type
from loss_scoring.service.codecs.arrow.size import END, PREFIX, PlacesOfNumbers, places_of_numbers
from loss_scoring.service.codecs.arrow.stream import write_table
from loss_scoring.service.codecs.parts import joined
from loss_scoring.service.codecs.request import ScoreRequest

_ABSENT = memoryview(b"")
_PADDING = [memoryview(bytes(size)) for size in range(8)]
_END = memoryview(END)
_INT64 = pa.int64()


class _Lists(NamedTuple):
    """How elements are nested: the fixed length of the lists of each level, 0 if offsets say it."""

    lengths: tuple[int, ...]
    offset_dtype: DTypeLike
    dtype: np.dtype[Any]


class _Template(NamedTuple):
    """The two messages of an answer, and where the metadata of the second has its numbers."""

    schema: memoryview
    metadata: bytes
    places: PlacesOfNumbers
    gradient: _Lists | None


def encode(request: ScoreRequest, scores: Scores) -> list[memoryview]:
    """Write an answer: id, length, then losses, masked counts and gradients as columns.

    A loss without an element left is null. A NaN that MAE propagated stays NaN. The parts of the
    answer are views of the scores wherever they are large.
    """
    losses, masked, gradients = scores.arrays()
    rows = len(request)
    id_type, buffers = _ids(request.ids)
    gradient_type = answer_type(request) if gradients else None
    template = _template(id_type, tuple(losses), tuple(masked), gradient_type)

    nodes = [rows, 0, rows, 0]
    buffers += (_ABSENT, request.prediction.lengths.data)
    for name, values in losses.items():
        propagated = request.options.missing == "propagate" and name not in masked
        nulls, bitmap = (0, _ABSENT) if propagated else _nulls(values)
        nodes += (rows, nulls)
        buffers += (bitmap, values.data)
    for counts in masked.values():
        nodes += (rows, 0)
        buffers += (_ABSENT, counts.data)
    if template.gradient is not None:
        _add_gradients(request, gradients.values(), template.gradient, nodes, buffers)

    places: list[int] = []
    parts: list[memoryview] = []
    at = 0
    for buffer in buffers:
        size = buffer.nbytes
        places += (at, size)
        if size:
            parts.append(buffer)
            at += size
            if padding := -size % 8:
                parts.append(_PADDING[padding])
                at += padding
    metadata = bytearray(template.metadata)
    numbers = template.places
    struct.pack_into("<q", metadata, numbers.rows, rows)
    struct.pack_into("<q", metadata, numbers.size, at)
    struct.pack_into(f"<{len(nodes)}q", metadata, numbers.nodes, *nodes)
    struct.pack_into(f"<{len(places)}q", metadata, numbers.buffers, *places)
    dictionary = _dictionary(request.ids) if pa.types.is_dictionary(id_type) else ()
    return joined([template.schema, *dictionary, memoryview(metadata), *parts, _END])


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
    names = [name for name, _ in fields]
    message = memoryview(pa.RecordBatch.from_arrays(columns, names).serialize())
    _, size = PREFIX.unpack_from(message)
    metadata = message[: PREFIX.size + size].tobytes()
    schema = memoryview(pa.schema(fields).serialize())
    return _Template(schema, metadata, places_of_numbers(metadata), lists)


def _nulls(values: NDArray[np.float64]) -> tuple[int, memoryview]:
    """Return how many losses are null, which are NaN, and the bitmap that tells which are not."""
    missing = values != values  # noqa: PLR0124 - a third of the time of np.isnan
    nulls = int(np.count_nonzero(missing))
    return nulls, np.packbits(~missing, bitorder="little").data if nulls else _ABSENT


def _lists(gradient: pa.DataType) -> _Lists:
    offset_dtype = np.int64 if pa.types.is_large_list(gradient) else np.int32
    lengths = []
    while pa.types.is_nested(gradient):
        lengths.append(gradient.list_size if pa.types.is_fixed_size_list(gradient) else 0)
        gradient = gradient.value_type
    return _Lists(tuple(lengths), offset_dtype, np.dtype(gradient.to_pandas_dtype()))


def _add_gradients(
    request: ScoreRequest,
    gradients: Iterable[NDArray[Any]],
    lists: _Lists,
    nodes: list[int],
    buffers: list[memoryview],
) -> None:
    """Add the nodes and buffers of gradients, laid out as the prediction was."""
    offsets = request.prediction.offsets
    if len(lists.lengths) > 1:
        offsets = offsets // lists.lengths[-1]
    offsets = offsets.astype(lists.offset_dtype, copy=False)
    last = int(offsets[-1])
    for flat in gradients:
        count = len(request)
        for length in lists.lengths:
            nodes += (count, 0)
            buffers.append(_ABSENT)
            if length:
                count *= length
            else:
                buffers.append(offsets.data)
                count = last
        nodes += (count, 0)
        buffers += (_ABSENT, _as_dtype(flat, lists.dtype).data)


def _as_dtype(flat: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return gradients in the type of the prediction, clipped to what that holds."""
    if flat.dtype == dtype:
        return flat
    limit = np.finfo(dtype).max
    return flat.clip(-limit, limit).astype(dtype)


def _ids(ids: Sequence[int | str] | pa.Array) -> tuple[pa.DataType, list[memoryview]]:
    if isinstance(ids, range):
        return _INT64, [_ABSENT, np.arange(ids.start, ids.stop).data]
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


def _dictionary(ids: pa.Array) -> list[memoryview]:
    stream = b"".join(write_table(pa.record_batch([ids[:0]], ["id"])))
    messages = pa.ipc.MessageReader.open_stream(stream)
    return [memoryview(x.serialize()) for x in messages if x.type == "dictionary"]
