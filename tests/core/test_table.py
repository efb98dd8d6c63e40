"""A whole table in one call, against grouping by a dict and scoring by numpy, series by series."""

import datetime as dt
import decimal
import itertools
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import score_series

import loss_scoring.core.table.joining.groups
import loss_scoring.core.table.score
from loss_scoring.core import DEFAULT_LOSSES, LOSSES
from loss_scoring.core.table import (
    LeftOutWarning,
    NullKeyError,
    TableError,
    find_models,
    group_rows,
    interleave_elements,
    score_table,
)

KEYS = ["unique_id", "cutoff"]
QUOTIENTS = [name for name, loss in LOSSES.items() if loss.has_quotient]
TYPES = {
    "string": lambda ids: pa.array([f"id-{i}" for i in ids], pa.string()),
    "large_string": lambda ids: pa.array([f"id-{i}" for i in ids], pa.large_string()),
    "string_view": lambda ids: pa.array(
        [f"a name beyond 12 bytes {i}" for i in ids], pa.string_view()
    ),
    "dictionary": lambda ids: pa.array([f"id-{i}" for i in ids], pa.string()).dictionary_encode(),
    "dictionary of date": lambda ids: pa.array(
        [dt.date(2024, 1, 1 + i) for i in ids], pa.date32()
    ).dictionary_encode(),
    "dictionary of int": lambda ids: pa.array(ids, pa.int64()).dictionary_encode(),
    "int8": lambda ids: pa.array(ids, pa.int8()),
    "uint64": lambda ids: pa.array([2**64 - 1 - i for i in ids], pa.uint64()),
    "bool": lambda ids: pa.array([bool(i % 2) for i in ids], pa.bool_()),
    "float": lambda ids: pa.array([0.0 if i else -0.0 for i in ids], pa.float32()),
    "timestamp": lambda ids: pa.array(ids, pa.timestamp("ns", "UTC")),
    "date": lambda ids: pa.array([dt.date(2024, 1, 1 + i) for i in ids], pa.date32()),
    "decimal": lambda ids: pa.array([decimal.Decimal(i) for i in ids], pa.decimal128(9, 2)),
}


def chunked(table, cuts):
    """The same rows in several batches, each dictionary its own."""
    offsets = sorted({0, len(table), *(cut % (len(table) + 1) for cut in cuts)})
    parts = []
    for a, b in itertools.pairwise(offsets):
        part = table.slice(a, b - a)
        columns = [
            column.cast(column.type.value_type).dictionary_encode()
            if pa.types.is_dictionary(column.type)
            else column
            for column in part.columns
        ]
        parts.append(pa.table(columns, table.column_names))
    return pa.concat_tables(parts) if parts else table


def by_dict(table, keys):
    """The rows of each series, in the order of their first."""
    rows = {}
    for row, key in enumerate(zip(*(table[name].to_pylist() for name in keys), strict=True)):
        rows.setdefault(key, []).append(row)
    return rows


number = st.one_of(st.none(), st.sampled_from([0.0, 1.0, -2.5, 7.0]), st.floats(-1e6, 1e6))


@st.composite
def tables(draw):
    size = draw(st.integers(0, 12))
    few = st.lists(st.integers(0, 3), min_size=size, max_size=size)
    kinds = draw(st.tuples(st.sampled_from(list(TYPES)), st.sampled_from(list(TYPES))))
    ids = [TYPES[kind](draw(few)) for kind in kinds]
    width = pa.float32() if draw(st.booleans()) else pa.float64()
    numbers = st.lists(number, min_size=size, max_size=size)
    columns = {name: pa.array(draw(numbers), width) for name in ("y", "A", "B")}
    table = pa.table({**dict(zip(KEYS, ids, strict=True)), **columns})
    return chunked(table, draw(st.lists(st.integers(0, 20), max_size=3)))


