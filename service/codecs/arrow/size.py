"""What the headers of an Arrow IPC stream say: above all, what reading it costs.

A compressed buffer starts with its size once decompressed, and the reader allocates just that
much before it decompresses. So the sum of those sizes bounds the memory, and 16 MB of zeros that
travel as 816 bytes are refused before they are unpacked. Field numbers are those of Arrow's
``Message.fbs``; a header is a table of flatbuffers. Reads are bounds-checked by Python: a forged
offset raises, it never strays.
"""

import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from loss_scoring.service.codecs.mistaken import describe_other_than_arrow
from loss_scoring.service.errors import TooLargeError, UnreadableError

CONTINUES = 0xFFFFFFFF
PREFIX = struct.Struct("<Ii")
"""What each message begins with: ``CONTINUES``, and the bytes of its metadata."""
END = PREFIX.pack(CONTINUES, 0)

_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # values of the union MessageHeader
_MESSAGE_VERSION, _MESSAGE_HEADER_TYPE, _MESSAGE_HEADER = 0, 1, 2
_MESSAGE_BODY_LENGTH, _MESSAGE_METADATA = 3, 4
_V5 = 4  # a value of the enum MetadataVersion
_SCHEMA_ENDIANNESS = 0
_ENDIANNESS = {"little": 0, "big": 1}[sys.byteorder]  # a value of the enum Endianness
_RECORD_BATCH_LENGTH, _RECORD_BATCH_NODES = 0, 1
_RECORD_BATCH_BUFFERS, _RECORD_BATCH_COMPRESSION = 2, 3
_DICTIONARY_BATCH_ID, _DICTIONARY_BATCH_DATA, _DICTIONARY_BATCH_IS_DELTA = 0, 1, 2
_COUNT = struct.Struct("<I")  # what a vector begins with
_NUMBER_BYTES = 8

MAX_METADATA_BYTES = 1 << 22
"""Of a message: a schema, or what describes the buffers of a batch."""
MAX_PARTS = 1 << 20
_BATCH_PARTS = 64
"""A batch takes the time of as many parts (columns, levels of lists, and buffers)."""
_BATCH_BYTES, _PART_BYTES = 256, 128
"""What the objects take that describe a batch, and each of its parts."""
_SCHEMA_COPIES = 16
"""Bytes that the objects of a schema take for each that it was sent in."""
_VALIDATED = 16
"""How often the limit may be read: every dictionary is validated again with each record batch."""
DAMAGED = (struct.error, IndexError, TypeError, ValueError)
"""What ``cost_of`` raises for a damaged header."""


class Cost(NamedTuple):
    """What reading a message takes."""

    unpacked: int = 0  # bytes of what is compressed, once decompressed
    objects: int = 0  # bytes of what describes its buffers
    parts: int = _BATCH_PARTS
    dictionary: int | None = None  # which one it is


def check_size(body: pa.Buffer, limit: int) -> tuple[int, int]:
    """Return what is unpacked of a stream, and what its objects take; the rest is read in place.

    Args:
        body: The stream.
        limit: The most bytes that it may need once decompressed.

    Raises:
        TooLargeError: If the stream needs more than the limit once decompressed, is of too many
            parts, or would have a large dictionary validated too often.
        UnreadableError: If a header is damaged.
    """
    source, total = pa.BufferReader(body), _Total(limit)
    try:
        for message in pa.ipc.MessageReader.open_stream(source):
            total.add(message)
    except MemoryError:
        raise
    except (pa.ArrowException, OSError) as error:
        reason = describe_other_than_arrow(memoryview(body)) or f": {error}"
        raise UnreadableError(f"the body is not an Arrow IPC stream{reason}") from error
    except DAMAGED as error:
        meant = describe_other_than_arrow(memoryview(body))
        raise UnreadableError(f"an Arrow message header is damaged{meant}") from error
    if source.tell() < body.size:  # a second stream, say, whose series would get no answer
        raise UnreadableError(f"{body.size - source.tell()} bytes follow the end of the stream")
    return total.unpacked, total.objects


