"""Arrow streams: every layout that is read, and hostile ones that must only ever be refused."""

import datetime as dt
import itertools
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import Account
from wire import stream

from loss_scoring.core import ScoreOptions, may_be_missing, score
from loss_scoring.service.codecs import json
from loss_scoring.service.codecs.arrow import read as reader
from loss_scoring.service.codecs.codec import encode, is_short
from loss_scoring.service.codecs.request import Limits
from loss_scoring.service.errors import InvalidError, ServiceError, TooLargeError, UnreadableError

OPTIONS = ScoreOptions(gradients=True)
VALUES = [[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]]


def read(body, options=OPTIONS, *, max_bytes=10**7, max_elements=10**6):
    limits = Limits(max_bytes, max_elements)
    return reader.decode(memoryview(body), options, limits, Account())


def read_and_check(body, options=OPTIONS):
    request = read(body, options)
    scores = score(request.prediction, request.target, options.losses, missing="propagate")
    if options.missing == "error" and may_be_missing(scores):
        request.check_missing()
    return request


def lists(values, type_=None):
    return pa.array(values, type_ or pa.list_(pa.float64()))


def table(prediction=None, target=None, **more):
    prediction = lists(VALUES) if prediction is None else prediction
    return pa.table(
        {**more, "prediction": prediction, "target": prediction if target is None else target}
    )


def answer(request):
    scores = score(
        request.prediction, request.target, request.options.losses,
        gradients=request.options.gradients, missing=request.options.missing,
    )  # fmt: skip
    return pa.ipc.open_stream(b"".join(encode(request, scores, "arrow"))).read_all()