@settings(deadline=None, max_examples=150)
@given(tables(), st.sampled_from(["skip", "propagate"]), st.sampled_from(["zero", "skip"]))
def test_against_a_dict_and_numpy(table, missing, zero_division):
    got = score_table(table, gradients=True, missing=missing, zero_division=zero_division)
    got.validate(full=True)
    groups = by_dict(table, KEYS)
    rows = [(*key, model) for key in groups for model in ("A", "B")]
    assert list(zip(*(got[name].to_pylist() for name in [*KEYS, "model"]), strict=True)) == rows
    assert got.schema.types[:2] == [table.schema.field(name).type for name in KEYS]
    assert got["length"].to_pylist() == [len(one) for one in groups.values() for _ in range(2)]
    arrays = {name: np.array(table[name].to_numpy()) for name in ("y", "A", "B")}
    for name in DEFAULT_LOSSES:
        kind = got.schema.field(f"{name}_gradient").type
        assert kind == pa.large_list(table.schema.field("y").type)
        for i, (where, model) in enumerate((w, m) for w in groups.values() for m in ("A", "B")):
            value, masked, gradient = score_series(
                arrays[model][where], arrays["y"][where], name,
                missing=missing, zero_division=zero_division,
            )  # fmt: skip
            propagated = (missing, name) == ("propagate", "mae")
            if np.isnan(value) and not propagated:
                assert got[name][i].as_py() is None
            else:
                assert got[name][i].as_py() == pytest.approx(value, rel=1e-6, nan_ok=True)
            if name in QUOTIENTS:
                assert got[f"{name}_masked"][i].as_py() == masked
            slopes = got[f"{name}_gradient"][i].as_py()
            assert np.array_equal(np.array(slopes, gradient.dtype), gradient)


def test_series_together_are_read_in_place_and_share_the_target(monkeypatch):
    table = pa.table({"id": ["b", "b", "a"], "y": [1.0, 2, 3], "A": [1.0, 2, 3], "B": [3.0, 2, 1]})
    seen = []

    def spy(prediction, target, *arguments, **options):
        seen.append((prediction, target))
        return loss_scoring.core.score(prediction, target, *arguments, **options)

    monkeypatch.setattr(loss_scoring.core.table.score, "score", spy)
    score_table(table, group_by=["id"])
    for (prediction, target), model in zip(seen, ("A", "B"), strict=True):
        assert prediction.values.data_ptr() == table[model].chunk(0).buffers()[1].address
        assert target.values.data_ptr() == table["y"].chunk(0).buffers()[1].address
        assert prediction.offsets is target.offsets


def test_the_rows_of_a_series_need_not_be_contiguous():
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, 9, 50)
    table = pa.table(
        {"id": np.repeat(np.arange(50), lengths), "y": rng.normal(size=lengths.sum())}
    ).append_column("A", pa.array(rng.normal(size=lengths.sum())))
    # A merge of the series at random, each in its own order.
    order = np.argsort(rng.permutation(np.repeat(np.arange(50), lengths)), kind="stable")
    scattered = table.take(np.argsort(order))
    keys = [("id", "ascending")]
    sides = [
        score_table(one, group_by=["id"], gradients=True).sort_by(keys)
        for one in (table, scattered)
    ]
    assert sides[0].equals(sides[1])
    assert group_rows(scattered.select(["id"])).order is not None
    assert group_rows(table.select(["id"])).order is None


@pytest.mark.parametrize(
    ("column", "rows"),
    [
        (pa.array(["a", None, "b", None]), [1, 3]),
        (pa.array([1, None, 2, 3]), [1]),
        (pa.array(["a", None, "b", "c"]).dictionary_encode(), [1]),
        (pa.DictionaryArray.from_arrays([0, 1, 0, 1], pa.array(["a", None])), [1, 3]),
        (pa.array([0.0, float("nan"), float("inf"), None]), [3]),
        (pa.array(["a", None, "b", "c"], pa.string_view()), [1]),
    ],
    ids=lambda one: str(getattr(one, "type", "")),
)
def test_rows_without_a_key_are_refused(column, rows):
    table = pa.table({"id": column, "y": [1.0] * 4, "A": [1.0] * 4})
    with pytest.raises(NullKeyError, match=f"'id' has no key in row {rows[0]}") as error:
        score_table(table, group_by=["id"])
    assert error.value.rows.tolist() == rows


