"""Plain Arrow requests, as most clients send them, read without a call into Arrow.

A stream is plain if it is one record batch, not compressed, of series of floats without nulls and,
if there are ids, short texts or integers. Its schema and the metadata of its batch repeat from
request to request, and are read once. Of metadata that are new, pyarrow has read others before that
differ in their numbers only (rows, nulls, and where buffers start and end): they are as valid, and
the numbers are checked. Any other stream, and any damage, is left to
``service.codecs.arrow.read``, which also words what is wrong.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from loss_scoring.core import Ragged, ScoreOptions
from loss_scoring.service.codecs.arrow.lists import gradient_type
from loss_scoring.service.codecs.arrow.size import (
    CONTINUES,
    DAMAGED,
    END,
    PREFIX,
    BatchLayout,
    BatchNumbers,
    cost_of,
    is_native,
)
from loss_scoring.service.codecs.request import MAX_ID_BYTES, NO_NAMES, ListRequest, NamesBytes
from loss_scoring.service.errors import UnreadableError

_MAX_METADATA_BYTES = 1 << 14
_ALIGNMENT = 8
_ESCAPED = 6
"""Bytes of JSON that a byte of text takes at most."""
_NUMBER_BYTES = 21
"""Bytes of JSON that an integer takes at most, with a comma."""


@dataclass
class _Schema:
    """What a schema says, and the layout of the batch that followed it last."""

    schema: pa.Schema
    nodes: dict[str, int]  # where each column starts among the numbers of nodes
    buffers: dict[str, int]  # and among the buffers
    counts: tuple[int, int]  # of the numbers of nodes and of buffers
    dtype: np.dtype[Any]
    offset_dtype: np.dtype[Any]
    gradient: pa.DataType
    id_type: pa.DataType | None
    layout: BatchLayout | None = None


class _Batch(NamedTuple):
    """Where what is in a body, checked: the same for all bodies with the same metadata.

    Offsets and values are those of the prediction and of the target.
    """

    rows: int
    elements: int  # that each side has at least
    end: int
    offsets: list[slice]
    values: list[int]
    ids: list[slice]  # their buffers, but that of nulls
    names: NamesBytes
    schema: _Schema


class _Uncommon(Exception):  # noqa: N818 - it is no error
    pass


def decode_plain(body: memoryview, options: ScoreOptions, max_elements: int) -> ListRequest | None:
    """Read a request from a plain stream, in place; None if it is not plain, or to be refused."""
    if options.scaled:  # there is another column
        return None
    if body.readonly:  # as only small ones are, and the kernel would copy their numbers
        body = memoryview(bytearray(body))
    try:
        start = PREFIX.size + PREFIX.unpack_from(body)[1]
        stop = start + PREFIX.size + PREFIX.unpack_from(body, start)[1]
        if not 0 < stop <= _MAX_METADATA_BYTES:
            return None
        batch = _batch(bytes(body[:stop]))
        prediction, target = (
            np.frombuffer(body, batch.schema.dtype, batch.elements, place) for place in batch.values
        )
        raw, same = (body[place] for place in batch.offsets)
        ends = np.frombuffer(raw, batch.schema.offset_dtype)
        last = int(ends[-1])
        if (
            batch.end > len(body)
            or body[batch.end :] not in (b"", END)
            or bytes(raw) != bytes(same)
            or ends[0] != 0
            or b"\0" in (ends[1:] > ends[:-1]).tobytes()  # half the time of all()
            or last > min(batch.elements, max_elements)
            or not (prediction.flags.aligned and target.flags.aligned)
        ):
            return None
        ids = _ids(body, batch) if batch.ids else range(batch.rows)
    except (_Uncommon, UnreadableError, pa.ArrowException, OSError, EOFError, *DAMAGED):
        return None
    offsets = ends.astype(np.int64)
    return ListRequest(
        Ragged.trusted(prediction[:last], offsets),
        Ragged.trusted(target[:last], offsets),
        options,
        ids=ids,
        gradient_type=batch.schema.gradient,
        copied=False,
        names_bytes=batch.names,
    )


@lru_cache(maxsize=1024)
def _batch(metadata: bytes) -> _Batch:
    """Read the two messages of a stream, but for the body of the second.

    Raises:
        Exception: ``_Uncommon`` or what else says that the stream is not plain; it is not cached.
    """
    start = _end_of_metadata(metadata, 0)
    stop = _end_of_metadata(metadata, start)
    if stop != len(metadata):
        raise _Uncommon
    schema = _schema(metadata[:start])
    numbers = _numbers(metadata[start:], schema)
    if numbers.rows <= 0 or numbers.size < 0 or any(numbers.nodes[1::2]):  # nulls
        raise _Uncommon
    rows, nodes = numbers.rows, numbers.nodes
    buffers = []
    for at, length in zip(numbers.buffers[::2], numbers.buffers[1::2], strict=True):
        if length < 0 or at % _ALIGNMENT or not 0 <= at <= numbers.size - length:
            raise _Uncommon
        buffers.append(slice(stop + at, stop + at + length))
    if any(nodes[place] != rows for place in schema.nodes.values()):
        raise _Uncommon
    offsets, values, elements = [], [], []
    for name in ("prediction", "target"):
        _, raw, _, flat = buffers[schema.buffers[name] :][:4]
        size = (rows + 1) * schema.offset_dtype.itemsize
        count = nodes[schema.nodes[name] + 2]
        if raw.stop - raw.start < size or flat.stop - flat.start < count * schema.dtype.itemsize:
            raise _Uncommon
        offsets.append(slice(raw.start, raw.start + size))
        values.append(flat.start)
        elements.append(count)
    ids, names = [], NO_NAMES
    if schema.id_type is not None:
        is_text = pa.types.is_string(schema.id_type)
        first = schema.buffers["id"] + 1
        ids = buffers[first : first + 1 + is_text]
        text = ids[-1].stop - ids[-1].start if is_text else 0
        names = NamesBytes(text, _ESCAPED * text + _NUMBER_BYTES * rows)
    return _Batch(rows, min(elements), stop + numbers.size, offsets, values, ids, names, schema)


def _end_of_metadata(messages: bytes, start: int) -> int:
    continues, length = PREFIX.unpack_from(messages, start)
    if continues != CONTINUES or length <= 0:
        raise _Uncommon
    return start + PREFIX.size + int(length)


@lru_cache(maxsize=256)
def _schema(message: bytes) -> _Schema:
    """Read the message of a schema; raises as ``_batch`` does."""
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
    nodes, buffers = {}, {}
    node = buffer = 0
    for field in schema:
        nodes[field.name], buffers[field.name] = 2 * node, buffer
        if field.type == type_:
            node, buffer = node + 2, buffer + 4
        elif pa.types.is_string(field.type) or pa.types.is_integer(field.type):
            node, buffer = node + 1, buffer + 2 + pa.types.is_string(field.type)
        else:
            raise _Uncommon
    return _Schema(
        schema,
        nodes,
        buffers,
        (2 * node, 2 * buffer),
        np.dtype(type_.value_type.to_pandas_dtype()),
        np.dtype(np.int64 if is_large else np.int32),
        gradient_type(type_, type_.value_type),
        schema.field("id").type if "id" in nodes else None,
    )


def _numbers(metadata: bytes, schema: _Schema) -> BatchNumbers:
    """Return the numbers of a batch, by the layout that was met last if it is of this."""
    layout = schema.layout
    if layout is None or (numbers := layout.unpack(metadata)) is None:
        layout = BatchLayout.of(metadata)
        if layout.counts != schema.counts:
            raise _Uncommon
        nodes, buffers = ([0] * count for count in layout.counts)
        message = pa.ipc.read_message(pa.py_buffer(layout.pack(0, 0, nodes, buffers)))
        if message.type != "record batch" or cost_of(message).unpacked:
            raise _Uncommon
        pa.ipc.read_record_batch(message, schema.schema)  # which checks all but the numbers
        schema.layout = layout
        numbers = layout.unpack(metadata)
    if numbers is None:
        raise _Uncommon
    return numbers


def _ids(body: memoryview, batch: _Batch) -> pa.Array:
    buffers = [None, *(pa.py_buffer(body[place]) for place in batch.ids)]
    ids = pa.Array.from_buffers(batch.schema.id_type, batch.rows, buffers)
    ids.validate(full=True)  # forged offsets would read past the buffer
    if len(buffers) > 2:
        offsets = np.frombuffer(buffers[1], np.int32, batch.rows + 1)
        if (offsets[1:] - offsets[:-1]).max() > MAX_ID_BYTES:
            raise _Uncommon
    return ids
