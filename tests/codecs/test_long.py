"""The long form on the wire: bit-equal to the list form and to ``score_table``; hostile tables."""

import datetime as dt
import decimal
import itertools
import json as plain_json
import struct
import time

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import GRADIENTS, Account, answers, read, write

from loss_scoring.core import DEFAULT_LOSSES, LOSSES, ScoreOptions, score
from loss_scoring.core.table import score_table
from loss_scoring.service.codecs.arrow import long
from loss_scoring.service.codecs.codec import encode
from loss_scoring.service.codecs.options import columns_from_query, options_from_query
from loss_scoring.service.codecs.request import Limits
from loss_scoring.service.errors import Faults, InvalidError, TooLargeError, UnreadableError

SKIP = ScoreOptions(gradients=True, missing="skip")
QUERY = {"group_columns": "unique_id,cutoff"}


def read_long(body, query=QUERY, options=SKIP, *, max_bytes=1 << 24, max_elements=1 << 20):
    faults = Faults()
    columns = columns_from_query(list(query.items()), faults)
    options_from_query(list(query.items()), faults)
    faults.check()
    return long.decode(
        memoryview(body), options, columns, Limits(max_bytes, max_elements), Account()
    )


def bits(values):
    return [None if x is None else struct.pack("<d", x) for x in values]


def pointers(error):
    return [fault.pointer for fault in error.value.errors]


def small(**columns):
    made = {
        "unique_id": ["b", "b", "a"], "cutoff": [1, 1, 1], "ds": [1, 2, 1],
        "y": [1.0, 2.0, 3.0], "A": [1.5, 2.0, 3.0], "B": [1.0, 4.0, 3.0],
    }  # fmt: skip
    made |= columns
    return pa.table({name: column for name, column in made.items() if column is not None})


element = st.one_of(st.none(), st.sampled_from([0.0, -1.0]), st.floats(-1e9, 1e9))


@st.composite
def long_tables(draw):
    size = draw(st.integers(1, 14))
    column = st.lists(element, min_size=size, max_size=size)
    few = st.lists(st.integers(0, 2), min_size=size, max_size=size)
    ids = [f"id-{i}" for i in draw(few)]
    if draw(st.booleans()):
        ids.sort()
    width = draw(st.sampled_from([pa.float32(), pa.float64()]))
    models = draw(st.integers(1, 3))
    numbers = {f"m{m}": pa.array(draw(column), width) for m in range(models)}
    keys = {"unique_id": pa.array(ids), "cutoff": pa.array(sorted(draw(few)))}
    return pa.table({**keys, "y": pa.array(draw(column), width), **numbers})


def list_form(table, rows, model):
    """The same series of one model, as lists."""
    sides = {"prediction": table[model], "target": table["y"]}
    return pa.table(
        {
            name: pa.array(
                [column.take(pa.array(indices)).to_pylist() for indices in rows],
                pa.list_(column.type),
            )
            for name, column in sides.items()
        }
    )