@pytest.mark.parametrize(
    "ids",
    [
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)] * 2, pa.binary(16))),
        pa.array([b"a", b"b"]),
        pa.array([{"store": 1}, {"store": 2}]),
        pa.array([[1], [2]]),
        pa.array([1, 2], pa.duration("s")),
        pa.array([1.0, 2.0], pa.float16()),
    ],
    ids=lambda ids: str(ids.type),
)
def test_ids_that_cannot_be_compared_are_refused_by_name(ids):
    with pytest.raises(TableError, match=r"column 'id' must hold text.*cast it to text, UUIDs"):
        score_table(table(id=ids), group_by=["id"])


def ranked(**columns):
    groups = group_rows(pa.table(columns))
    return groups.keys.to_pylist(), np.diff(groups.offsets).tolist()


def test_keys_are_equal_by_value():
    assert hash(-1) == hash(-2)
    assert ranked(a=[-1, -2, -1])[1] == [2, 1]
    assert ranked(a=["a", "ab", "a"], b=["bc", "c", "bc"])[1] == [2, 1]
    twice = pa.DictionaryArray.from_arrays([0, 1, 2, 0], pa.array(["x", "y", "x"]))
    assert ranked(a=twice) == ([{"a": "x"}, {"a": "y"}], [3, 1])
    assert ranked(a=[0.0, -0.0, 1.0, -0.0])[1] == [3, 1]
    assert ranked(a=[1, 1, 1], b=["x", "x", "x"])[1] == [3]


def test_dictionaries_that_together_outgrow_their_index():
    parts = [
        pa.table({"id": pa.DictionaryArray.from_arrays(
            pa.array(range(100), pa.int8()), pa.array([f"{part}-{i}" for i in range(100)])
        )})
        for part in (0, 1, 0)
    ]  # fmt: skip
    keys, sizes = ranked(id=pa.concat_tables(parts)["id"])
    assert sizes == [2] * 100 + [1] * 100
    assert keys[100] == {"id": "1-0"}


@pytest.mark.parametrize("counted", [1, 1 << 30])
@settings(max_examples=60, deadline=None)
@given(
    keys=st.lists(st.tuples(st.sampled_from("bca"), st.sampled_from("zxy")), max_size=20),
    repeats=st.sampled_from([1, 3]),
    cut=st.integers(0, 60),
)
def test_rows_are_grouped_and_sorted_as_by_a_loop(counted, keys, repeats, cut):
    """By a counting sort or by comparisons; scattered or in runs; also in parts."""
    rows = [key for key in keys for _ in range(repeats)]
    schema = pa.schema(dict.fromkeys(KEYS, pa.string()))
    dicts = [dict(zip(KEYS, row, strict=True)) for row in rows]
    parts = [pa.Table.from_pylist(part, schema) for part in (dicts[:cut], dicts[cut:])]
    members = {}
    for row, key in enumerate(rows):
        members.setdefault(key, []).append(row)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_scoring.core.table.joining.groups, "_COUNTED", counted)
        for by_key in (False, True):
            wanted = dict(sorted(members.items())) if by_key else members
            groups = group_rows(pa.concat_tables(parts), by_key=by_key)
            natural = list(range(len(rows)))
            order = natural if groups.order is None else groups.order.tolist()
            assert list(zip(*groups.keys.to_pydict().values(), strict=True)) == list(wanted)
            spans = itertools.pairwise(groups.offsets.tolist())
            assert [order[start:stop] for start, stop in spans] == list(wanted.values())
            assert (groups.order is None) == (order == natural)


