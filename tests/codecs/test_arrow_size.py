"""The size of a stream from its headers, forged ones included."""

import struct

import flatbuffers
import pyarrow as pa
import pytest
from flatbuffers.table import Table
from streams import plain, read, write

from loss_scoring.service.codecs.arrow.size import check_size
from loss_scoring.service.errors import TooLargeError, UnreadableError

END = struct.pack("<Ii", 0xFFFFFFFF, 0)


def frame(metadata, body):
    metadata += b"\0" * (-len(metadata) % 8)
    return struct.pack("<Ii", 0xFFFFFFFF, len(metadata)) + metadata + body


def of_arrow_0_17(message):
    """Announce compression as Arrow 0.17 did: in V4 metadata, not in the batch."""
    old = memoryview(message.metadata)
    root = Table(old, struct.unpack_from("<I", old)[0])
    batch = Table(old, root.Indirect(root.Pos + root.Offset(8)))
    structs = {}
    for field in (1, 2):
        place = batch.Offset(4 + 2 * field)
        start, count = batch.Vector(place), batch.VectorLen(place)
        structs[field] = [struct.unpack_from("<qq", old, start + 16 * i) for i in range(count)]
    (rows,) = struct.unpack_from("<q", old, batch.Pos + batch.Offset(4))

    new = flatbuffers.Builder(512)
    vectors = {}
    for field, pairs in structs.items():
        new.StartVector(16, len(pairs), 8)
        for first, second in reversed(pairs):
            new.Prep(8, 16)
            new.PrependInt64(second)
            new.PrependInt64(first)
        vectors[field] = new.EndVector()
    new.StartObject(3)
    new.PrependInt64Slot(0, rows, 0)
    for field, vector in vectors.items():
        new.PrependUOffsetTRelativeSlot(field, vector, 0)
    header = new.EndObject()
    key, value = new.CreateString("ARROW:experimental_compression"), new.CreateString("zstd")
    new.StartObject(2)
    new.PrependUOffsetTRelativeSlot(0, key, 0)
    new.PrependUOffsetTRelativeSlot(1, value, 0)
    note = new.EndObject()
    new.StartVector(4, 1, 4)
    new.PrependUOffsetTRelative(note)
    notes = new.EndVector()
    new.StartObject(5)
    new.PrependInt16Slot(0, 3, 0)
    new.PrependUint8Slot(1, 3, 0)
    new.PrependUOffsetTRelativeSlot(2, header, 0)
    new.PrependInt64Slot(3, message.body.size, 0)
    new.PrependUOffsetTRelativeSlot(4, notes, 0)
    new.Finish(new.EndObject())
    return frame(bytes(new.Output()), message.body.to_pybytes())


def check(body, limit):
    unpacked, _ = check_size(body, limit)
    return unpacked


def zeros(count=1 << 20):
    offsets = pa.array([0, count], pa.int32())
    values = pa.Array.from_buffers(pa.float64(), count, [None, pa.py_buffer(bytes(8 * count))])
    series = pa.ListArray.from_arrays(offsets, values)
    return pa.table({"prediction": series, "target": series})


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_the_size_is_that_of_the_decompressed_buffers(codec):
    body = pa.py_buffer(write(zeros(), compression=codec))
    needed = 2 * (8 << 20) + 2 * 8
    check(body, needed)
    with pytest.raises(TooLargeError, match=f"over {needed - 1} bytes once decompressed"):
        check(body, needed - 1)


def test_a_bomb_is_refused_before_it_is_unpacked():
    body = write(zeros(), compression="zstd")
    assert len(body) < 4096
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(TooLargeError):
        read(body, max_bytes=1 << 20)
    assert pa.default_memory_pool().max_memory() == before


def test_uncompressed_buffers_need_no_more_than_was_sent():
    check(pa.py_buffer(write(zeros(100))), 0)


def test_compression_as_arrow_0_17_announced_it_is_refused():
    messages = list(pa.ipc.MessageReader.open_stream(write(zeros(), compression="zstd")))
    body = messages[0].serialize().to_pybytes() + of_arrow_0_17(messages[1]) + END
    assert pa.ipc.open_stream(body).read_all().nbytes > 16 << 20  # readers honour it
    with pytest.raises(UnreadableError, match="version V5"):
        check(pa.py_buffer(body), 1 << 20)


@pytest.mark.parametrize(("size", "error"), [(-2, UnreadableError), (1 << 62, TooLargeError)])
def test_a_forged_size(size, error):
    messages = list(pa.ipc.MessageReader.open_stream(write(plain(100), compression="zstd")))
    body = messages[1].body.to_pybytes()
    forged = frame(messages[1].metadata.to_pybytes(), struct.pack("<q", size) + body[8:])
    with pytest.raises(error):
        check(pa.py_buffer(messages[0].serialize().to_pybytes() + forged + END), 10**9)


@pytest.mark.parametrize("body", [b"", b"\0", b"ARROW1\0\0", b"PAR1" * 9, b"\xff" * 64])
def test_no_stream_at_all(body):
    with pytest.raises(UnreadableError):
        read(body)


def in_batches(count, **options):
    sink = pa.BufferOutputStream()
    table, options = zeros(1), pa.ipc.IpcWriteOptions(**options)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        for _ in range(count):
            writer.write_table(table)
    return sink.getvalue()


@pytest.mark.parametrize(
    "body", [b"\xff" * 64, write(plain(3))[:-20], in_batches(1).to_pybytes() * 2]
)
def test_what_is_damaged_or_goes_on_is_refused(body):
    with pytest.raises(UnreadableError):
        check(pa.py_buffer(body), 1 << 20)


@pytest.mark.parametrize("count", [1, 3, 100])
def test_what_is_compressed_takes_room_and_what_is_read_in_place_none(count):
    assert check(in_batches(count), 1 << 20) == 0
    buffers = [
        buffer.size
        for batch in pa.ipc.open_stream(in_batches(count))
        for column in batch.columns
        for buffer in column.buffers()
        if buffer is not None
    ]
    assert check(in_batches(count, compression="zstd"), 1 << 20) == sum(buffers) > 0