@settings(deadline=None, max_examples=80)
@given(long_tables(), st.integers(1, 14))
def test_bit_equal_to_the_list_form_whole_and_alone(table, batch_rows):
    stream = write(table.to_batches(max_chunksize=batch_rows))
    got, text = answers(read_long(stream))
    keys = list(zip(table["unique_id"].to_pylist(), table["cutoff"].to_pylist(), strict=True))
    rows = {key: [i for i, other in enumerate(keys) if other == key] for key in keys}
    models = [name for name in table.column_names if name.startswith("m")]
    assert got["model"].to_pylist() == models * len(rows)
    document = plain_json.loads(text)
    kind = table.schema.field("y").type.to_pandas_dtype()
    for m, model in enumerate(models):
        own = got.take(pa.array(range(m, len(got), len(models))))
        assert list(
            zip(own["unique_id"].to_pylist(), own["cutoff"].to_pylist(), strict=True)
        ) == list(rows)
        whole = answers(read(write(list_form(table, rows.values(), model)), SKIP))[0]
        alone = [
            answers(read(write(list_form(table, [indices], model)), SKIP))[0]
            for indices in rows.values()
        ]
        for other in (whole, pa.concat_tables(alone)):
            assert own["length"].equals(other["length"])
            for name in DEFAULT_LOSSES:
                assert bits(own[name].to_pylist()) == bits(other[name].to_pylist())
                gradients, expected = (
                    [
                        np.array(gradient, kind).tobytes()
                        for gradient in side[f"{name}_gradient"].to_pylist()
                    ]
                    for side in (own, other)
                )
                assert gradients == expected
                assert bits(document["losses"][name][m :: len(models)]) == bits(
                    own[name].to_pylist()
                )
                slopes = document["gradients"][name][m :: len(models)]
                assert [np.array(gradient, kind).tobytes() for gradient in slopes] == gradients
                if LOSSES[name].can_be_masked:
                    assert own[f"{name}_masked"].equals(other[f"{name}_masked"])
                    assert (
                        document["masked"][name][m :: len(models)]
                        == other[f"{name}_masked"].to_pylist()
                    )
    assert got.equals(score_table(table, missing="skip", gradients=True))
    assert document["lengths"] == got["length"].to_pylist()
    assert document["models"] == got["model"].to_pylist()
    assert document["groups"] == {name: got[name].to_pylist() for name in ("unique_id", "cutoff")}


def test_one_model_of_series_that_stand_together_is_read_in_place():
    body = np.frombuffer(bytearray(write(small(B=None))), np.uint8)
    request = read_long(body)
    for side in (request.prediction, request.target):
        assert 0 <= side.values.data_ptr() - body.ctypes.data < len(body)
    assert not request.copied
    assert read_long(write(small())).copied


def test_other_columns_are_not_looked_at():
    more = {
        "note": ["x", None, "z"],
        "lists": [[1], None, []],
        "A-lo-90": [1.0, 2, 3],
        "on": [True] * 3,
    }
    got, _ = answers(read_long(write(small(**more))))
    assert got["model"].to_pylist() == ["A", "B", "A", "B"]
    only = {**QUERY, "prediction_columns": "B,ds", "target_column": "A"}
    got, _ = answers(read_long(write(small(**more)), only))
    assert got["model"].to_pylist() == ["B", "ds", "B", "ds"]


@pytest.mark.parametrize(
    ("made", "query", "at"),
    [
        (small(y=None), {}, ["/y"]),
        (small(), {"target_column": "no/such"}, ["/no~1such"]),
        (small(), {"group_columns": "unique_id,no"}, ["/no"]),
        (small(), {"prediction_columns": "A,no,nor"}, ["/no", "/nor"]),
        (small(A=["x", "y", "z"]), {"prediction_columns": "A"}, ["/A"]),
        (
            small(y=[True] * 3, A=[dt.date(2024, 1, 1)] * 3),
            {"prediction_columns": "A"},
            ["/y", "/A"],
        ),
        (small(A=None, B=None), {}, ["?prediction_columns"]),
        (small(cutoff=[[1]] * 3), {}, ["/cutoff"]),
        (small(mae=[1] * 3), {"group_columns": "mae"}, ["/mae"]),
        (small(), {"prediction_columns": "A,A"}, ["?prediction_columns"]),
        (small(), {"prediction_columns": "A,"}, ["?prediction_columns"]),
        (small(), {"prediction_columns": "y,A"}, ["?prediction_columns"]),
        (small(), {"group_columns": ""}, ["?group_columns"]),
        (small(), {"group_columns": "cutoff,cutoff"}, ["?group_columns"]),
        (small(), {"group_columns": ",".join("abcdefghi")}, ["?group_columns"]),
        (small(), {"target_column": "cutoff"}, ["?target_column"]),
        (small(), {"target_column": ""}, ["?target_column"]),
        (small(), {"columns": "A"}, ["?columns"]),
        (small(), {"time_column": "dss"}, ["?time_column"]),
        (small(when=[b"1", b"2", b"3"]), {"time_column": "when"}, ["?time_column"]),
        (small(), {"duplicates": "keep"}, ["?duplicates"]),
        (small(ds=[1, 1, 1]), {}, ["/ds/1"]),
        (small(unique_id=["b", None, None]), {}, ["/unique_id/1", "/unique_id/2"]),
        (small(unique_id=pa.array(["b", None, "a"]).dictionary_encode()), {}, ["/unique_id/1"]),
        (small(cutoff=[1.0, float("nan"), None]), {}, ["/cutoff/2"]),
    ],
)
def test_mistakes_are_pointed_at(made, query, at):
    with pytest.raises(InvalidError) as error:
        read_long(write(made), {**QUERY, **query})
    assert pointers(error) == at


