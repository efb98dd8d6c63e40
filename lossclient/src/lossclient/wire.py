"""Series on the wire: the bytes of a request and of its answer.

A request is in the service's long form: a row an element, with the number of its series, the target
once, and a column for each model. Frames and lists of series are sent alike. Two things have no
place in it. A series without elements would have no row, and is refused before
(`lossclient.series`). All numbers are computed in double unless all of them are float, so against a
float target double models go in requests of their own (`lossclient.plan`); and gradients that come
in double for a float model are rounded here.
"""

import secrets
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lossclient.forecasts import Forecasts, Key
from lossclient.options import DEFAULT_COUNT

MEDIA_TYPE = "application/vnd.apache.arrow.stream"
TARGET = "y"
"""By default the service takes it for the target, and other floats for predictions."""
SERIES = "series"
_OVERHEAD = 1 << 16
"""Bytes of an answer beside its columns: schema and metadata, or a page of words instead."""
_UINT, _INT, _USHORT = map(struct.Struct, ("<I", "<i", "<H"))
_NUMBER = np.dtype(np.int32)
"""Of the numbers of series, of which a call has one run; see `first_number`."""


class Part(NamedTuple):
    """What one request carries: some neighbouring series of some models.

    All models are computed in one type, that of the first of them with the target.
    """

    start: int
    stop: int
    models: tuple[int, ...]

    @property
    def series(self) -> int:
        return self.stop - self.start

    @property
    def rows(self) -> int:
        """Of the answer: one for each series and model."""
        return self.series * len(self.models)


@cache
def prepare() -> None:
    """Import, encode and decode once, in the thread that makes the first client.

    Libraries hold a lock while they make what they need first: pyarrow and narwhals import modules,
    and Arrow has values of its own. A child that another thread forks meanwhile would wait for such
    a lock forever.
    """
    nw.from_native(object(), pass_through=True)
    part, numbers = Part(0, 1, (0,)), np.ones(1)
    forecasts = Forecasts(np.array([0, 1]), numbers, (None,), (numbers,), Key)
    encode(forecasts, part)
    answer = _expected(forecasts, part, 0).append_column("mae", pa.array(numbers))
    slopes = pa.LargeListArray.from_arrays([0, 1], pa.array(numbers))
    (batch,) = answer.append_column("mae_gradient", slopes).to_batches()
    decode(bytes(_stream_of(batch)), forecasts, part, ["mae"], gradients=True)


def first_number() -> int:
    """Return the number of a call's first series, from which the others are counted.

    Two calls share it by a chance of one in a billion, and no two requests of a call have the same
    series and model. So an answer to another request is recognized whatever a proxy has done to its
    headers. A billion series more still fit the type.
    """
    return secrets.randbelow(1 << 30)


def query_of(forecasts: Forecasts) -> Mapping[str, str]:
    """Return what the columns of a request are."""
    return {"group_columns": SERIES, **{f"{name}_column": name for name in forecasts.doubles}}


def row_bytes(forecasts: Forecasts, part: Part, gradients: int) -> int:
    """Return the bytes of an element: its row, and the gradients that come back."""
    predictions = sum(forecasts.predictions[model].itemsize for model in part.models)
    slopes = gradients * len(part.models) * computed_in(forecasts, part.models[0]).itemsize
    doubles = 8 * len(forecasts.doubles)
    return _NUMBER.itemsize + forecasts.target.itemsize + doubles + predictions + slopes


def computed_in(forecasts: Forecasts, model: int) -> np.dtype[Any]:
    """Return the type in which a model is scored: double unless it and the target are float."""
    return np.result_type(forecasts.target, forecasts.predictions[model])


def encode(forecasts: Forecasts, part: Part, first: int = 0) -> memoryview:
    """Return the body of a request; ``first`` is the number of the first series of the call."""
    offsets = forecasts.offsets[part.start : part.stop + 1]
    rows = slice(offsets[0], offsets[-1])
    columns: dict[str, npt.NDArray[Any]] = {
        SERIES: np.repeat(_numbers(part, first), np.diff(offsets)),
        TARGET: forecasts.target[rows],
    }
    columns |= {name: column[rows] for name, column in forecasts.doubles.items()}
    columns |= {str(model): forecasts.predictions[model][rows] for model in part.models}
    return _stream_of(pa.record_batch(columns))


def _stream_of(batch: pa.RecordBatch) -> memoryview:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return memoryview(sink.getvalue())


def most_answer_bytes(forecasts: Forecasts, part: Part, losses: int, *, gradients: bool) -> int:
    """Return the most bytes of an answer with so many losses.

    That is twice its numbers and texts, for padding and bitmaps.
    """
    elements = int(forecasts.offsets[part.stop] - forecasts.offsets[part.start]) * len(part.models)
    name = 4 + len(str(part.models[-1]))
    row = _NUMBER.itemsize + name + 8 + losses * (8 + 8 + 8 * gradients)
    slopes = elements * losses * gradients * computed_in(forecasts, part.models[0]).itemsize
    return _OVERHEAD + 2 * (part.rows * row + slopes)


def compress(body: memoryview, coding: str) -> memoryview:
    """Return a body in a content coding: ``zstd`` or ``gzip``."""
    # As bytes: the memoryview of a compressed buffer is as long as that was before it shrank.
    return memoryview(pa.compress(pa.py_buffer(body), codec=coding, asbytes=True))


