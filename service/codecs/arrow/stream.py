"""Arrow IPC streams of strangers to tables that can be trusted.

Those of both forms are read here: how large a stream becomes is checked before it is unpacked, how
long texts are before they are read, and every offset before it is followed.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from loss_scoring.core.table import is_text
from loss_scoring.service.codecs.arrow.size import check_size
from loss_scoring.service.codecs.options import escape
from loss_scoring.service.codecs.request import MAX_ID_BYTES, Memory
from loss_scoring.service.errors import Faults, TooLargeError, UnreadableError

MAX_COLUMNS = 1 << 12
_SHOWN = 100
"""Characters of the name of a column that a message shows, where the name is too long."""
_ROWS_AT_ONCE = 1 << 20
"""Rows whose texts are measured between two checks of the deadline."""


def read_table(
    body: memoryview,
    max_bytes: int,
    choose: Callable[[pa.Schema], Sequence[str]],
    memory: Memory,
    keys: Collection[str] = ("id",),
) -> pa.Table:
    """Read the chosen columns of a stream, in place.

    Args:
        body: The stream.
        max_bytes: The most bytes once decompressed.
        choose: Returns the columns' names, in order; raises if the schema is not as it should be.
        memory: Asked for what reading takes before it is taken.
        keys: The columns whose texts may not be long.

    Raises:
        UnreadableError: If the body is not a valid Arrow IPC stream.
        InvalidError: If a text or the name of a column is too long.
        TooLargeError: If it takes more than ``max_bytes`` once decompressed, or has more columns,
            batches or dictionaries than are read.
    """
    memory.receive(sum(check_size(pa.py_buffer(body), max_bytes)))
    memory.check()
    try:
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            _check_names(reader.schema)
            wanted = choose(reader.schema)
            table = reader.read_all().select(wanted)
        memory.check()
        table.validate()
        for name in wanted:
            longest = MAX_ID_BYTES if name in keys else max_bytes
            _check_text(name, table.column(name), longest, max_bytes, memory)
        for column in table.columns:
            memory.check()
            column.validate(full=True)  # forged offsets would read past the buffer
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UnreadableError(f"the body is not a valid Arrow IPC stream: {error}") from error
    return table


def _check_names(schema: pa.Schema) -> None:
    """Refuse more columns than are read, and names that would be repeated at length."""
    names = schema.names
    if len(names) > MAX_COLUMNS:
        raise TooLargeError(f"the table has {len(names)} columns; {MAX_COLUMNS} are allowed")
    faults = Faults()
    for name in names:
        if len(name.encode()) > MAX_ID_BYTES:
            faults.add(
                f"/{escape(name[:_SHOWN])}...",
                f"the name is of {len(name.encode())} bytes; {MAX_ID_BYTES} are allowed",
            )
    faults.check()


def _check_text(
    name: str, column: pa.ChunkedArray, max_length: int, max_bytes: int, memory: Memory
) -> None:
    """Refuse long texts by their declared lengths, before anything reads them.

    Views may share one buffer, so that together they are far longer than the stream.
    """
    if not is_text(entries_of(column.type)):
        return
    longest = viewed = 0
    for texts in _pieces(column):
        memory.check()
        lengths = text_lengths(texts)
        longest = max(longest, int(lengths.max(initial=0)))
        if pa.types.is_string_view(texts.type):
            viewed += int(lengths.clip(0).sum(dtype=np.int64))  # a forged one may be negative
    if longest > max_length:
        faults = Faults()
        faults.add(f"/{escape(name)}", f"the longest is {longest} bytes; {max_length} are allowed")
        faults.check()
    if viewed > max_bytes:
        raise TooLargeError(f"the views of column {name} are over {max_bytes} bytes of text")


def text_bytes(column: pa.ChunkedArray) -> int:
    """Return the bytes of all texts of a column, those of a dictionary counted once; 0 if none."""
    if not is_text(entries_of(column.type)):
        return 0
    return sum(int(text_lengths(texts).sum(dtype=np.int64)) for texts in _pieces(column))


def entries_of(type_: pa.DataType) -> pa.DataType:
    """Return the type of the entries of a dictionary, any other type as it is."""
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _pieces(column: pa.ChunkedArray) -> Iterator[pa.Array]:
    """Yield the texts of a column, or of its dictionaries, so many at a time."""
    for chunk in column.chunks:
        texts = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
        for start in range(0, len(texts), _ROWS_AT_ONCE):
            yield texts.slice(start, _ROWS_AT_ONCE)


def text_lengths(texts: pa.Array) -> NDArray[np.integer[Any]]:
    """Return the bytes of each text, by what is declared of it and without a copy; 0 of a null."""
    if not pa.types.is_string_view(texts.type):
        return pc.binary_length(texts).fill_null(0).to_numpy()  # type: ignore[no-any-return]
    if not len(texts):
        return np.empty(0, np.int32)
    stop = texts.offset + len(texts)
    views = np.frombuffer(texts.buffers()[1], np.int32, 4 * stop).reshape(-1, 4)
    return views[texts.offset :, 0]