def test_columns_of_the_long_form_alone_are_refused():
    faults = Faults()
    assert columns_from_query([("target_column", "y"), ("losses", "mae")], faults) is None
    assert [fault.pointer for fault in faults.first] == ["?target_column"]


def test_columns_are_named_as_in_the_client_too():
    queries = (
        {"group_columns": "id", "time_column": "t", "target_column": "v", "weight_column": "w",
         "scale_column": "s", "prediction_columns": "A"},
        {"group_by": "id", "time_col": "t", "target_col": "v", "weight_col": "w",
         "scale_col": "s", "models": "A"},
    )  # fmt: skip
    want, got = (columns_from_query(list(query.items()), Faults()) for query in queries)
    assert got == want
    faults = Faults()
    columns_from_query([("group_by", "id"), ("time_col", ""), ("exclude", "a,a")], faults)
    assert [fault.pointer for fault in faults.first] == ["?time_col", "?exclude"]
    columns_from_query([("group_by", "id"), ("group_columns", "id")], faults)
    assert faults.first[-1].detail == "means group_by, which is given too"


def test_missing_elements_are_pointed_at_in_rows_as_they_were_sent():
    nan = float("nan")
    made = pa.table({
        "unique_id": ["a", "b", "a", "b"], "y": [1.0, 1, None, 1],
        "A": [1.0, float("inf"), 1, nan], "B": [1.0, 1, 1, nan],
    })  # fmt: skip
    request = read_long(write(made), {"group_columns": "unique_id"}, GRADIENTS)
    with pytest.raises(InvalidError) as error:
        request.check_missing()
    assert pointers(error) == ["/y/2", "/A/1", "/A/3", "/B/3"]
    assert "missing=skip" in error.value.errors[0].detail


def test_no_rows():
    got, text = answers(read_long(write(small().schema.empty_table())))
    assert got.num_rows == 0
    assert got.schema.field("mae_gradient").type == pa.large_list(pa.float64())
    assert plain_json.loads(text)["groups"] == {"unique_id": [], "cutoff": []}


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (pa.array(["x", "y"]), ["x", "y"]),
        (pa.array(["x", "y"], pa.string_view()), ["x", "y"]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
        (pa.array([2**64 - 1, 0], pa.uint64()), [2**64 - 1, 0]),
        (pa.array([True, False]), [True, False]),
        (pa.array([0.5, -0.0]), [0.5, -0.0]),
        (pa.array([float("nan"), float("inf")]), ["NaN", "Infinity"]),
        (pa.array([-float("inf"), 1.5], pa.float32()), ["-Infinity", 1.5]),
        (pa.array([dt.date(2024, 2, 29), dt.date(1969, 12, 31)]), ["2024-02-29", "1969-12-31"]),
        (pa.array([86_400_000, 0], pa.date64()), ["1970-01-02", "1970-01-01"]),
        (pa.array([0, 1], pa.timestamp("s")), ["1970-01-01T00:00:00", "1970-01-01T00:00:01"]),
        (pa.array([0, 86_400 * 10**9], pa.timestamp("ns", "no/zone")),
         ["1970-01-01T00:00:00Z", "1970-01-02T00:00:00Z"]),
        (pa.array([0, 1], pa.timestamp("us")),
         ["1970-01-01T00:00:00.000000", "1970-01-01T00:00:00.000001"]),
        (pa.array([2**62, -(2**63) + 1], pa.timestamp("s")), None),
        (pa.array([2**62, -(2**63)], pa.timestamp("ns")), None),
        (pa.array([decimal.Decimal("1.50"), decimal.Decimal(2)]), ["1.50", "2.00"]),
        (pa.array([2**40, 0], pa.timestamp("s")).dictionary_encode(),
         ["36812-02-20T00:36:16", "1970-01-01T00:00:00"]),
        (pa.array([True, False]).dictionary_encode(), [True, False]),
        (pa.array([dt.time(1, 2, 3), dt.time(0)]), ["01:02:03.000000", "00:00:00.000000"]),
    ],
    ids=lambda keys: str(getattr(keys, "type", "")),
)  # fmt: skip
def test_keys_in_both_formats(keys, says):
    made = pa.table({"key": keys, "y": [1.0, 2.0], "A": [1.0, 2.0]})
    got, text = answers(read_long(write(made), {"group_columns": "key"}))
    assert got["key"].type == keys.type
    assert str(got["key"].combine_chunks()) == str(keys)  # in which NaN is NaN
    listed = plain_json.loads(text)["groups"]["key"]
    assert len(set(listed)) == 2
    assert says is None or listed == says


