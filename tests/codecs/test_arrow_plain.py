"""Plain streams are read as any other, and whatever is not plain is left to the general reader."""

import random

import numpy as np
import pyarrow as pa
import pytest
from streams import pair, write

from core import ScoreOptions
from service.codecs import arrow
from service.codecs.arrow_plain import decode_plain
from service.errors import ServiceError

OPTIONS = ScoreOptions()
LISTS = pa.array([[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]])
TEXT = pa.array(["a", "b", "c"])
END = b"\xff\xff\xff\xff\0\0\0\0"


def plain(body):
    return decode_plain(memoryview(body), OPTIONS, 1 << 20)


def general(body, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(arrow, "decode_plain", lambda *_: None)
        return arrow.decode(memoryview(body), OPTIONS, max_bytes=1 << 24, max_elements=1 << 20)


def assert_same(mine, theirs):
    for side in ("prediction", "target"):
        one, other = getattr(mine, side), getattr(theirs, side)
        assert one.dtype == other.dtype
        assert one.array.tobytes() == other.array.tobytes()
        assert one.edges.dtype == other.edges.dtype == np.int64
        assert one.edges.tolist() == other.edges.tolist()
        assert one.array.flags.carray, "else the kernel copies it"
    assert mine.id_list() == theirs.id_list()
    assert mine.gradient_type == theirs.gradient_type
    assert mine.channels is theirs.channels is None
    assert mine.copied is theirs.copied is False


PLAIN = {
    "double": pair(LISTS),
    "float": pair(LISTS.cast(pa.list_(pa.float32()))),
    "large": pair(LISTS.cast(pa.large_list(pa.float64()))),
    "text ids": pair(LISTS, id=TEXT),
    "integer ids": pair(LISTS, id=pa.array([7, 8, 9], pa.uint8())),
    "NaN": pair(pa.array([[np.nan, np.inf], [3.0], [4.0, 5.0, 6.0]])),
    "metadata": pair(LISTS).replace_schema_metadata({"pandas": "{}"}),
}
UNUSUAL = {
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


@pytest.mark.parametrize("table", UNUSUAL.values(), ids=UNUSUAL)
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


def test_a_sliced_batch_is_read_from_its_own_offsets(monkeypatch):
    body = write(pair(LISTS).slice(1))
    assert_same(plain(body), general(body, monkeypatch))


def test_nothing_is_plain_that_the_general_reader_refuses(monkeypatch):
    chance = random.Random(0)
    bodies = [bytes(write(table)) for table in PLAIN.values()]
    accepted = 0
    for _ in range(3000):
        body = bytearray(chance.choice(bodies))
        for _ in range(chance.randint(1, 3)):
            body[chance.randrange(len(body))] = chance.choice([0, 1, 2, 8, 127, 128, 255])
        if (request := plain(bytes(body))) is None:
            continue
        accepted += 1
        try:
            other = general(bytes(body), monkeypatch)
        except ServiceError as error:
            raise AssertionError(bytes(body)) from error
        assert_same(request, other)
    assert accepted > 100, "else nothing was compared"
