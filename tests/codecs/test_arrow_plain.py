"""Plain streams are read as any other, and whatever is not plain is left to the general reader."""

import random
import struct

import numpy as np
import pyarrow as pa
import pytest
from streams import pair, read, write

from loss_scoring.core import ScoreOptions
from loss_scoring.service.codecs.arrow import read as lists
from loss_scoring.service.codecs.arrow.plain import decode_plain
from loss_scoring.service.codecs.arrow.size import Table
from loss_scoring.service.errors import ServiceError

OPTIONS = ScoreOptions()
LISTS = pa.array([[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]])
TEXT = pa.array(["a", "b", "c"])
END = b"\xff\xff\xff\xff\0\0\0\0"


def plain(body):
    return decode_plain(memoryview(body), OPTIONS, 1 << 20)


def general(body, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(lists, "decode_plain", lambda *_: None)
        return read(body, OPTIONS)


def assert_same(request, expected):
    for side in ("prediction", "target"):
        ragged, other = getattr(request, side), getattr(expected, side)
        assert ragged.dtype == other.dtype
        assert ragged.array.tobytes() == other.array.tobytes()
        assert ragged.offsets.dtype == other.offsets.dtype == np.int64
        assert ragged.offsets.tolist() == other.offsets.tolist()
        assert ragged.array.flags.carray, "else the kernel copies it"
    assert request.id_list() == expected.id_list()
    assert request.gradient_type == expected.gradient_type
    assert request.channels is expected.channels is None
    assert request.copied is expected.copied is False


PLAIN = {
    "double": pair(LISTS),
    "float": pair(LISTS.cast(pa.list_(pa.float32()))),
    "large": pair(LISTS.cast(pa.large_list(pa.float64()))),
    "text ids": pair(LISTS, id=TEXT),
    "many text ids": pair(pa.array([[1.0]] * 300), id=pa.array([f"store-{i}" for i in range(300)])),
    "empty text ids": pair(LISTS, id=pa.array(["", "", ""])),
    "ids between the sides": pair(LISTS, id=TEXT).select(["target", "id", "prediction"]),
    "integer ids": pair(LISTS, id=pa.array([7, 8, 9], pa.uint8())),
    "NaN": pair(pa.array([[np.nan, np.inf], [3.0], [4.0, 5.0, 6.0]])),
    "metadata": pair(LISTS).replace_schema_metadata({"pandas": "{}"}),
}
UNCOMMON = {
    "sides of two types": pa.table(
        {"prediction": LISTS, "target": LISTS.cast(pa.list_(pa.float32()))}
    ),
    "integers": pair(pa.array([[1, 2], [3], [4, 5, 6]])),
    "nulls": pair(pa.array([[1.0, None], [3.0], [4.0, 5.0, 6.0]])),
    "a null series": pair(pa.array([[1.0, 2.0], None])),
    "an empty series": pair(pa.array([[1.0, 2.0], []], pa.list_(pa.float64()))),
    "no series": pair(LISTS[:0]),
    "fixed": pair(pa.array([[1.0, 2.0]], pa.list_(pa.float64(), 2))),
    "null ids": pair(LISTS, id=pa.array(["a", None, "c"])),
    "long ids": pair(LISTS, id=pa.array(["a" * 600, "b", "c"])),
    "coded ids": pair(LISTS, id=TEXT.dictionary_encode()),
    "another column": pair(LISTS, weight=LISTS),
    "lengths that differ": pa.table({"prediction": LISTS, "target": LISTS.take([2, 1, 0])}),
    "two batches": pa.concat_tables([pair(LISTS), pair(LISTS)]),
    "one column": pa.table({"prediction": LISTS}),
}


@pytest.mark.parametrize("table", PLAIN.values(), ids=PLAIN)
def test_a_plain_stream_is_read_as_the_general_reader_reads_it(table, monkeypatch):
    body = write(table)
    assert_same(plain(body), general(body, monkeypatch))
    without_end = body[: -len(END)] if bytes(body).endswith(END) else body + END
    assert_same(plain(without_end), general(without_end, monkeypatch))


@pytest.mark.parametrize("table", UNCOMMON.values(), ids=UNCOMMON)
def test_what_is_not_plain_is_left_alone(table):
    assert plain(write(table)) is None


def test_what_is_compressed_too_large_or_followed_by_more_is_left_alone():
    body = write(pair(LISTS))
    assert plain(write(pair(LISTS), compression="zstd")) is None
    assert plain(body + END) is None
    assert plain(body + b"\0") is None
    assert decode_plain(memoryview(body), OPTIONS, 5) is None
    assert decode_plain(memoryview(body), OPTIONS, 6) is not None
    for nothing in (b"", END, b"\xff" * 8, b"PAR1" * 9, b"{}"):
        assert plain(nothing) is None


def big_endian(body):
    """Forge the schema of a stream: point its endianness, which is absent, at a 1."""
    forged = bytearray(body)
    (size,) = struct.unpack_from("<i", forged, 4)
    schema = Table.root(pa.py_buffer(forged[8 : 8 + size])).table(2)
    (back,) = struct.unpack_from("<i", schema.data, schema.start)
    place = next(
        i for i in range(schema.start, size, 2) if struct.unpack_from("<h", schema.data, i) == (1,)
    )
    struct.pack_into("<H", forged, 8 + schema.start - back + 4, place - schema.start)
    return bytes(forged)


def test_numbers_in_another_order_of_bytes_are_left_to_the_reader_that_swaps_them(monkeypatch):
    numbers = LISTS.cast(pa.list_(pa.float32()))
    body = write(pair(numbers))
    forged = big_endian(body)
    for buffer in (numbers.offsets.to_numpy(), numbers.values.to_numpy()):
        forged = forged.replace(buffer.tobytes(), buffer.byteswap().tobytes())
    assert plain(forged) is None
    assert plain(big_endian(body)) is None
    assert_same(general(forged, monkeypatch), general(body, monkeypatch))


def test_a_message_without_its_marker_is_left_alone():
    body = bytes(write(pair(LISTS)))
    (size,) = struct.unpack_from("<i", body, 4)
    old = body[: 8 + size] + body[12 + size :]  # as before Arrow 0.15
    assert plain(old) is None
    assert plain(body[4:]) is None


def test_a_sliced_batch_is_read_from_its_own_offsets(monkeypatch):
    body = write(pair(LISTS).slice(1))
    assert_same(plain(body), general(body, monkeypatch))


def with_other_numbers(body):
    """Forge each count and place in the metadata of the batch."""
    (size,) = struct.unpack_from("<i", body, 4)
    start = 16 + size
    (size,) = struct.unpack_from("<i", body, start - 4)
    message = Table.root(pa.py_buffer(body[start : start + size]))
    batch = message.table(2)
    places = [message.find(3), batch.find(0)]
    for vector in (batch.follow(batch.find(1)), batch.follow(batch.find(2))):
        (count,) = struct.unpack_from("<I", batch.data, vector)
        places += range(vector + 4, vector + 4 + 16 * count, 8)
    for place in places:
        for number in (-8, -1, 0, 1, 2, 3, 4, 8, 16, 48, 64, 1 << 31, 1 << 62, -(1 << 63)):
            forged = bytearray(body)
            struct.pack_into("<q", forged, start + place, number)
            yield bytes(forged)


def refused_or_same(body, monkeypatch):
    """Return whether a stream is plain; then the general reader must read the same of it."""
    if (request := plain(body)) is None:
        assert plain(body) is None, "a layout that was refused was remembered"
        return False
    try:
        other = general(body, monkeypatch)
    except ServiceError as error:
        raise AssertionError(body) from error
    assert_same(request, other)
    return True


def test_nothing_is_plain_that_the_general_reader_refuses(monkeypatch):
    chance = random.Random(0)
    bodies = [bytes(write(table)) for table in PLAIN.values()]
    plain_bodies = set(bodies)
    bodies += [big_endian(write(pair(LISTS.cast(pa.list_(pa.float32()))))), bodies[0][: -len(END)]]
    accepted = sum(refused_or_same(forged, monkeypatch) for forged in with_other_numbers(bodies[0]))
    assert accepted > 20
    accepted = 0
    for _ in range(3000):
        body = bytearray(chance.choice(bodies))
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(body))
            body[place] = chance.choice([0, 1, 2, 8, 127, 128, 255, body[place] ^ 1 << place % 8])
        if chance.random() < 0.1:
            del body[chance.randrange(len(body)) :]
        accepted += refused_or_same(bytes(body), monkeypatch)
    assert accepted > 100, "else nothing was compared"
    assert all(refused_or_same(body, monkeypatch) for body in bodies if body in plain_bodies)


def test_another_layout_of_the_same_schema_is_read_as_well(monkeypatch):
    table = pair(LISTS, id=TEXT)
    v5 = write(table)
    batch = table.to_batches()[0]
    message = pa.ipc.read_message(batch.serialize())
    longer = message.metadata.to_pybytes() + bytes(64)  # metadata that are padded more
    prefix = struct.pack("<Ii", 0xFFFFFFFF, len(longer))
    padded = b"".join((table.schema.serialize(), prefix, longer, message.body, END))
    for body in (v5, padded, v5, padded[: -len(END)]):
        assert_same(plain(body), general(body, monkeypatch))


def test_a_compressed_batch_that_declares_nothing_is_left_alone():
    body = bytearray(write(pair(LISTS), compression="zstd"))
    body[body.index(b"\x28\xb5\x2f\xfd") - 8 :][:8] = bytes(8)
    assert plain(bytes(body)) is None