def test_many_columns_of_many_keys_do_not_overflow():
    rng = np.random.default_rng(5)
    columns = {f"k{i}": rng.integers(0, 10**9, 20_000) for i in range(8)}
    assert len(group_rows(pa.table(columns))) == 20_000


def table(**columns):
    made = {"id": ["a", "a"], "y": [1.0, 2.0], "A": [1.0, 4.0], **columns}
    return pa.table({name: one for name, one in made.items() if one is not None})


@pytest.mark.parametrize(
    ("made", "options", "expected"),
    [
        (table(), {"group_by": ["no"]}, "'no' is absent"),
        (table(), {"group_by": []}, "tells series apart"),
        (table(), {"target": "no"}, "'no' is absent"),
        (table(), {"predictions": ["no"]}, "'no' is absent"),
        (table(), {"predictions": ["A", "A"]}, "'A' is named more than once"),
        (table(), {"predictions": ["y"]}, "'y' is named more than once"),
        (table(), {"group_by": ["id", "id"]}, "'id' is named more than once"),
        (table(A=None), {}, "no column of predictions"),
        (table(A=["x", "y"]), {"predictions": ["A"]}, "must hold numbers, not string"),
        (table(y=[True, False]), {}, "must hold numbers, not bool"),
        (table(id=[[1], [2]]), {}, "must hold text, numbers, dates or times"),
        (table(model=["a", "b"]), {"group_by": ["model"]}, "a column of the answer"),
        (table(mae=["a", "b"]), {"group_by": ["mae"]}, "a column of the answer"),
        (table(bias=["a", "b"]), {"group_by": ["bias"], "losses": ["bias"]}, "a column of the answer"),
        (pa.table([["a"], [1.0], [1.0], [1.0]], ["id", "y", "A", "A"]), {"predictions": ["A"]},
         "'A' is in the table more than once"),
        (table(), {"predictions": ["a"]}, "'a' is absent; did you mean 'A'"),
        (table(), {"exclude": ["a"]}, "'a' is absent; did you mean 'A'"),
        (table(A=["1.5", "\xa0"]), {}, "'A' holds numbers as text, '1.5' in row 0"),
        (table(A=["1.5", "-"]), {}, "'A' holds numbers, but '-' in row 1 is text"),
        (table(A=["1.5", "-"]), {"predictions": ["A"]}, "'A' holds numbers, but '-' in row 1"),
        (table(y=["7", "x"]), {}, "'y' holds numbers, but 'x' in row 1 is text"),
        (table(A=None, horizon=[1, 2]), {}, r"left out: 'horizon' \(a forecast step\)"),
        (table(A=[1.0, None]), {}, "'A' is missing or not finite in row 1, of the series id='a'"),
        (table(y=[float("inf"), 1.0]), {}, "'y' is missing or not finite in row 0"),
    ],
)  # fmt: skip
def test_mistakes_are_explained(made, options, expected):
    with pytest.raises(TableError, match=expected):
        score_table(made, **{"group_by": ["id"], **options})


def test_a_key_may_have_the_name_of_a_loss_that_is_not_asked_for():
    made = table(id=None, bias=["a", "b"])
    assert score_table(made, group_by=["bias"])["bias"].to_pylist() == ["a", "b"]


def test_what_is_taken_for_a_model():
    columns = {name: [1.0, 2.0] for name in ("A-lo-90", "A-hi-99.5", "B")}
    made = table(**columns, ds=[1, 2], note=["x", "y"], half=pa.array([1.0, 2.0], pa.float16()))
    with pytest.warns(LeftOutWarning) as warned:
        scores = score_table(made, group_by=["id"])
    assert warned[0].filename == __file__
    assert scores["model"].to_pylist() == ["A", "B", "half"]
    assert str(warned[0].message) == (
        "scored as models: A, B, half; left out: 'A-lo-90' (a bound of a prediction interval), "
        "'A-hi-99.5' (a bound of a prediction interval), 'note' (text); "
        "name columns by models= or leave them out by exclude= to silence this"
    )
    excluded = score_table(made, group_by=["id"], exclude=["A-lo-90", "A-hi-99.5", "note", "half"])
    assert excluded["model"].to_pylist() == ["A", "B"]
    named = score_table(made, group_by=["id"], predictions=["ds", "A-lo-90"])
    assert named["model"].to_pylist() == ["ds", "A-lo-90"]


