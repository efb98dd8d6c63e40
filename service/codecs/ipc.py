"""How large an Arrow IPC stream becomes in memory, read from its headers alone.

A compressed buffer starts with its size once decompressed, and the reader allocates just that
much before it decompresses. So the sum of those sizes bounds the memory, and 16 MB of zeros that
travel as 816 bytes are refused before they are unpacked. Field numbers are those of Arrow's
``Message.fbs``. Reads are bounds-checked by Python: a forged offset raises, it never strays.
"""

import struct

import pyarrow as pa
from flatbuffers import number_types
from flatbuffers.table import Table

from service.errors import TooLargeError, UnreadableError

_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # values of the union MessageHeader
_MESSAGE_HEADER_TYPE, _MESSAGE_HEADER = 1, 2
_RECORD_BATCH_BUFFERS, _RECORD_BATCH_COMPRESSION = 2, 3
_DICTIONARY_BATCH_DATA = 1
_BUFFER_BYTES = 16  # struct Buffer { offset: int64, length: int64 }


def check_stream_size(body: pa.Buffer, limit: int) -> None:
    """Raise ``TooLargeError`` if the stream needs more than ``limit`` bytes once decompressed.

    Raises:
        TooLargeError: If it does.
        UnreadableError: If a header is damaged.
    """
    total = 0
    try:
        for message in pa.ipc.MessageReader.open_stream(body):
            total += _decompressed_size(message)
            if total > limit:
                raise TooLargeError(f"the stream is over {limit} bytes once decompressed")
    except (pa.ArrowException, OSError) as error:
        raise UnreadableError(f"the body is not an Arrow IPC stream: {error}") from error
    except (struct.error, IndexError, TypeError, ValueError) as error:
        raise UnreadableError("an Arrow message header is damaged") from error


def _decompressed_size(message: pa.ipc.Message) -> int:
    metadata = memoryview(message.metadata)
    root = Table(metadata, struct.unpack_from("<I", metadata)[0])
    header_type = _scalar(root, _MESSAGE_HEADER_TYPE, number_types.Uint8Flags)
    if header_type not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return 0
    batch = _table(root, _MESSAGE_HEADER)
    if batch is not None and header_type == _DICTIONARY_BATCH:
        batch = _table(batch, _DICTIONARY_BATCH_DATA)
    if batch is None:
        raise ValueError("a batch without a header")
    if not batch.Offset(_slot(_RECORD_BATCH_COMPRESSION)):
        return 0  # read in place: it is as large as it was sent
    return sum(_buffer_sizes(batch, message.body))


def _buffer_sizes(batch: Table, body: pa.Buffer) -> list[int]:
    field = batch.Offset(_slot(_RECORD_BATCH_BUFFERS))
    if not field:
        return []
    start, count = batch.Vector(field), batch.VectorLen(field)
    sizes = []
    for i in range(count):
        offset, length = struct.unpack_from("<qq", batch.Bytes, start + i * _BUFFER_BYTES)
        if length == 0:
            continue
        if not 0 <= offset <= offset + length <= body.size:
            raise ValueError("a buffer outside the message")
        (size,) = struct.unpack_from("<q", memoryview(body), offset)
        sizes.append(length if size == -1 else size)  # -1: stored as it is
        if size < -1:
            raise ValueError("a negative size")
    return sizes


def _slot(field: int) -> int:
    """Return the place of a field in a flatbuffers vtable."""
    return 4 + 2 * field


def _scalar(table: Table, field: int, flags: type) -> int:
    return int(table.GetSlot(_slot(field), 0, flags))


def _table(table: Table, field: int) -> Table | None:
    offset = table.Offset(_slot(field))
    return Table(table.Bytes, table.Indirect(table.Pos + offset)) if offset else None
