"""A column of any Arrow type in any role is served, or refused by name: a fault of a client is its.

Bodies are of every type that pyarrow can make (each plain, in a dictionary and in runs), without a
row, with one and with many, with nulls and of nulls only.
"""

import datetime as dt
import decimal
import warnings

import pyarrow as pa
import pytest
from streams import Account, write

from loss_scoring.core import score
from loss_scoring.core.table import score_table
from loss_scoring.service.codecs.codec import Codec, Formats, encode
from loss_scoring.service.errors import ServiceError

MOMENT = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
DECIMALS = [
    pa.decimal32(9, 2), pa.decimal64(18, -3), pa.decimal128(38, 0), pa.decimal128(5, 5), pa.decimal256(76, 38)
]  # fmt: skip
ZONES = [None, "UTC", "+05:30", "Asia/Tokyo", "no/zone", ""]
PLAIN = {
    pa.null(): None,
    pa.bool_(): True,
    **dict.fromkeys([pa.int8(), pa.int16(), pa.int32(), pa.int64()], -7),
    **dict.fromkeys([pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()], 7),
    **dict.fromkeys([pa.float16(), pa.float32(), pa.float64()], 0.5),
    **dict.fromkeys(DECIMALS, decimal.Decimal(0)),
    **dict.fromkeys([pa.string(), pa.large_string(), pa.string_view()], "7"),
    **dict.fromkeys([pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(1)], b"7"),
    **dict.fromkeys([pa.date32(), pa.date64()], MOMENT.date()),
    **dict.fromkeys([pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")], MOMENT.time()),
    **{pa.timestamp("us", zone): MOMENT for zone in ZONES},
    **dict.fromkeys([pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("ns", "UTC")], MOMENT),
    **dict.fromkeys([pa.duration("s"), pa.duration("ns")], 7),
    pa.month_day_nano_interval(): (1, 2, 3),
}  # fmt: skip
NESTED = {
    pa.list_(pa.float64()): [0.5],
    pa.large_list(pa.int8()): [7],
    pa.list_(pa.float32(), 1): [0.5],
    pa.list_view(pa.float64()): [0.5],
    pa.large_list_view(pa.uint64()): [7],
    pa.list_(pa.list_(pa.float32(), 1)): [[0.5]],
    pa.list_(pa.list_(pa.float32())): [[0.5]],
    pa.list_(pa.list_(pa.float32(), 0)): [[]],
    pa.list_(pa.list_(pa.list_(pa.float32(), 1), 1)): [[[0.5]]],
    pa.list_(pa.bool_()): [True],
    pa.list_(pa.string()): ["7"],
    pa.list_(pa.null()): [None],
    pa.list_(pa.struct({"a": pa.float32()})): [{"a": 0.5}],
    pa.list_(pa.date32()): [MOMENT.date()],
    **{pa.list_(type_): [decimal.Decimal(0)] for type_ in DECIMALS},
    pa.list_(pa.float16()): [0.5],
    pa.struct({"a": pa.int8(), "b": pa.string()}): {"a": 7, "b": "7"},
    pa.struct([]): {},
    pa.map_(pa.string(), pa.float64()): [("7", 0.5)],
}


def arrays():
    """Yield arrays of five equal values, each of another type."""
    made = [pa.array([value] * 5, type_) for type_, value in {**PLAIN, **NESTED}.items()]
    for array in [*made]:
        index = pa.array([0, 0, 1, 1, 0], pa.uint64() if len(made) % 2 else pa.int8())
        made += attempt(pa.DictionaryArray.from_arrays, index, array[:2])
        made += attempt(pa.RunEndEncodedArray.from_arrays, pa.array([2, 5], pa.int16()), array[:2])
    numbers = pa.array([0.5] * 5)
    kinds = pa.array([0] * 5, pa.int8())
    made += [
        pa.UnionArray.from_sparse(kinds, [numbers, numbers]),
        pa.UnionArray.from_dense(kinds, pa.array(range(5), pa.int32()), [numbers]),
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"7" * 16] * 5, pa.binary(16))),
        pa.ExtensionArray.from_storage(pa.json_(), pa.array(["7"] * 5)),
        pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1] * 5, pa.int8())),
        pa.ExtensionArray.from_storage(pa.opaque(pa.float64(), "a", "b"), numbers),
        pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [1]), pa.array([[0.5]] * 5, pa.list_(pa.float32(), 1))),
    ]  # fmt: skip
    ends = pa.array(range(6), pa.int32())
    for array in [*made]:  # series of numbers that are coded
        if pa.types.is_dictionary(array.type) or pa.types.is_run_end_encoded(array.type):
            made += attempt(pa.ListArray.from_arrays, ends, array)
    return made