def test_a_long_answer_in_json_is_whole():
    rows = 40_000  # beyond what is written at once
    made = pa.table(
        {'a"\n': np.arange(rows) // 3, "y": np.ones(rows), "A": np.zeros(rows), "B": np.ones(rows)}
    )
    got, text = answers(read_long(write(made), {"group_columns": 'a"\n'}))
    document = plain_json.loads(text)
    assert document["groups"]['a"\n'] == got['a"\n'].to_pylist()
    assert document["models"] == got["model"].to_pylist()
    assert document["losses"]["mae"] == got["mae"].to_pylist() == [1.0, 0.0] * (rows // 3 + 1)
    assert document["gradients"]["mae"] == got["mae_gradient"].to_pylist()


def test_each_model_counts_in_the_limit_before_anything_is_laid_out():
    zero_bytes_each = {f"m{m}": pa.nulls(3) for m in range(100)}
    body = write(small(**zero_bytes_each))
    names = {**QUERY, "prediction_columns": ",".join(zero_bytes_each)}
    assert len(read_long(body, names, max_elements=300).prediction) == 200
    with pytest.raises(TooLargeError, match="has 300 elements"):
        read_long(body, names, max_elements=299)


def test_what_grouping_takes_is_bounded_beforehand():
    rows = 50_000
    together, apart = np.arange(rows) // 24, np.arange(rows) % 7
    needed = []
    for ids in (together, apart):
        made = pa.table({"unique_id": ids, "y": np.ones(rows), "A": np.ones(rows)})
        faults = Faults()
        columns = columns_from_query([("group_columns", "unique_id")], faults)
        request, account = read_within(write(made), columns)
        needed.append(account.reserved[-2])
        assert request.prediction.elements == rows
    assert needed[0] < 3e6
    assert needed[1] > 7e6


def read_within(body, columns, max_bytes=1 << 24):
    """Read a request that never uses more than it has reserved."""
    body, account = memoryview(body), Account()
    request = long.decode(body, SKIP, columns, Limits(max_bytes, 1 << 20), account)
    account.reserve(0)
    assert all(
        used <= reserved for used, reserved in zip(account.used[1:], account.reserved, strict=False)
    )
    return request, account


def views(count, size):
    """Many views of one text, each one byte on."""
    fields = np.zeros(count, [("size", "<i4"), ("prefix", "S4"), ("buffer", "<i4"), ("at", "<i4")])
    fields["size"], fields["prefix"], fields["at"] = size, b"aaaa", np.arange(count)
    buffers = [None, pa.py_buffer(fields.tobytes()), pa.py_buffer(b"a" * (size + count))]
    return pa.Array.from_buffers(pa.string_view(), count, buffers)


@pytest.mark.parametrize("kind", ["int", "text", "apart"])
def test_what_finding_repeated_rows_takes_is_bounded_beforehand(kind):
    rows = 50_000
    ids, times = np.arange(rows) // 100, np.arange(rows)[::-1] % 100
    if kind == "apart":
        ids = np.arange(rows) % 500
    made = pa.table({"unique_id": ids, "ds": times, "y": np.ones(rows), "A": np.ones(rows)})
    if kind == "text":
        made = made.set_column(1, "ds", made["ds"].cast(pa.string()))
    columns = columns_from_query([("group_columns", "unique_id")], Faults())
    if kind == "apart":
        with pytest.raises(InvalidError, match="faults were found"):
            read_within(write(made), columns)
        return
    _, account = read_within(write(made), columns)
    keys, numbers, times = account.reserved[:-1]
    assert keys < numbers < times
    sorted_table = pa.table(
        {**dict(zip(made.column_names, made.columns, strict=True)), "ds": np.arange(rows)}
    )
    _, account = read_within(write(sorted_table), columns)
    assert len(account.reserved[:-1]) == 2, "no times are compared"


KEYS = [f"key{n}" for n in range(8)]


def with_eight_keys(key):
    numbers = {"y": np.ones(len(key)), "A": np.ones(len(key))}
    columns = columns_from_query([("group_columns", ",".join(KEYS))], Faults())
    return write(pa.table({**dict.fromkeys(KEYS, key), **numbers})), columns


@pytest.mark.parametrize("kind", ["views", "codes", "texts", "floats"])
def test_what_finding_runs_takes_is_bounded_beforehand(kind):
    rows, size = 20_000, 100
    texts = pa.array(["b" * size, "c" * size])
    key = {
        "views": lambda: views(rows, size),
        "codes": lambda: pa.DictionaryArray.from_arrays(np.arange(rows, dtype=np.int8) % 2, texts),
        "texts": lambda: texts.take(np.arange(rows) % 2),
        "floats": lambda: pa.array(np.where(np.arange(rows) % 2, np.nan, 1.0)),
    }[kind]()
    body, columns = with_eight_keys(key)
    read_within(body, columns, max_bytes=1 << 26)


def test_views_of_all_group_columns_together_are_bounded():
    rows, size = 2000, 100
    body, columns = with_eight_keys(views(rows, size))
    with pytest.raises(TooLargeError, match="the columns of text hold 1600000 bytes"):
        read_within(body, columns, max_bytes=7 * rows * size)


@pytest.mark.parametrize("coded", [False, True])
def test_views_that_together_are_far_longer_than_the_stream(coded):
    count = 20_000
    keys = views(count, 500)
    if coded:
        keys = pa.DictionaryArray.from_arrays(pa.array(np.arange(count, dtype=np.int32)), keys)
    body = write(pa.table({"key": keys, "y": np.ones(count), "A": np.ones(count)}))
    before = pa.total_allocated_bytes(), time.process_time()
    with pytest.raises(TooLargeError, match="views of column key are over"):
        read_long(body, {"group_columns": "key"}, max_bytes=1 << 20)
    assert pa.total_allocated_bytes() - before[0] < 1 << 22
    assert time.process_time() - before[1] < 5


def test_long_keys_are_refused_and_not_repeated_for_each_model():
    with pytest.raises(InvalidError, match="the longest is 600 bytes; 512") as error:
        read_long(write(small(unique_id=["b" * 600] * 3)))
    assert pointers(error) == ["/unique_id"]
    count = 300
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int8()), pa.array(["a" * 500]))
    models = {f"m{m}": np.ones(count, np.float32) for m in range(20)}
    made = pa.table({"key": shared, "n": np.arange(count), "y": models["m0"], **models})
    query = {"group_columns": "key,n"}
    assert len(read_long(write(made), query).prediction) == count * 20
    with pytest.raises(TooLargeError, match="once for each series and model"):
        read_long(write(made), query, max_bytes=1 << 20)