class _Total:
    """What the messages of a stream take together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts = self._validated = 0
        self._dictionaries: dict[int, int] = {}
        self._shared = 0  # bytes of the dictionaries that the next record batch refers to
        self.unpacked = self.objects = 0

    def add(self, message: pa.ipc.Message) -> None:
        cost = cost_of(message)
        self.unpacked += cost.unpacked
        self.objects += cost.objects
        self._parts += cost.parts
        if cost.dictionary is not None:
            size = cost.unpacked + message.body.size
            self._shared += size - self._dictionaries.get(cost.dictionary, 0)
            self._dictionaries[cost.dictionary] = size
        elif message.type == "record batch":
            self._validated += self._shared
        if self.unpacked > self._limit:
            raise TooLargeError(f"the stream is over {self._limit} bytes once decompressed")
        if self._parts > MAX_PARTS:
            raise TooLargeError(
                "the stream is of too many record batches, or of too many columns in each; join "
                "batches (pyarrow: combine_chunks, polars: rechunk)"
            )
        if self._validated > self._limit * _VALIDATED:
            raise TooLargeError("a large dictionary is shared by too many record batches")


def is_native(message: pa.ipc.Message) -> bool:
    """Tell whether numbers are in the order of bytes of this machine, by the message of a schema.

    ``pa.ipc.open_stream`` swaps them if they are not; ``pa.ipc.read_record_batch`` does not know.

    Raises:
        Exception: One of ``DAMAGED``.
    """
    schema = Table.root(message.metadata).table(_MESSAGE_HEADER)
    return schema.scalar(_SCHEMA_ENDIANNESS, "<h") == _ENDIANNESS


def cost_of(message: pa.ipc.Message) -> Cost:
    """Return what reading a message takes.

    Raises:
        TooLargeError: If its metadata are too long.
        UnreadableError: If it is a delta of a dictionary, or of an old version of the format.
        Exception: One of ``DAMAGED``.
    """
    size = message.metadata.size
    if size > MAX_METADATA_BYTES:
        raise TooLargeError(
            f"the schema or the metadata of a batch take {size} bytes; {MAX_METADATA_BYTES} are "
            "allowed"
        )
    root = Table.root(message.metadata)
    header_type = root.scalar(_MESSAGE_HEADER_TYPE, "B")
    if header_type not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return Cost(objects=_SCHEMA_COPIES * size)
    if root.find(_MESSAGE_METADATA) and root.scalar(_MESSAGE_VERSION, "<h") != _V5:
        # Arrow 0.17 announced compression in the metadata, and its readers still honour it.
        raise UnreadableError("metadata on batches is only read in version V5 of the format")
    batch, dictionary = root.table(_MESSAGE_HEADER), None
    if header_type == _DICTIONARY_BATCH:
        if batch.scalar(_DICTIONARY_BATCH_IS_DELTA, "?"):
            # Every batch between two deltas holds a copy of the whole dictionary so far.
            raise UnreadableError("dictionary deltas are not read; send whole dictionaries")
        dictionary = batch.scalar(_DICTIONARY_BATCH_ID, "<q")
        batch = batch.table(_DICTIONARY_BATCH_DATA)
    parts = batch.count(_RECORD_BATCH_NODES) + batch.count(_RECORD_BATCH_BUFFERS)
    is_compressed = batch.find(_RECORD_BATCH_COMPRESSION)  # if not, it is as large as it was sent
    unpacked = _unpacked_bytes(batch, message.body) if is_compressed else 0
    return Cost(unpacked, _BATCH_BYTES + _PART_BYTES * parts, _BATCH_PARTS + parts, dictionary)


class BatchNumbers(NamedTuple):
    """The numbers in the metadata of a record batch."""

    rows: int
    size: int  # bytes of its body
    nodes: tuple[int, ...]  # rows and nulls of each column, and of each level of lists
    buffers: tuple[int, ...]  # where each starts in the body, and its bytes


class BatchLayout(NamedTuple):
    """What the metadata of a record batch are like, but for their numbers."""

    struct: struct.Struct  # runs of numbers, and the bytes around these
    blank: tuple[bytes | int, ...]  # what it holds where all numbers are 0
    constants: Callable[[Sequence[Any]], tuple[Any, ...]]  # returns the bytes of what it holds
    numbers: Sequence[slice]  # where those of ``BatchNumbers`` are in it

    @classmethod
    def of(cls, message: pa.Buffer | bytes) -> "BatchLayout":
        """Find the numbers in the message of a batch, of which the body is not read.

        Raises:
            Exception: One of ``DAMAGED``, also if the batch is compressed or has no rows.
        """
        _, size = PREFIX.unpack_from(message)
        metadata = bytes(memoryview(message)[: PREFIX.size + size])
        runs = _runs_of_numbers(metadata)
        numbers = [slice(0)] * len(runs)
        format_, stop, count = "<", 0, 0
        for i, (start, length) in sorted(enumerate(runs), key=lambda run: run[1]):
            format_ += f"{start - stop}s{length}q"
            numbers[i] = slice(count + 1, count + 1 + length)
            count += 1 + length
            stop = start + _NUMBER_BYTES * length
        layout = struct.Struct(f"{format_}{len(metadata) - stop}s")
        blank = [x if isinstance(x, bytes) else 0 for x in layout.unpack(metadata)]
        if _runs_of_numbers(layout.pack(*blank)) != runs:
            raise ValueError("numbers that are places as well")
        constants = itemgetter(*(i for i, x in enumerate(blank) if isinstance(x, bytes)))
        return cls(layout, tuple(blank), constants, numbers)

    @property
    def counts(self) -> tuple[int, int]:
        """How many numbers there are of nodes and of buffers."""
        nodes, buffers = self.numbers[2:]
        return nodes.stop - nodes.start, buffers.stop - buffers.start

    def unpack(self, metadata: bytes) -> BatchNumbers | None:
        """Return the numbers of metadata; None if these are of another layout."""
        if len(metadata) != self.struct.size:
            return None
        items = self.struct.unpack(metadata)
        if self.constants(items) != self.constants(self.blank):
            return None
        rows, size, nodes, buffers = self.numbers
        return BatchNumbers(items[rows.start], items[size.start], items[nodes], items[buffers])

    def pack(self, rows: int, size: int, nodes: Iterable[int], buffers: Iterable[int]) -> bytes:
        """Return the metadata of a batch of this layout."""
        items = list(self.blank)
        for place, numbers in zip(self.numbers, ((rows,), (size,), nodes, buffers), strict=True):
            items[place] = numbers
        return self.struct.pack(*items)


def _runs_of_numbers(metadata: bytes) -> list[tuple[int, int]]:
    """Return where rows, bytes, nodes and buffers are, and how many numbers each is."""
    root = Table.root(metadata, PREFIX.size)
    batch = root.table(_MESSAGE_HEADER)
    rows, size = batch.find(_RECORD_BATCH_LENGTH), root.find(_MESSAGE_BODY_LENGTH)
    vectors = [batch.find(x) for x in (_RECORD_BATCH_NODES, _RECORD_BATCH_BUFFERS)]
    if batch.find(_RECORD_BATCH_COMPRESSION) or not (rows and size and all(vectors)):
        raise ValueError("a batch that is compressed or empty")
    runs = [(rows, 1), (size, 1)]
    for vector in map(batch.follow, vectors):
        (count,) = _COUNT.unpack_from(metadata, vector)
        runs.append((vector + _COUNT.size, 2 * count))
    return runs


def _unpacked_bytes(batch: "Table", body: pa.Buffer) -> int:
    """Return the bytes of the buffers of a compressed batch once decompressed."""
    count = batch.count(_RECORD_BATCH_BUFFERS)
    if not count:
        return 0
    vector = batch.follow(batch.find(_RECORD_BATCH_BUFFERS)) + _COUNT.size
    places = np.frombuffer(batch.data, np.int64, 2 * count, vector).reshape(-1, 2)
    starts, lengths = places[places[:, 1] != 0].T
    if ((starts < 0) | (lengths < _NUMBER_BYTES) | (starts > body.size - lengths)).any():
        raise ValueError("a buffer outside the message")
    numbers = np.frombuffer(body, np.uint8)[starts[:, None] + np.arange(_NUMBER_BYTES)]
    sizes = numbers.view(np.int64).ravel()
    if (sizes < -1).any():
        raise ValueError("a negative size")
    sizes = np.where(sizes == -1, lengths, sizes)  # -1: stored as it is
    return sum(sizes.tolist())  # of any size, as sums of int64 are not


class Table(NamedTuple):
    """A table of flatbuffers: a distance back to its vtable, which has the place of each field."""

    data: memoryview
    start: int

    @classmethod
    def root(cls, message: pa.Buffer | bytes, start: int = 0) -> "Table":
        """Return the table that the metadata of a message are, which start there."""
        data = memoryview(message)
        return cls(data, start + int(struct.unpack_from("<I", data, start)[0]))

    def find(self, field: int) -> int:
        """Return where a field is, 0 if it is absent."""
        (back,) = struct.unpack_from("<i", self.data, self.start)
        vtable = self.start - back
        if vtable < 0:
            raise ValueError("a vtable before the message")
        (size,) = struct.unpack_from("<H", self.data, vtable)
        place = 4 + 2 * field
        if place >= size:
            return 0
        (distance,) = struct.unpack_from("<H", self.data, vtable + place)
        return self.start + int(distance) if distance else 0

    def scalar(self, field: int, format_: str) -> int:
        """Return a number, 0 if it is absent."""
        place = self.find(field)
        return int(struct.unpack_from(format_, self.data, place)[0]) if place else 0

    def follow(self, place: int) -> int:
        """Return what an offset in the message leads to."""
        return place + int(struct.unpack_from("<I", self.data, place)[0])

    def count(self, field: int) -> int:
        """Return the length of a vector, 0 if it is absent."""
        place = self.find(field)
        return int(_COUNT.unpack_from(self.data, self.follow(place))[0]) if place else 0

    def table(self, field: int) -> "Table":
        """Return a table within the table."""
        place = self.find(field)
        if not place:
            raise ValueError("a table is missing")
        return Table(self.data, self.follow(place))
