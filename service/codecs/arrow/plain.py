"""Plain Arrow requests, as most clients send them, read without a call into Arrow.

A stream is plain if it is one record batch, not compressed, of series of floats without nulls and,
if there are ids, short texts or integers. Its schema, which repeats from request to request, is
looked at once. So are the metadata of its batch: once pyarrow has read them, others that differ in
their numbers only (rows, nulls, and where buffers start and end) are as valid, and only the numbers
are checked. Whatever else a stream may be, or may be damaged by, is left to
``service.codecs.arrow.read``, which also finds the words for what is wrong.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loss_scoring.core import Ragged, ScoreOptions
from loss_scoring.service.codecs.arrow.lists import gradient_type
from loss_scoring.service.codecs.arrow.size import (
    CONTINUES,
    DAMAGED,
    END,
    PREFIX,
    BatchLayout,
    BatchNumbers,
    decompressed_size,
    is_native,
)
from loss_scoring.service.codecs.request import MAX_ID_BYTES, ListRequest
from loss_scoring.service.errors import UnreadableError

_MAX_METADATA_BYTES = 1 << 14
_ALIGNMENT = 8


class _Column(NamedTuple):
    """Where the numbers of a column are among those of all nodes and of all buffers."""

    node: int
    buffer: int


@dataclass
class _Plan:
    """What a schema says, and the layout of the batch that followed it last."""

    schema: pa.Schema
    prediction: _Column
    target: _Column
    id: _Column | None
    dtype: np.dtype[Any]
    offset_dtype: np.dtype[Any]
    gradient: pa.DataType
    counts: tuple[int, int]
    layout: BatchLayout | None = None


class _Uncommon(Exception):  # noqa: N818 - it is no error
    pass


def decode_plain(body: memoryview, options: ScoreOptions, max_elements: int) -> ListRequest | None:
    """Read a request from a plain stream, in place; None if it is not plain, or to be refused.

    Args:
        body: The stream.
        options: What to compute.
        max_elements: The most elements.
    """
    try:
        return _decode(body, options, max_elements)
    except (_Uncommon, UnreadableError, pa.ArrowException, OSError, EOFError, *DAMAGED):
        return None


def _decode(body: memoryview, options: ScoreOptions, max_elements: int) -> ListRequest:
    if body.readonly:  # as only small ones are, and the kernel would copy their numbers
        body = memoryview(bytearray(body))
    start = _end_of_metadata(body, 0)
    plan = _plan(bytes(body[:start]))
    layout = plan.layout or _read_layout(body, start, plan)
    numbers = layout.unpack(body, start)
    if numbers is None:
        layout = _read_layout(body, start, plan)
        numbers = layout.unpack(body, start)
    plan.layout = layout
    if numbers is None:
        raise _Uncommon
    data = _body_of(body, start + layout.struct.size, numbers)
    raw, prediction = _series(data, numbers, plan.prediction, plan)
    same, target = _series(data, numbers, plan.target, plan)
    last = int(raw[-1])
    if raw[0] or not (raw[1:] > raw[:-1]).all() or raw.tobytes() != same.tobytes():
        raise _Uncommon
    if last > min(len(prediction), len(target), max_elements):
        raise _Uncommon
    offsets = raw.astype(np.int64)
    return ListRequest(
        Ragged.trusted(prediction[:last], offsets),
        Ragged.trusted(target[:last], offsets),
        options,
        ids=range(numbers.rows) if plan.id is None else _ids(data, numbers, plan.id, plan),
        gradient_type=plan.gradient,
        copied=False,
    )


def _end_of_metadata(body: memoryview, start: int) -> int:
    continues, length = PREFIX.unpack_from(body, start)
    if continues != CONTINUES or not 0 < length <= _MAX_METADATA_BYTES:
        raise _Uncommon
    return start + PREFIX.size + int(length)


@lru_cache(maxsize=256)
def _plan(message: bytes) -> _Plan:
    """Read the message of a schema; raises ``_Uncommon``, which is not cached."""
    schema = pa.ipc.read_schema(pa.py_buffer(message))
    if not is_native(pa.ipc.read_message(pa.py_buffer(message))):
        raise _Uncommon
    if sorted(schema.names) not in (["id", "prediction", "target"], ["prediction", "target"]):
        raise _Uncommon
    type_ = schema.field("prediction").type
    is_large = pa.types.is_large_list(type_)
    if not (is_large or pa.types.is_list(type_)) or schema.field("target").type != type_:
        raise _Uncommon
    if type_.value_type not in (pa.float32(), pa.float64()):
        raise _Uncommon
    columns: dict[str, _Column] = {}
    nodes = buffers = 0
    for field in schema:
        columns[field.name] = _Column(2 * nodes, 2 * buffers)
        if field.type == type_:
            nodes, buffers = nodes + 2, buffers + 4
        elif pa.types.is_string(field.type) or pa.types.is_integer(field.type):
            nodes, buffers = nodes + 1, buffers + 2 + pa.types.is_string(field.type)
        else:
            raise _Uncommon
    return _Plan(
        schema,
        columns["prediction"],
        columns["target"],
        columns.get("id"),
        np.dtype(type_.value_type.to_pandas_dtype()),
        np.dtype(np.int64 if is_large else np.int32),
        gradient_type(type_, type_.value_type),
        (2 * nodes, 2 * buffers),
    )


def _read_layout(body: memoryview, start: int, plan: _Plan) -> BatchLayout:
    """Have pyarrow read the batch at ``start``, and keep what its metadata are like."""
    stop = _end_of_metadata(body, start)
    message = pa.ipc.read_message(pa.py_buffer(body[start:]))
    if message.type != "record batch" or decompressed_size(message):
        raise _Uncommon
    pa.ipc.read_record_batch(message, plan.schema)
    layout = BatchLayout.of(bytes(body[start:stop]))
    if layout.counts != plan.counts:
        raise _Uncommon
    return layout


def _body_of(body: memoryview, start: int, batch: BatchNumbers) -> memoryview:
    """Check the numbers of the last batch of a stream, and return the body of the batch."""
    end = start + batch.size
    if batch.rows <= 0 or not start <= end <= len(body) or body[end:] not in (END, b""):
        raise _Uncommon
    if any(batch.nodes[1::2]):  # nulls
        raise _Uncommon
    for at, length in zip(batch.buffers[::2], batch.buffers[1::2], strict=True):
        if length < 0 or at % _ALIGNMENT or not 0 <= at <= batch.size - length:
            raise _Uncommon
    return body[start:end]


def _series(
    data: memoryview, batch: BatchNumbers, column: _Column, plan: _Plan
) -> tuple[NDArray[np.integer[Any]], NDArray[np.floating[Any]]]:
    """Return the offsets of a column of lists, unchecked, and all its elements."""
    first = column.buffer
    rows, _, elements = batch.nodes[column.node : column.node + 3]
    offsets, offset_bytes, _, _, values, value_bytes = batch.buffers[first + 2 : first + 8]
    if rows != batch.rows or offset_bytes < (rows + 1) * plan.offset_dtype.itemsize:
        raise _Uncommon
    if not 0 <= elements * plan.dtype.itemsize <= value_bytes:
        raise _Uncommon
    raw = np.frombuffer(data, plan.offset_dtype, rows + 1, offsets)
    flat = np.frombuffer(data, plan.dtype, elements, values)
    if not flat.flags.aligned:
        raise _Uncommon
    return raw, flat


def _ids(data: memoryview, batch: BatchNumbers, column: _Column, plan: _Plan) -> pa.Array:
    type_ = plan.schema.field("id").type
    is_text = pa.types.is_string(type_)
    if batch.nodes[column.node] != batch.rows:
        raise _Uncommon
    buffers: list[Any] = [None]
    for i in range(column.buffer + 2, column.buffer + (6 if is_text else 4), 2):
        start = batch.buffers[i]
        buffers.append(pa.py_buffer(data[start : start + batch.buffers[i + 1]]))
    ids = pa.Array.from_buffers(type_, batch.rows, buffers)
    ids.validate(full=True)  # forged offsets would read past the buffer
    if is_text:
        offsets = np.frombuffer(buffers[1], np.int32, batch.rows + 1)
        if (offsets[1:] - offsets[:-1]).max() > MAX_ID_BYTES:
            raise _Uncommon
    return ids
