"""Plain Arrow requests, as most clients send them, read without a call into Arrow.

A stream is plain if it is one record batch, not compressed, of series of floats without nulls and,
if there are ids, short texts or integers. Its schema, which repeats from request to request, is
looked at once. So is the metadata of its batch: once pyarrow has read it, another that differs in
its numbers only (rows, nulls, and where buffers start and end) is as valid, and only the numbers
are checked. Whatever else a stream may be, or may be damaged by, is left to
``service.codecs.arrow``, which also finds the words for what is wrong.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
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
    PlacesOfNumbers,
    decompressed_size,
    is_native,
    places_of_numbers,
)
from loss_scoring.service.codecs.request import MAX_ID_BYTES, ScoreRequest
from loss_scoring.service.errors import UnreadableError

_MAX_METADATA_BYTES = 1 << 14
_INT64 = struct.Struct("<q")
_ALIGNMENT = 8


class _Layout(NamedTuple):
    """The metadata of a batch that pyarrow has read, its numbers zeroed, and where these are."""

    blank: bytes
    places: PlacesOfNumbers


class _Column(NamedTuple):
    """Where a column starts among the nodes and buffers of a batch."""

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
    nodes: struct.Struct
    buffers: struct.Struct
    layout: _Layout | None = None


class _Batch(NamedTuple):
    """The numbers of a batch, and its bytes. Buffers are within these."""

    rows: int
    lengths: tuple[int, ...]
    buffers: list[slice]
    data: NDArray[np.uint8]


class _Uncommon(Exception):  # noqa: N818 - it is no error
    pass


def decode_plain(body: memoryview, options: ScoreOptions, max_elements: int) -> ScoreRequest | None:
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


def _decode(body: memoryview, options: ScoreOptions, max_elements: int) -> ScoreRequest:
    start = _end_of_metadata(body, 0)
    plan = _plan(bytes(body[:start]))
    batch = _batch(body, start, plan, plan.layout) if plan.layout else None
    if batch is None:
        plan.layout = layout = _read_layout(body, start, plan)
        batch = _batch(body, start, plan, layout)
    if batch is None:
        raise _Uncommon
    raw, values = _series(batch, plan.prediction, plan)
    same, target = _series(batch, plan.target, plan)
    last = int(raw[-1])
    if raw[0] or not (raw[1:] > raw[:-1]).all() or raw.tobytes() != same.tobytes():
        raise _Uncommon
    if last > min(len(values), len(target), max_elements):
        raise _Uncommon
    ragged = Ragged.trusted(values[:last], raw.astype(np.int64))
    return ScoreRequest(
        prediction=ragged,
        target=ragged.like(target[:last]),
        options=options,
        ids=range(batch.rows) if plan.id is None else _ids(batch, plan.id, plan),
        gradient_type=plan.gradient,
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
        columns[field.name] = _Column(nodes, buffers)
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
        struct.Struct(f"<{2 * nodes}q"),
        struct.Struct(f"<{2 * buffers}q"),
    )


def _read_layout(body: memoryview, start: int, plan: _Plan) -> _Layout:
    """Have pyarrow read the batch at ``start``, and keep what its metadata are like."""
    stop = _end_of_metadata(body, start)
    message = pa.ipc.read_message(pa.py_buffer(body[start:]))
    if message.type != "record batch" or decompressed_size(message):
        raise _Uncommon
    pa.ipc.read_record_batch(message, plan.schema)
    metadata = bytearray(body[start:stop])
    places = places_of_numbers(bytes(metadata))
    _zero(metadata, plan, places)
    blank = bytes(metadata)
    if places_of_numbers(blank) != places:  # numbers that are places as well
        raise _Uncommon
    return _Layout(blank, places)


def _zero(metadata: bytearray, plan: _Plan, places: PlacesOfNumbers) -> None:
    sizes = (_INT64.size, _INT64.size, plan.nodes.size, plan.buffers.size)
    for place, size in zip(places, sizes, strict=True):
        metadata[place : place + size] = bytes(size)


def _batch(body: memoryview, start: int, plan: _Plan, layout: _Layout) -> _Batch | None:
    """Read the numbers of the last message and check them; None if it has another layout."""
    stop = start + len(layout.blank)
    metadata = bytearray(body[start:stop])
    if len(metadata) < len(layout.blank):
        return None
    places = layout.places
    (rows,) = _INT64.unpack_from(metadata, places.rows)
    (size,) = _INT64.unpack_from(metadata, places.size)
    nodes = plan.nodes.unpack_from(metadata, places.nodes)
    numbers = plan.buffers.unpack_from(metadata, places.buffers)
    _zero(metadata, plan, places)
    if metadata != layout.blank:
        return None
    end = stop + size
    if rows <= 0 or not stop <= end <= len(body) or body[end:] not in (END, b""):
        raise _Uncommon
    if any(nodes[1::2]):  # nulls
        raise _Uncommon
    buffers = []
    for at, length in zip(numbers[::2], numbers[1::2], strict=True):
        if length < 0 or at % _ALIGNMENT or not 0 <= at <= size - length:
            raise _Uncommon
        buffers.append(slice(at, at + length))
    return _Batch(rows, nodes[::2], buffers, _writable(body[stop:end]))


def _writable(data: memoryview) -> NDArray[np.uint8]:
    """Show bytes as an array that could be written, as the kernel copies any other."""
    shown = np.frombuffer(data, np.uint8)
    if shown.flags.writeable:
        return shown
    interface = shown.__array_interface__
    interface["data"] = interface["data"][0], False
    return np.asarray(SimpleNamespace(__array_interface__=interface, owner=data))


def _series(
    batch: _Batch, column: _Column, plan: _Plan
) -> tuple[NDArray[np.integer[Any]], NDArray[np.floating[Any]]]:
    """Return the offsets of a column of lists, unchecked, and all its elements."""
    rows, elements = batch.lengths[column.node : column.node + 2]
    _, offsets, _, values = batch.buffers[column.buffer : column.buffer + 4]
    raw = batch.data[offsets].view(plan.offset_dtype)
    if rows != batch.rows or len(raw) <= rows:
        raise _Uncommon
    flat = batch.data[values].view(plan.dtype)
    if not (0 <= elements <= len(flat) and flat.flags.aligned):
        raise _Uncommon
    return raw[: rows + 1], flat[:elements]


def _ids(batch: _Batch, column: _Column, plan: _Plan) -> Sequence[int | str] | pa.Array:
    type_ = plan.schema.field("id").type
    is_text = pa.types.is_string(type_)
    slices = batch.buffers[column.buffer + 1 : column.buffer + 2 + is_text]
    if batch.lengths[column.node] != batch.rows:
        raise _Uncommon
    buffers = [None, *(pa.py_buffer(batch.data[where]) for where in slices)]
    ids = pa.Array.from_buffers(type_, batch.rows, buffers)
    ids.validate(full=True)  # forged offsets would read past the buffer
    if is_text:
        offsets = np.frombuffer(buffers[1], np.int32, batch.rows + 1)
        if (offsets[1:] - offsets[:-1]).max() > MAX_ID_BYTES:
            raise _Uncommon
    return ids