def test_numbers_of_any_kind():
    made = table(
        y=pa.array([1, 2], pa.int8()),
        A=pa.array([2**63 + 1, 4], pa.uint64()),
        B=pa.array([decimal.Decimal("1.5"), decimal.Decimal(2)]),
        C=pa.nulls(2),
    )
    scores = score_table(made, group_by=["id"], predictions=list("ABC"), missing="skip")
    assert scores["mae"].to_pylist() == [(2.0**63 - 1 + 2) / 2, 0.25, None]


def test_float_stays_float_only_where_all_are():
    single = {name: pa.array([1.1, 2.2], pa.float32()) for name in ("y", "A")}
    kind = "mae_gradient"
    for more, element in ({}, pa.float32()), ({"B": [1.0, 2.0]}, pa.float64()):
        made = score_table(table(**single, **more), group_by=["id"], gradients=True)
        assert made.schema.field(kind).type == pa.large_list(element)


@pytest.mark.parametrize("lengths", [[2, 2, 2], [1, 3, 2], [5], []])
def test_elements_model_by_model_become_series_by_series(lengths):
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    flat = np.arange(3 * offsets[-1])
    want = [
        x
        for a, b in itertools.pairwise(offsets)
        for model in range(3)
        for x in range(a + model * offsets[-1], b + model * offsets[-1])
    ]
    assert interleave_elements(flat, offsets, 3).tolist() == want


def test_core_does_without_arrow():
    code = (
        "import loss_scoring.core, sys; assert 'pyarrow' not in sys.modules, 'core imports Arrow'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
def test_on_a_device():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    rng = np.random.default_rng(9)
    made = pa.table(
        {"id": np.repeat(np.arange(100), 24), **{n: rng.normal(size=2400) for n in "yA"}}
    )
    here, there = (
        score_table(made, group_by=["id"], gradients=True, device=device)
        for device in ("cpu", "cuda")
    )
    for name in DEFAULT_LOSSES:
        assert np.allclose(here[name], there[name], rtol=1e-12)
        assert here[f"{name}_gradient"].equals(there[f"{name}_gradient"])


@pytest.mark.parametrize("name", ["lower" + "-1.1" * 60 + "x", "upper_1" + ".1" * 200 + "%!"])
def test_names_of_many_numbers_are_read_in_one_way(name):
    assert find_models(pa.schema({name: pa.float64()}), ()).models == (name,)


def test_columns_are_named_as_in_the_client_or_as_they_once_were():
    made = pa.table({"id": [1, 1], "t": [1, 2], "v": [1.0, 2.0], "A": [2.0, 2.0], "B": [1.0, 1.0]})
    want = score_table(made, group_by=["id"], time_col="t", target_col="v", models=["A"])
    assert want["mae"].to_pylist() == [0.5]
    old = {"time": "t", "target": "v", "predictions": ["A"]}
    assert score_table(made, group_by=["id"], **old) == want
    with pytest.raises(TypeError, match="target means target_col, which is given too"):
        score_table(made, target_col="v", **old)


@pytest.mark.parametrize("by_key", [False, True])
@pytest.mark.parametrize("chunks", [0, 1])
@pytest.mark.parametrize("type_", [pa.string(), pa.dictionary(pa.int8(), pa.string()), pa.int64()])
def test_no_rows_are_no_series(type_, chunks, by_key):
    keys = pa.table({"id": pa.chunked_array([pa.array([], type_)] * chunks, type_)})
    groups = group_rows(keys, by_key=by_key)
    assert (len(groups), groups.keys.schema) == (0, keys.schema)
