"""Plain Arrow requests, as most clients send them, read in the time of a few calls into Arrow.

A stream is plain if it is one record batch, not compressed, of series of floats without nulls and,
if there are ids, short texts or integers. Its schema, which repeats from request to request, is
looked at once. Whatever else a stream may be, or may be damaged by, is left to
``service.codecs.arrow``, which also finds the words for what is wrong.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import DTypeLike, NDArray

from core import Ragged, ScoreOptions
from service.codecs.arrow_lists import gradient_type
from service.codecs.ipc import CONTINUES, DAMAGED, END, PREFIX, decompressed_size, is_native
from service.codecs.request import MAX_ID_BYTES, ScoreRequest
from service.errors import UnreadableError

_MAX_SCHEMA_BYTES = 1 << 14


class _Plan(NamedTuple):
    """What a schema says: types, and the places of columns in the batch; no id is at -1."""

    schema: pa.Schema
    prediction: int
    target: int
    id: int
    offset_dtype: DTypeLike
    gradient: pa.DataType


class _Unusual(Exception):  # noqa: N818 - it is no error
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
    except (_Unusual, UnreadableError, pa.ArrowException, OSError, EOFError, *DAMAGED):
        return None


def _decode(body: memoryview, options: ScoreOptions, max_elements: int) -> ScoreRequest:
    continues, length = PREFIX.unpack_from(body)
    start = PREFIX.size + length
    if continues != CONTINUES or not 0 < length <= _MAX_SCHEMA_BYTES:
        raise _Unusual
    plan = _plan(bytes(body[:start]))
    batch = _only_batch(body, start, plan.schema)
    values, raw = _series(batch.column(plan.prediction), plan)
    target, same = _series(batch.column(plan.target), plan)
    offsets = raw.astype(np.int64)
    if not np.array_equal(raw, same) or not (offsets[1:] > offsets[:-1]).all():
        raise _Unusual
    if len(values) > max_elements:
        raise _Unusual
    ragged = Ragged.trusted(values, offsets)
    return ScoreRequest(
        prediction=ragged,
        target=ragged.like(target),
        options=options,
        ids=range(len(ragged)) if plan.id < 0 else _ids(batch.column(plan.id)),
        gradient_type=plan.gradient,
    )


@lru_cache(maxsize=256)
def _plan(message: bytes) -> _Plan:
    """Read the message of a schema; raises ``_Unusual``, which is not cached."""
    schema = pa.ipc.read_schema(pa.py_buffer(message))
    if not is_native(pa.ipc.read_message(pa.py_buffer(message))):
        raise _Unusual
    names = schema.names
    if sorted(names) not in (["id", "prediction", "target"], ["prediction", "target"]):
        raise _Unusual
    type_ = schema.field("prediction").type
    is_large = pa.types.is_large_list(type_)
    if not (is_large or pa.types.is_list(type_)) or schema.field("target").type != type_:
        raise _Unusual
    if type_.value_type not in (pa.float32(), pa.float64()):
        raise _Unusual
    if "id" in names:
        kind = schema.field("id").type
        if not (pa.types.is_string(kind) or pa.types.is_integer(kind)):
            raise _Unusual
    return _Plan(
        schema,
        names.index("prediction"),
        names.index("target"),
        names.index("id") if "id" in names else -1,
        np.int64 if is_large else np.int32,
        gradient_type(type_, type_.value_type),
    )


def _only_batch(body: memoryview, start: int, schema: pa.Schema) -> pa.RecordBatch:
    """Read the message at ``start``, which must be a record batch and the last message."""
    message = pa.ipc.read_message(pa.py_buffer(body[start:]))
    continues, length = PREFIX.unpack_from(body, start)
    end = start + PREFIX.size + length + message.body.size
    if continues != CONTINUES or message.type != "record batch" or body[end:] not in (END, b""):
        raise _Unusual
    if decompressed_size(message):
        raise _Unusual
    batch = pa.ipc.read_record_batch(message, schema)
    batch.validate(full=True)  # forged offsets would read past the buffer
    return batch


def _series(
    column: pa.Array, plan: _Plan
) -> tuple[NDArray[np.floating[Any]], NDArray[np.integer[Any]]]:
    """Return the elements of a column of lists, and the offsets of these among them."""
    if column.null_count or column.values.null_count or not len(column):
        raise _Unusual
    _, offsets, _, elements = column.buffers()
    raw = np.frombuffer(offsets, plan.offset_dtype, len(column) + 1)
    if raw[0] or elements is None:
        raise _Unusual
    if elements.address % column.values.type.byte_width:
        raise _Unusual
    # By torch, as numpy's own view would be read-only, and be copied by the kernel.
    return torch.from_dlpack(column.values).numpy()[: raw[-1]], raw  # type: ignore[attr-defined]


def _ids(column: pa.Array) -> pa.Array:
    if column.null_count:
        raise _Unusual
    if pa.types.is_string(column.type):
        offsets = np.frombuffer(column.buffers()[1], np.int32, len(column) + 1)
        if (offsets[1:] - offsets[:-1]).max() > MAX_ID_BYTES:
            raise _Unusual
    return column