def test_streams_are_read_by_the_code_of_the_list_form():
    zeros = pa.table(
        {"unique_id": np.zeros(1 << 18, np.int8), "y": np.zeros(1 << 18), "A": np.zeros(1 << 18)}
    )
    with pytest.raises(TooLargeError, match="once decompressed"):
        read_long(
            write(zeros, compression="zstd"), {"group_columns": "unique_id"}, max_bytes=1 << 20
        )
    names = [str(i) * 20 for i in range(100)]
    batches = [
        pa.record_batch({"unique_id": pa.DictionaryArray.from_arrays(pa.array(range(n), pa.int8()), pa.array(names[:n])),
                         "y": np.ones(n), "A": np.ones(n)})
        for n in (50, 100)
    ]  # fmt: skip
    body = write(batches, emit_dictionary_deltas=True)
    with pytest.raises(UnreadableError, match="deltas"):
        read_long(body, {"group_columns": "unique_id"})
    assert len(read_long(write(batches), {"group_columns": "unique_id"}).prediction) == 100
    with pytest.raises(UnreadableError, match="follow the end"):
        read_long(write(small()) + b"junk")
    forged = write(small()).replace(
        np.array([0, 1, 2, 3], np.int32).tobytes(), np.array([0, 1, 200, 3], np.int32).tobytes()
    )
    with pytest.raises(UnreadableError):
        read_long(forged)


