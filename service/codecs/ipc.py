"""How large an Arrow IPC stream becomes in memory, read from its headers alone.

A compressed buffer starts with its size once decompressed, and the reader allocates just that
much before it decompresses. So the sum of those sizes bounds the memory, and 16 MB of zeros that
travel as 816 bytes are refused before they are unpacked. Field numbers are those of Arrow's
``Message.fbs``. Reads are bounds-checked by Python: a forged offset raises, it never strays.
"""

import itertools
import struct
from collections.abc import Iterator

import pyarrow as pa
from flatbuffers import number_types
from flatbuffers.table import Table

from service.errors import ServiceError, TooLargeError, UnreadableError

_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # values of the union MessageHeader
_MESSAGE_VERSION, _MESSAGE_HEADER_TYPE, _MESSAGE_HEADER, _MESSAGE_METADATA = 0, 1, 2, 4
_V5 = 4  # a value of the enum MetadataVersion
_RECORD_BATCH_BUFFERS, _RECORD_BATCH_COMPRESSION = 2, 3
_DICTIONARY_BATCH_DATA, _DICTIONARY_BATCH_IS_DELTA = 1, 2
_BUFFER_BYTES = 16  # struct Buffer { offset: int64, length: int64 }

_FEW = 64
_DICTIONARY_CHECKS = 16
"""How often the limit may be read: a dictionary is validated anew with each record batch."""


class StreamCheck:
    """Judges a stream by the headers of its messages, each of which is read once.

    Args:
        body: The stream.
        limit: The most bytes that it may need once decompressed.
    """

    def __init__(self, body: pa.Buffer, limit: int) -> None:
        self._body = body
        self.limit = limit
        self._unpacked = 0
        self._sizes = _checked_sizes(body, limit)

    def finds_few_and_plain(self) -> bool:
        """Tell whether the stream is a handful of messages, none of them compressed.

        One to be refused is: reading it ends where the fault is.
        """
        try:
            some = list(itertools.islice(self._sizes, _FEW + 1))
        except ServiceError:
            self._sizes = _checked_sizes(self._body, self.limit)  # so that ``finish`` meets it
            return True
        self._unpacked = sum(some)
        return len(some) <= _FEW and not any(some)

    def finish(self) -> int:
        """Look at the messages not seen yet; return the bytes that reading takes beside the body.

        Those are what is compressed, once decompressed; the rest is read in place.

        Raises:
            TooLargeError: If the stream needs more than the limit once decompressed.
            UnreadableError: If a header is damaged.
        """
        self._unpacked += sum(self._sizes)
        return self._unpacked


def _checked_sizes(body: pa.Buffer, limit: int) -> Iterator[int]:
    """Yield what each message grows to if it is compressed; raises as ``StreamCheck.finish``."""
    total = dictionary = checked = 0
    source = pa.BufferReader(body)
    try:
        for message in pa.ipc.MessageReader.open_stream(source):
            size = _decompressed_size(message)
            total += size
            if total > limit:
                raise TooLargeError(f"the stream is over {limit} bytes once decompressed")
            if message.type == "dictionary":
                dictionary = size + message.body.size
            elif message.type == "record batch":
                checked += dictionary
            if checked > limit * _DICTIONARY_CHECKS:
                raise TooLargeError("a large dictionary is shared by too many record batches")
            yield size
    except (pa.ArrowException, OSError) as error:
        raise UnreadableError(f"the body is not an Arrow IPC stream: {error}") from error
    except (struct.error, IndexError, TypeError, ValueError) as error:
        raise UnreadableError("an Arrow message header is damaged") from error
    if source.tell() < body.size:  # a second stream, say, whose series would get no answer
        raise UnreadableError(f"{body.size - source.tell()} bytes follow the end of the stream")


def _decompressed_size(message: pa.ipc.Message) -> int:
    metadata = memoryview(message.metadata)
    root = Table(metadata, struct.unpack_from("<I", metadata)[0])
    header_type = _scalar(root, _MESSAGE_HEADER_TYPE, number_types.Uint8Flags)
    if header_type not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return 0
    if root.Offset(_slot(_MESSAGE_METADATA)) and (
        _scalar(root, _MESSAGE_VERSION, number_types.Int16Flags) != _V5
    ):
        # Arrow 0.17 announced compression in the metadata, and its readers still honour it.
        raise UnreadableError("metadata on batches is only read in version V5 of the format")
    batch = _table(root, _MESSAGE_HEADER)
    if batch is not None and header_type == _DICTIONARY_BATCH:
        if _scalar(batch, _DICTIONARY_BATCH_IS_DELTA, number_types.BoolFlags):
            # Every batch between two deltas holds a copy of the whole dictionary so far.
            raise UnreadableError("dictionary deltas are not read; send whole dictionaries")
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