def attempt(make, *arguments):
    try:
        array = make(*arguments)
        write(pa.table({"a": array}))
    except (pa.ArrowException, TypeError, ValueError):
        return []  # Arrow has no such arrays, or does not send them
    return [array]


ARRAYS = arrays()


def variants(array):
    """Yield how a column of it can be, and what is in it."""
    yield "none", array[:0]
    yield "one", array[1:2]
    with_null = attempt(lambda: pa.concat_arrays([array[:4], pa.nulls(1, array.type)]))
    yield from (("a null", x) for x in with_null)
    yield from (("nulls", x) for x in attempt(pa.nulls, 5, array.type))
    yield "two batches", pa.chunked_array([array[:2], array[2:]])


LISTS = ("id", "prediction", "target", "both")
LONG = ("key", "time", "y", "model", "left out", "all numbers")


def table_of(role, column):
    rows = len(column)
    numbers, counted = pa.array([0.25] * rows), pa.array(range(rows), pa.int64())
    if role in LISTS:
        series = pa.array([[0.5]] * rows, pa.list_(pa.float64()))
        if role == "both":
            return pa.table({"prediction": column, "target": column})
        made = {"id": counted, "prediction": series, "target": series}
        return pa.table({**made, role: column})
    made = {"k": pa.array([0] * rows, pa.int8()), "ds": counted, "y": numbers, "A": numbers}
    named = {"key": ["k"], "time": ["ds"], "y": ["y"], "model": ["A"], "all numbers": ["y", "A"]}
    return pa.table({**made, **dict.fromkeys(named.get(role, ["X"]), column)})


def serve(table, query, chosen):
    """Do what POST /score does; return the status."""
    codec, account = Codec(1 << 24, 1 << 24, 1 << 20, 1 << 20), Account()
    sent = memoryview(write(table)), Formats("arrow", "json", "identity"), query, account
    try:
        request = codec.decode_common(*sent)
        if request is None:
            request = codec.decode(*sent)
        scores = score(
            request.prediction, request.target, gradients=True, missing="propagate"
        )  # as the engine does, and leaves what is missing to be found
        as_json = encode(request, scores, "json")
        assert sum(map(len, as_json)) <= request.answer_bytes, chosen
        request.estimate("arrow", 1 << 20)
        as_arrow = b"".join(encode(request, scores, "arrow"))
        assert len(as_arrow) <= request.answer_bytes, chosen
        pa.ipc.open_stream(as_arrow).read_all().validate(full=True)
    except ServiceError as error:
        return error.status
    return 200


@pytest.mark.parametrize("role", [*LISTS, *LONG])
def test_any_type_in_any_role_is_served_or_refused_by_name(role):
    query = b"gradients=true" if role in LISTS else b"gradients=true&group_columns=k"
    seen = set()
    for array in ARRAYS:
        for shape, column in variants(array):
            table = table_of(role, column)
            for missing in (b"", b"&missing=propagate")[shape == "two batches" :]:
                seen.add(serve(table, query + missing, (str(array.type), shape, role)))
    assert {200, 422} <= seen <= {200, 400, 413, 422}


@pytest.mark.parametrize("role", LONG)
def test_any_type_is_scored_as_a_table_or_refused_in_words(role):
    seen = set()
    for array in ARRAYS:
        for _, column in variants(array):
            table = table_of(role, column)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    score_table(table, group_by=["k"], gradients=True, missing="propagate")
                seen.add("scored")
            except ValueError as error:
                foreign = isinstance(error, (pa.ArrowException, UnicodeError))
                assert not foreign, (table.schema, error)  # noqa: PT017
                seen.add("refused")
    assert "scored" in seen