def test_a_time_zone_that_is_no_text():
    made = small(cutoff=pa.array([1, 1, 1], pa.timestamp("s", "UTC")))
    with pytest.raises(UnreadableError, match="utf-8"):
        read_long(write(made).replace(b"UTC", b"U\xffC"))


def test_several_batches_are_one_table():
    parts = [
        small(unique_id=pa.array(ids).dictionary_encode(), ds=None)
        for ids in (["b", "b", "a"], ["a", "b", "c"])
    ]
    stream = write([batch for part in parts for batch in part.to_batches()])
    got, _ = answers(read_long(stream))
    assert got["unique_id"].to_pylist()[::2] == ["b", "a", "c"]
    assert got["length"].to_pylist()[::2] == [3, 2, 1]
    offsets = read_long(stream).prediction.offsets.tolist()
    assert offsets == [*itertools.accumulate([0, 3, 2, 1, 3, 2, 1])]
    assert read_long(stream).prediction.values.dtype == torch.float64


@pytest.mark.parametrize(
    ("made", "answers_json", "copies"),
    [
        (small(B=None), False, 0),  # all in place
        (small(), False, 1),  # gradients are laid out again
        (small(), True, 1),  # they stand beside their text
        (small(B=None, unique_id=["b", "a", "b"], ds=None), False, 1),
    ],
)
def test_what_is_laid_out_again_is_accounted_for(made, answers_json, copies):
    request = read_long(write(made), {**QUERY, "group_columns": "unique_id"})
    side = 8 * request.prediction.elements
    assert request.copied == bool(copies)
    needed = request.estimate("json" if answers_json else "arrow", batch_elements=100)
    laid_out = 2 * side * bool(copies) + len(DEFAULT_LOSSES) * side * copies
    small_parts = request.kept_bytes + 256 * len(request.prediction)
    assert 0 <= needed - request.answer_bytes - laid_out <= small_parts
    assert request.answer_bytes >= request.names_bytes.arrow > 8 * len(request.prediction)


def test_a_long_answer_in_json_says_what_was_left_out():
    rows = 20_000
    table = pa.table({
        "unique_id": np.arange(rows), "ds": np.ones(rows, np.int64),
        "y": np.ones(rows), "A": np.ones(rows), "A-lo-90": np.ones(rows),
    })  # fmt: skip
    request = read_long(write(table), {"group_columns": "unique_id"})
    scores = score(request.prediction, request.target, gradients=True)
    answer = plain_json.loads(b"".join(encode(request, scores, "json")))
    assert list(answer["left_out"]) == ["A-lo-90"]
    assert answer["left_out"] == dict(request.layout.left_out)
    assert len(answer["gradients"]["mae"]) == rows