LAYOUTS = {
    "list<double>": (pa.list_(pa.float64()), VALUES),
    "list<float>": (pa.list_(pa.float32()), VALUES),
    "large_list<double>": (pa.large_list(pa.float64()), VALUES),
    "fixed_size_list<float>": (pa.list_(pa.float32(), 2), [[1, 2], [3, 4]]),
    "list of channels": (pa.list_(pa.list_(pa.float64(), 2)), [[[1, 2]], [[3, 4], [5, 6]]]),
    "large_list of channels": (pa.large_list(pa.list_(pa.float32(), 3)), [[[1, 2, 3]]]),
    "fixed of fixed": (pa.list_(pa.list_(pa.float64(), 2), 2), [[[1, 2], [3, 4]]]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cut", ["whole", "sliced", "batches"])
def test_layouts(layout, cut):
    type_, values = LAYOUTS[layout]
    prediction = lists(values, type_)
    made = table(prediction, lists(values, type_))
    if cut == "sliced":
        made = pa.concat_tables([made] * 3).combine_chunks().slice(1, 2 * len(values) - 1)
        values = (values * 3)[1 : 2 * len(values)]
    elif cut == "batches":
        made, values = pa.concat_tables([made] * 3), values * 3
    request = read(stream(made))
    flat = [x for series in values for x in np.ravel(series)]
    assert request.prediction.values.tolist() == flat
    assert request.prediction.lengths.tolist() == [np.size(series) for series in values]
    assert request.id_list() == list(range(len(values)))
    got = answer(request)
    assert got.schema.field("mae_gradient").type == type_
    assert got["mae_gradient"].to_pylist() == [np.zeros_like(series).tolist() for series in values]
    assert got["length"].to_pylist() == [np.size(series) for series in values]


def test_float_types_meet_in_the_wider_and_gradients_come_back_in_the_narrower():
    mixed = table(lists(VALUES, pa.list_(pa.float32())), lists([[1.5, 2], [3], [4, 5, 7]]))
    request = read(stream(mixed))
    assert request.prediction.values.dtype == torch.float64
    assert answer(request).schema.field("mape_gradient").type == pa.list_(pa.float32())


SMALL = [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.float16(), pa.float32()]
LARGE = [
    *(pa.int32(), pa.uint32(), pa.int64(), pa.uint64(), pa.float64()),
    *(pa.decimal32(5, 1), pa.decimal64(9, 2), pa.decimal128(9, 2), pa.decimal256(60, 2)),
]
KINDS = {
    "list": pa.list_,
    "large_list": pa.large_list,
    "fixed_size_list": lambda inner: pa.list_(inner, 2),
    "list_view": pa.list_view,
    "large_list_view": pa.large_list_view,
    "channels": lambda inner: pa.list_(pa.list_(inner, 2)),
    "channels of large_list_view": lambda inner: pa.large_list_view(pa.list_(inner, 2)),
}
ANSWERS = {
    "list_view": pa.list_,
    "large_list_view": pa.large_list,
    "channels of large_list_view": lambda inner: pa.large_list(pa.list_(inner, 2)),
}
"""Kinds of lists that gradients come in, where it is not that of the prediction."""


def numbers_of(inner, kind, values):
    if kind.startswith("channels"):
        values = [[[x, x + 1] for x in series] for series in values]
    plain = KINDS["channels" if kind.startswith("channels") else "list"]
    made = pa.array(values, plain(pa.float64())).cast(plain(inner))
    if not kind.endswith("list_view"):
        return made.cast(KINDS[kind](inner))
    view = pa.LargeListViewArray if "large" in kind else pa.ListViewArray
    backwards = made.take([2, 1, 0])
    return view.from_arrays(backwards.offsets[2::-1], [2, 2, 2], backwards.values)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inner", SMALL + LARGE, ids=str)
def test_numbers_of_every_type(inner, kind):
    predictions = [[1.0, 2.0], [7.0, 9.0], [100.0, 3.0]]
    targets = [[2.0, 2.0], [9.0, 1.0], [99.0, 4.0]]
    want = answer(read(stream(table(*(
        numbers_of(pa.float64(), kind, side) for side in (predictions, targets)
    )))))  # fmt: skip
    for types in [(inner, inner), (inner, pa.int16()), (pa.uint8(), inner), (inner, pa.float64())]:
        made = table(*(
            numbers_of(type_, kind, side)
            for type_, side in zip(types, (predictions, targets), strict=True)
        ))  # fmt: skip
        request = read(stream(pa.concat_tables([made, made])))
        is_small = set(types) <= set(SMALL)
        assert request.prediction.dtype == request.target.dtype
        assert request.prediction.dtype == (torch.float32 if is_small else torch.float64)
        got = answer(request)
        floats = (pa.float32(), pa.float64())
        computed = pa.float32() if is_small else pa.float64()
        element = types[0] if types[0] in floats else computed
        assert got.schema.field("mae_gradient").type == ANSWERS.get(kind, KINDS[kind])(element)
        for name in ("mae", "mape", "smape"):
            assert got[name].to_pylist()[:3] == pytest.approx(want[name].to_pylist(), rel=1e-6)
            assert got[name].to_pylist()[:3] == got[name].to_pylist()[3:]
            gradients, expected = (
                np.array(x[f"{name}_gradient"].combine_chunks().slice(0, 3).to_pylist()).ravel()
                for x in (got, want)
            )
            assert gradients == pytest.approx(expected, rel=1e-6)


def test_numbers_coded_by_a_dictionary_or_in_runs():
    coded = pa.DictionaryArray.from_arrays([0, 1, 0, None], pa.array([5, 7], pa.int32()))
    runs = pa.RunEndEncodedArray.from_arrays([2, 4], pa.array([5.0, None]))
    made = table(*(pa.ListArray.from_arrays([0, 2, 4], x) for x in (coded, runs)))
    got = answer(read(stream(made), ScoreOptions(missing="skip")))
    assert got["mae"].to_pylist() == [1.0, None]
    empty = table(lists([[None, None]], pa.list_(pa.null())), lists([[1, 2]]))
    assert answer(read(stream(empty), ScoreOptions(missing="skip")))["mae"].to_pylist() == [None]


@pytest.mark.parametrize("null", [True, False])
@pytest.mark.parametrize("type_", [pa.list_(pa.int16()), pa.large_list_view(pa.decimal64(9, 1))])
def test_missing_integers(type_, null):
    made = table(lists([[1, 2], [3, None if null else 4]], type_), lists([[1, 2], [3, 4]]))
    if null:
        with pytest.raises(InvalidError) as caught:
            read_and_check(stream(made))
        assert [fault.pointer for fault in caught.value.errors] == ["/prediction/1/1"]
    assert answer(read(stream(made), ScoreOptions(missing="skip")))["mae"].to_pylist() == [0, 0]


def test_elements_that_take_no_bytes_are_counted_before_they_are_laid_out():
    count = 1 << 28
    nulls = pa.ListArray.from_arrays([0, count], pa.nulls(count))
    runs = pa.RunEndEncodedArray.from_arrays([count], pa.array([1.0]))
    views = pa.ListViewArray.from_arrays([0] * 1000, [1000] * 1000, pa.array(np.ones(1000)))
    fixed = pa.FixedSizeListArray.from_arrays(pa.nulls(count), 1)
    for array in (nulls, pa.ListArray.from_arrays([0, count], runs), views, fixed):
        before = pa.total_allocated_bytes()
        with pytest.raises(TooLargeError, match="elements"):
            read(stream(table(array)), max_elements=10**5)
        assert pa.total_allocated_bytes() - before < 10**7
    assert read(stream(table(views))).prediction.elements == 10**6


NULLS = pa.ListArray.from_arrays(pa.array([0, 1000], pa.int32()), pa.nulls(1000))
VIEWS = pa.ListViewArray.from_arrays(
    pa.array([0] * 100, pa.int32()), pa.array([10] * 100, pa.int32()), pa.array([1.0] * 10)
)
COPIED = {
    "nulls": (table(NULLS), 2 * 8000),
    "bytes": (table(lists([[1] * 1000], pa.list_(pa.int8()))), 2 * 4000),
    "one side": (table(lists([[1.0] * 1000]), lists([[1] * 1000], pa.list_(pa.int64()))), 8000),
    "null elements": (table(lists([[1.0, None] * 500])), 2 * 8000),
    "views": (table(VIEWS), 2 * 8000),
    "two batches": (pa.concat_tables([table(lists([[1.0] * 500]))] * 2), 2 * 8000),
    "in place": (table(lists([[1.0] * 1000]), lists([[2.0] * 1000])), 0),
}


class FullError(Exception):
    pass


@pytest.mark.parametrize("kind", COPIED)
def test_copies_are_reserved_before_they_are_made(kind):
    made, least = COPIED[kind]
    account, limits = Account(), Limits(10**7, 10**6)
    body = memoryview(stream(made))
    request = reader.decode(body, OPTIONS, limits, account)
    reserved = account.reserved
    assert reserved == sorted(reserved)
    assert least <= sum(reserved[-1:]) <= 2.1 * least
    assert request.copied == (least > 0)

    class Full(Account):
        def reserve(self, size):
            if size:
                raise FullError

    before = pa.total_allocated_bytes()
    if least:
        with pytest.raises(FullError):
            reader.decode(body, OPTIONS, limits, Full())
        assert pa.total_allocated_bytes() - before < least


def test_missing_elements_of_channels_are_named_by_step_and_channel():
    prediction = lists([[[1, 2], [3, None]], [[5, 6]]], pa.list_(pa.list_(pa.float64(), 2)))
    target = lists([[[1, 2], [3, 4]], [[None, 6]]], prediction.type)
    with pytest.raises(InvalidError) as caught:
        read_and_check(stream(table(prediction, target)))
    assert [fault.pointer for fault in caught.value.errors] == [
        "/prediction/0/1/1",
        "/target/1/0/0",
    ]


@pytest.mark.parametrize(
    "ids",
    [
        pa.array(["a", "b", "c"]),
        pa.array(["a", "b", "c"], pa.large_string()),
        pa.array(["a", "b", "c"], pa.string_view()),
        pa.array(["a", "b", "a"]).dictionary_encode(),
        pa.array([3, 1, 2], pa.int8()),
        pa.array([2**63, 1, 2], pa.uint64()),
    ],
    ids=lambda ids: str(ids.type),
)
def test_ids_come_back_as_they_went(ids):
    request = read(stream(table(id=ids)))
    assert request.id_list() == ids.to_pylist()
    assert answer(request)["id"].combine_chunks().equals(ids)


def test_the_body_is_read_in_place():
    body = np.frombuffer(bytearray(stream(table())), np.uint8)
    request = read(body)
    for side in (request.prediction, request.target):
        assert 0 <= side.values.data_ptr() - body.ctypes.data < len(body)


def test_an_unaligned_body_is_read_all_the_same():
    body = memoryview(b"x" + stream(table()))[1:]
    assert read(body).prediction.values.tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("missing", ["error", "skip", "propagate"])
def test_missing_elements(missing):
    body = stream(table(lists([[1.0, None], [2.0], [float("inf")]]), lists([[1, 2], [2], [3]])))
    options = ScoreOptions(missing=missing)
    if missing == "error":
        with pytest.raises(InvalidError) as caught:
            read_and_check(body, options)
        pointers = [fault.pointer for fault in caught.value.errors]
        assert pointers == ["/prediction/0/1", "/prediction/2/0"]
        return
    got = answer(read_and_check(body, options))["mae"].to_pylist()
    assert got == pytest.approx(
        [0.0, 0.0, None] if missing == "skip" else [float("nan"), 0.0, float("inf")], nan_ok=True
    )


@pytest.mark.parametrize(
    ("made", "pointers"),
    [
        (pa.table({"prediction": lists(VALUES)}), ["/target"]),
        (table(y=lists(VALUES)), ["/y"]),
        (table(pa.array([1.0]), pa.array([1.0])), ["/prediction", "/target"]),
        (table(lists([[True]], pa.list_(pa.bool_()))), ["/prediction", "/target"]),
        (table(lists([["1"]], pa.list_(pa.string()))), ["/prediction", "/target"]),
        (table(lists([[dt.date(2024, 1, 1)]], pa.list_(pa.date32()))), ["/prediction", "/target"]),
        (table(target=lists([[1]] * 3, pa.list_(pa.decimal128(5, 2))), prediction=lists([["1"]] * 3, pa.list_(pa.string_view()))), ["/prediction"]),
        (table(lists([[1], [], [2]], pa.list_view(pa.int8()))), ["/prediction/1"]),
        (table(lists([[1], None, [2]], pa.large_list_view(pa.int8()))), ["/prediction/1"]),
        (table(lists([[[1.0]]], pa.list_(pa.list_(pa.float64())))), ["/prediction", "/target"]),
        (table(pa.nulls(2), pa.nulls(2)), ["/prediction", "/target"]),
        (table(id=pa.array([1.5, 2, 3])), ["/id"]),
        (table(id=pa.array([True, False, True])), ["/id"]),
        (table(id=pa.array(["a", None, "c"])), ["/id/1"]),
        (table(id=pa.array(["a", "b" * 513, "c"])), ["/id"]),
        (table(lists([[1], None, [2]])), ["/prediction/1"]),
        (table(lists([[1], [], [2], []])), ["/prediction/1", "/prediction/3"]),
        (table(lists([[1], [2, 3]]), lists([[1], [2]])), ["/prediction/1"]),
        (table(lists([[[1, 2], None]], pa.list_(pa.list_(pa.float64(), 2)))), ["/prediction"]),
        (table(lists([[1]]), lists([[[1]]], pa.list_(pa.list_(pa.float64(), 1)))), []),
        (pa.Table.from_arrays([lists(VALUES)] * 3, ["prediction", "target", "target"]), ["/target"]),
    ],
)  # fmt: skip
def test_invalid(made, pointers):
    with pytest.raises(InvalidError) as caught:
        read(stream(made))
    assert [fault.pointer for fault in caught.value.errors] == pointers


def test_many_faults_are_counted_and_few_listed():
    rows = 50_000
    with pytest.raises(InvalidError) as caught:
        read_and_check(stream(table(lists([[None]] * rows))))
    assert (len(caught.value.errors), caught.value.count) == (20, 2 * rows), "one a side"


def test_no_rows():
    assert answer(read(stream(table().slice(0, 0)))).num_rows == 0
    schema = table().schema
    sink = pa.BufferOutputStream()
    pa.ipc.new_stream(sink, schema).close()
    assert len(read(sink.getvalue()).prediction) == 0


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_compressed_streams_are_read_within_the_limit(compression):
    rows = [[float(n)] * 300 for n in range(20)]
    body = stream(table(lists(rows)), compression=compression)
    assert read(body).prediction.values.tolist() == [x for row in rows for x in row]
    bomb = stream(table(lists([[0.0] * 10**6])), compression=compression)
    before = pa.total_allocated_bytes()
    with pytest.raises(TooLargeError, match="decompressed"):
        read(bomb, max_bytes=2 * 10**6)
    assert pa.total_allocated_bytes() - before < 10**5, "it was unpacked before it was refused"


def test_elements_are_limited():
    with pytest.raises(TooLargeError, match="6 elements"):
        read(stream(table()), max_elements=5)


@pytest.mark.parametrize("forged", [[0, 2, 1, 6], [0, 2, 99, 6], [0, 2, 3, 10**6], [-1, 2, 3, 6]])
def test_forged_offsets(forged):
    body, valid = stream(table()), np.array([0, 2, 3, 6], np.int32).tobytes()
    assert body.count(valid) == 2
    with pytest.raises(UnreadableError):
        read(body.replace(valid, np.array(forged, np.int32).tobytes()))


def test_truncated_streams():
    body = stream(table(id=["a", "b", "c"]))
    whole = []
    for end in range(len(body) - 8):  # the last 8 bytes only say that the stream ends
        try:
            whole.append(len(read(body[:end]).prediction))
        except UnreadableError:
            continue
    # Arrow lets a stream end between two messages, such as after the schema.
    assert whole == [0]


def mutants(count, seed):
    """Yield damaged streams."""
    rng = random.Random(seed)
    bodies = [
        stream(table(id=["a", "b", "c"])),
        stream(table(id=pa.array(["a", "b", "a"]).dictionary_encode()), compression="zstd"),
        stream(table(lists([[[1, 2]]], pa.list_(pa.list_(pa.float32(), 2)))), compression="lz4"),
        stream(table(lists([[1, 2], [3]], pa.list_view(pa.int16())))),
        stream(
            table(pa.ListArray.from_arrays([0, 2, 4], pa.array([5, 7, 5, 7]).dictionary_encode()))
        ),
        stream(
            table(
                pa.ListArray.from_arrays(
                    [0, 2, 4], pa.RunEndEncodedArray.from_arrays([2, 4], [5.0, None])
                )
            )
        ),
    ]
    for _ in range(count):
        body = bytearray(rng.choice(bodies))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(body))
            kind = rng.random()
            if kind < 0.5:
                body[at] ^= 1 << rng.randrange(8)
            elif kind < 0.8:
                body[at : at + 4] = rng.choice((b"\xff" * 4, b"\x00" * 4, b"\xff\xff\xff\x7f"))
            else:
                del body[at : at + rng.randrange(1, 64)]
        yield bytes(body)


def survive(count: int, seed: int) -> None:
    """Read mutants; anything but a request or a ServiceError is a defect."""
    for body in mutants(count, seed):
        try:
            answer(
                read(np.frombuffer(bytearray(body), np.uint8), ScoreOptions(missing="propagate"))
            )
        except ServiceError:
            continue


def test_mutants_only_ever_get_refused():
    # In a process of its own: damage that gets through would crash the interpreter.
    this = Path(__file__)
    code = "import test_arrow; test_arrow.survive(6000, 1)"
    paths = [this.parent, this.parent.parent / "server"]
    setup = f"import sys, resource; sys.path[:0] = {list(map(str, paths))}; "
    setup += "resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)); "
    run = subprocess.run(
        [sys.executable, "-c", setup + code], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]


finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.tuples(finite, finite), min_size=1, max_size=9), max_size=9))
def test_json_and_arrow_mean_the_same(series):
    sides = {
        name: [[pair[k] for pair in item] for item in series]
        for k, name in enumerate(("prediction", "target"))
    }
    document = {
        "series": [
            dict(zip(sides, both, strict=True)) for both in zip(*sides.values(), strict=True)
        ],
        "gradients": True,
    }
    from_json = json.decode(orjson.dumps(document), max_elements=10**6)
    from_arrow = read(stream(pa.table({name: lists(side) for name, side in sides.items()})))
    columns = [answer(request) for request in (from_json, from_arrow)]
    for name in columns[0].column_names:
        a, b = (table[name].combine_chunks() for table in columns)
        if pa.types.is_nested(a.type):
            a, b = a.flatten(), b.flatten()
        assert (
            a.to_numpy(zero_copy_only=False).tobytes() == b.to_numpy(zero_copy_only=False).tobytes()
        )
    spans = itertools.pairwise(from_json.prediction.offsets.tolist())
    assert [b - a for a, b in spans] == [len(item) for item in series]


@pytest.mark.parametrize("elements", [1 << 14, 1 << 17])
@pytest.mark.parametrize("missing", [False, True])
def test_missing_elements_are_looked_for_among_many_in_a_thread(elements, missing):
    values = pa.array(np.full(elements, np.nan if missing else 1.0))
    lists_of = pa.ListArray.from_arrays([0, elements], values)
    request = read(stream(table(lists_of)), ScoreOptions())
    scores = score(request.prediction, request.target, missing="propagate")
    assert is_short(request, scores, "arrow") == (not missing or elements == 1 << 14)
