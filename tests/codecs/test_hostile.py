"""Streams and bodies made to cost much, to crash, or to be read as less than was sent."""

import json as plain_json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest
from streams import Account, answers, pair, plain, read, write

from loss_scoring.service.codecs.json import decode
from loss_scoring.service.errors import (
    DeadlineError,
    InvalidError,
    ServiceError,
    TooLargeError,
    UnreadableError,
)

LISTS = pa.list_(pa.float64())
ROWS = pa.list_(pa.list_(pa.float64(), 2))


def pointers(error):
    return [fault.pointer for fault in error.value.errors]


def test_thousands_of_mutations_are_refused_or_read():
    script = Path(__file__).with_name("mutate.py")
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run(
        [sys.executable, "-W", "error", script, "8000"],
        env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    outcomes = plain_json.loads(ran.stdout)
    assert min(outcomes["valid"], outcomes["UnreadableError"], outcomes["InvalidError"]) > 0
    assert outcomes["grown_kib"] < 200_000
    assert outcomes["arrow_bytes"] < 1 << 26


def test_a_cut_stream_is_refused_or_read_as_whole_batches():
    table = pa.concat_tables([plain(3), plain(2)])
    body = write(table)
    lengths = set()
    for stop in range(len(body)):
        try:
            lengths.add(len(read(body[:stop]).prediction))
        except ServiceError as error:
            assert isinstance(error, UnreadableError)  # noqa: PT017 - most cuts end here
    assert lengths == {0, 3, 5}
    assert len(read(body).prediction) == 5


@pytest.mark.parametrize("type_", [ROWS, pa.list_(pa.list_(pa.float32(), 2), 3)])
def test_no_series_of_channels_gets_an_empty_answer_of_its_type(type_):
    none = pa.array([], type_)
    batch = pa.record_batch([none, none], ["prediction", "target"])
    for body in (write(pair(none).slice(0, 0)), write([batch])):
        table, _ = answers(read(body))
        assert table.num_rows == 0
        assert table.schema.field("mae_gradient").type == type_


def test_a_huge_width_without_rows_costs_nothing():
    wide = pa.array([], pa.list_(pa.list_(pa.float64(), 2**31 - 1), 2**31 - 1))
    assert answers(read(write(pair(wide))))[0].num_rows == 0


def coded(names):
    numbers = pa.array(range(len(names)), pa.int8())
    return pa.DictionaryArray.from_arrays(numbers, pa.array(names))


def test_dictionaries_that_together_outgrow_their_index():
    ids = [[f"{batch}-{i}" for i in range(100)] for batch in range(3)]
    batches = [plain(100, id=coded(names)).to_batches()[0] for names in ids]
    assert answers(read(write(batches)))[0].column("id").to_pylist() == [
        name for names in ids for name in names
    ]


def test_no_ids_in_a_dictionary_of_views():
    names = pa.DictionaryArray.from_arrays(pa.array([0]), pa.array(["a"], pa.string_view()))
    assert answers(read(write(plain(1, id=names).slice(0, 0))))[0].column("id").to_pylist() == []


def test_deltas_are_refused_as_each_copies_the_whole_dictionary():
    names = [str(i) * 20 for i in range(100)]
    batches = [plain(n, id=coded(names[:n])).to_batches()[0] for n in (50, 100)]
    with pytest.raises(UnreadableError, match="deltas"):
        read(write(batches, emit_dictionary_deltas=True))


def test_a_dictionary_is_not_validated_beyond_measure():
    shared = pa.DictionaryArray.from_arrays(pa.array([0]), pa.array(["a" * 500] * 1000))
    batch = plain(1, id=shared).to_batches()[0]
    assert len(read(write([batch] * 16), max_bytes=1 << 19).prediction) == 16
    with pytest.raises(TooLargeError, match="shared by too many record batches"):
        read(write([batch] * 40), max_bytes=1 << 19)


def views(count, size):
    """Many views of one text."""
    fields = np.zeros(count, [("size", "<i4"), ("prefix", "S4"), ("buffer", "<i4"), ("at", "<i4")])
    fields["size"], fields["prefix"] = size, b"aaaa"
    buffers = [None, pa.py_buffer(fields.tobytes()), pa.py_buffer(b"a" * size)]
    return pa.Array.from_buffers(pa.string_view(), count, buffers)


def test_views_of_one_long_text_are_refused_before_they_are_read():
    body = write(plain(4000, id=views(4000, 10**6)))  # 4 GB, were they written out
    before, start = pa.default_memory_pool().max_memory(), time.process_time()
    with pytest.raises(InvalidError, match="the longest is 1000000 bytes; 512") as error:
        read(body)
    assert pointers(error) == ["/id"]
    assert pa.default_memory_pool().max_memory() - before < 1 << 24
    assert time.process_time() - start < 2
    assert read(write(plain(3, id=views(3, 512)))).id_list() == ["a" * 512] * 3


@pytest.mark.parametrize("rest", [b"\0", b"junk" * 20, write(plain(2))])
def test_bytes_after_the_end_are_refused(rest):
    with pytest.raises(UnreadableError, match=f"{len(rest)} bytes follow the end"):
        read(write(plain(1)) + rest)


def test_a_column_name_is_escaped():
    with pytest.raises(InvalidError) as error:
        read(write(plain(1, **{"a/b~c": pa.array([1])})))
    assert pointers(error) == ["/a~1b~0c"]


def test_one_channel_is_not_plain():
    single = pa.array([[[1.0]]], pa.list_(pa.list_(pa.float64(), 1)))
    with pytest.raises(InvalidError, match="plain elements, target rows of 1 channels"):
        read(write(pair(pa.array([[1.0]], LISTS), single)))


def fails(body):
    with pytest.raises(InvalidError) as error:
        decode(memoryview(body), max_elements=100)
    orjson.dumps([[fault.pointer, fault.detail] for fault in error.value.errors])
    return pointers(error)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (rb'{"\ud800": 1, "series": []}', "/\\ud800"),
        (rb'{"series": [{"prediction": [1], "target": [1], "\udc00/": 1}]}',
         "/series/0/\\udc00~1"),
        (rb'{"series": [], "losses": [{"name": "mae", "\ud800": true}]}', "/losses/0/\\ud800"),
    ],
)  # fmt: skip
def test_half_a_surrogate_pair_in_a_key_can_be_reported(body, pointer):
    assert fails(body) == [pointer]