def decode(  # noqa: PLR0913 - the answer is compared with the request
    body: bytes | bytearray,
    forecasts: Forecasts,
    part: Part,
    losses: Sequence[str] | None,
    *,
    gradients: bool,
    first: int = 0,
) -> pa.Table:
    """Return the columns of an answer: length, the losses, masked counts, gradients.

    Its rows are the series in their order, the models of a series together.

    Raises:
        ValueError: If it is not the answer for this part, these losses and gradients; losses may
            be any where None were named.
    """
    expected = _expected(forecasts, part, first)
    element = pa.from_numpy_dtype(computed_in(forecasts, part.models[0]))

    def types_in(names: Sequence[str]) -> dict[str, pa.DataType]:
        found = losses or [name for name in names if _is_loss(name, expected.column_names)]
        if losses is None and len(found) != DEFAULT_COUNT:
            raise ValueError(f"columns {names!s:.500}, not those of {DEFAULT_COUNT} losses")
        types = {field.name: field.type for field in expected.schema}
        types |= dict.fromkeys(found, pa.float64())
        if gradients:
            types |= dict.fromkeys(map("{}_gradient".format, found), pa.large_list(element))
        counts = [name for name in map("{}_masked".format, found) if name in names]
        return types | dict.fromkeys(counts, pa.int64())

    table = _read(body, types_in)
    masked, slopes = (
        [name for name in table.column_names if name.endswith(end)]
        for end in ("_masked", "_gradient")
    )
    if len(table) != len(expected):
        raise ValueError(f"{len(table)} rows for {len(expected)}")
    if not table.select(expected.column_names).equals(expected):
        raise ValueError("its series, models or lengths are not those of the request")
    for name in (*masked, *slopes):
        if table.column(name).null_count:
            raise ValueError(f"column {name} holds nulls")
    for name in slopes:
        place = table.column_names.index(name)
        table = table.set_column(place, name, _gradient(name, table, forecasts, part))
    return table.drop_columns([SERIES, "model"])


def _is_loss(name: str, keys: Sequence[str]) -> bool:
    return name not in keys and not name.endswith(("_masked", "_gradient"))


def _read(
    body: bytes | bytearray, types_in: Callable[[Sequence[str]], Mapping[str, pa.DataType]]
) -> pa.Table:
    """Return the columns, of the types that they must have, by their names.

    Arrow allocates what a compressed buffer says that it unpacks to, and copies what a dictionary
    repeats. So batches are read only where the types allow no dictionary, and if not compressed.
    """
    try:
        messages = pa.ipc.MessageReader.open_stream(body)
        schema = pa.ipc.read_schema(messages.read_next_message()).remove_metadata()
        types = types_in(schema.names)
        if sorted(schema.names) != sorted(types):
            raise ValueError(f"columns {schema.names!s:.500}, not {list(types)}")
        found = [schema.field(name).type for name in types]
        if found != list(types.values()):
            raise ValueError(f"columns of types {found!s:.500}, not {list(types.values())}")
        batches = []
        for message in messages:
            if _is_compressed(message.metadata):
                raise ValueError("its batches are compressed, which was not asked for")
            batches.append(pa.ipc.read_record_batch(message, schema))
        table = pa.Table.from_batches(batches, schema)
        table.validate(full=True)
    except StopIteration:
        raise ValueError("not a valid Arrow stream: it has no schema") from None
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a valid Arrow stream: {error}") from error
    return table.select(list(types))


def _is_compressed(metadata: pa.Buffer) -> bool:
    """Whether the buffers of a batch are compressed, by the metadata of its message.

    These are a flatbuffer, which Arrow has verified: a table begins with the distance back to its
    vtable, which says where each field is. A message has the batch as its field 2, and that has
    its compression as field 3.
    """
    message = _UINT.unpack_from(metadata)[0]
    place = _field(metadata, message, 2)
    batch = place + _UINT.unpack_from(metadata, place)[0]
    return _field(metadata, batch, 3) > 0


def _field(flatbuffer: pa.Buffer, table: int, number: int) -> int:
    """Return where a field is, 0 if the table has none."""
    vtable = table - _INT.unpack_from(flatbuffer, table)[0]
    entry = 4 + 2 * number
    if entry >= _USHORT.unpack_from(flatbuffer, vtable)[0]:
        return 0
    offset: int = _USHORT.unpack_from(flatbuffer, vtable + entry)[0]
    return table + offset if offset else 0


def _numbers(part: Part, first: int) -> npt.NDArray[np.int32]:
    return np.arange(first + part.start, first + part.stop, dtype=_NUMBER)


def _expected(forecasts: Forecasts, part: Part, first: int) -> pa.Table:
    """Return the columns of an answer that the request determines."""
    count = len(part.models)
    lengths = np.diff(forecasts.offsets[part.start : part.stop + 1])
    names = pa.array([str(model) for model in part.models])
    return pa.table(
        {
            SERIES: np.repeat(_numbers(part, first), count),
            "model": names.take(pa.array(np.tile(np.arange(count), part.series))),
            "length": np.repeat(lengths, count),
        }
    )


def _gradient(name: str, table: pa.Table, forecasts: Forecasts, part: Part) -> pa.LargeListArray:
    """Return a gradient, rounded to the type of each prediction; what is too large as the largest.

    It is float only where all models of the part are.
    """
    column, lengths = table.column(name), table.column("length")
    values = pc.list_flatten(column)
    if values.null_count or not pc.list_value_length(column).equals(lengths):
        raise ValueError(f"column {name} has not one number for each element")
    flat = values.to_numpy()
    narrow = np.array(
        [forecasts.predictions[model].itemsize < flat.itemsize for model in part.models]
    )
    if narrow.any():
        limit = np.finfo(np.float32).max
        rounded = flat.clip(-limit, limit).astype(np.float32)
        if narrow.all():
            flat = rounded
        else:
            flat = np.where(np.repeat(np.tile(narrow, part.series), lengths), rounded, flat)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return pa.LargeListArray.from_arrays(ends, pa.array(flat))