def test_a_fault_elsewhere_does_not_forbid_nulls():
    series = {"prediction": [None], "target": [1]}
    body = {"missing": "skip", "gradients": 1, "series": [series]}
    assert fails(orjson.dumps(body)) == ["/gradients"]
    assert fails(orjson.dumps(body | {"missing": "error"})) == [
        "/gradients", "/series/0/prediction/0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "place"), [([[], [1]], 0), ([[1], []], 1), ([[], []], 0), ([[1, 2], [1]], 1)]
)
def test_the_uneven_row_is_named(rows, place):
    body = {"series": [{"prediction": rows, "target": [[1], [1]]}]}
    assert fails(orjson.dumps(body)) == [f"/series/0/prediction/{place}"]


def test_more_losses_than_there_are():
    body = {"losses": ["mae"] * 10**5, "series": []}
    assert fails(orjson.dumps(body)) == ["/losses"]


def batches_of(count, columns):
    one = np.ones(1)
    batch = pa.record_batch({"id": ["a"], **{str(i): one for i in range(columns)}})
    return write([batch] * count)


@pytest.mark.parametrize(("count", "columns"), [(20_000, 1), (1_000, 700)])
def test_batches_without_end_are_refused_by_their_headers(count, columns):
    body, before = batches_of(count, columns), pa.default_memory_pool().max_memory()
    with pytest.raises(TooLargeError, match="too many record batches"):
        read(body, max_bytes=1 << 27)
    assert pa.default_memory_pool().max_memory() == before


def test_what_describes_buffers_is_accounted_for():
    with pytest.raises(InvalidError, match="faults were found"):
        read(batches_of(100, 100), account=(account := Account()))
    assert account.received > 100 * 100 * 3 * 100


def test_every_dictionary_counts_and_not_the_last_alone():
    large = pa.DictionaryArray.from_arrays(pa.array([0]), pa.array(["a" * 500] * 1000))
    tiny = pa.array(["s"]).dictionary_encode()
    batch = pa.record_batch({"A": large, "B": tiny, "y": [1.0], "p": [1.0]})
    with pytest.raises(TooLargeError, match="shared by too many record batches"):
        read(write([batch] * 40), max_bytes=1 << 19)


def test_long_schemas_and_names_and_many_columns_are_refused():
    table = plain(1)
    with pytest.raises(TooLargeError, match="the schema or the metadata of a batch take"):
        read(write(table.replace_schema_metadata({"a": "b" * (1 << 22)})))
    with pytest.raises(InvalidError, match="the name is of 513 bytes; 512 are allowed"):
        read(write(table.append_column("é" * 256 + "x", table["target"])))
    none = pa.table({str(i): pa.array([], pa.int8()) for i in range(5000)})
    with pytest.raises(TooLargeError, match="5000 columns; 4096 are allowed"):
        read(write(none))


@pytest.mark.parametrize("error", [MemoryError("none"), pa.ArrowMemoryError("malloc failed")])
def test_want_of_memory_is_not_blamed_on_the_body(error, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(pa.ipc, "open_stream", fail)
    with pytest.raises(MemoryError):
        read(write([plain(2).to_batches()[0]] * 2))


def test_reading_ends_when_nobody_waits_for_the_answer():
    class Ended(Account):
        def check(self):
            raise DeadlineError("nobody waits")

    with pytest.raises(DeadlineError):
        read(write([plain(2).to_batches()[0]] * 2), account=Ended())
