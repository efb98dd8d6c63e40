"""From a frame to series and back, in every kind of frame."""

import datetime as dt
import math
import uuid
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import model_columns
import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossclient import InvalidInput
from lossclient.columns import Columns
from lossclient.frames import read_frame, write_frame

KINDS = {
    "pandas": pd.DataFrame,
    "pandas-arrow": lambda columns: pa.table(columns).to_pandas(types_mapper=pd.ArrowDtype),
    "polars": pl.DataFrame,
    "pyarrow": pa.table,
}
LONG = {
    "unique_id": ["b", "a", "b", "a", "b"],
    "ds": [dt.datetime(2026, 1, day) for day in (2, 1, 1, 2, 1)],  # noqa: DTZ001 - as Nixtla's
    "cutoff": [dt.datetime(2025, 12, day) for day in (30, 30, 30, 30, 31)],  # noqa: DTZ001
    "y": [2.0, 3.0, 1.0, 4.0, 5.0],
    "Naive": [20.0, 30.0, 10.0, 40.0, 50.0],
    "Naive-lo-90": [0.0] * 5,
    "Naive-hi-97.5": [9.0] * 5,
    "Theta": [200, 300, 100, 400, 500],
    "note": ["x"] * 5,
    "flag": [True] * 5,
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def as_lists(forecasts, values):
    return [part.tolist() for part in np.split(values, forecasts.offsets[1:-1])]


def answer_of(forecasts, *, gradients=False):
    """An answer that tells each series and model apart."""
    models = np.tile(np.arange(len(forecasts.models)), len(forecasts))
    series = np.repeat(np.arange(len(forecasts)), len(forecasts.models))
    columns = {"length": series, "mae": series + 100.0 * models}
    if gradients:
        columns["mae_gradient"] = pa.array(models[:, None].tolist(), pa.large_list(pa.float64()))
    return pa.table(columns)


def test_series_are_rows_of_one_id_and_cutoff_in_the_order_of_time(kind):
    forecasts = read_frame(kind(LONG), Columns()).forecasts
    assert forecasts.models == ("Naive", "Theta")
    assert as_lists(forecasts, forecasts.target) == [[1, 2], [3, 4], [5]]
    assert as_lists(forecasts, forecasts.predictions[0]) == [[10, 20], [30, 40], [50]]
    assert as_lists(forecasts, forecasts.predictions[1]) == [[100, 200], [300, 400], [500]]
    assert [forecasts.key_of(i).id for i in range(3)] == ["b", "a", "b"]
    assert [forecasts.key_of(i).cutoff.day for i in range(3)] == [30, 30, 31]
    assert [forecasts.row_of(0, i) for i in (0, 1)] == [2, 0]


def test_columns_of_nixtla_are_no_models_where_others_are_used_instead(kind):
    columns = {
        "shop": ["a", "b"], "real": [1.0, 2.0], "A": [2, 3],
        "unique_id": [1, 2], "ds": [1, 2], "y": [0.5, 0.5], "__index_level_0__": [0, 1],
    }  # fmt: skip
    forecasts = read_frame(kind(columns), Columns(id="shop", time=None, target="real")).forecasts
    assert forecasts.models == ("A",)


def test_the_same_kind_of_frame_comes_back(kind):
    df = kind(LONG)
    reading = read_frame(df, Columns())
    frame = write_frame(reading, answer_of(reading.forecasts, gradients=True))
    assert type(frame) is type(df)
    table = pa.table(frame)
    assert table.column_names == ["unique_id", "cutoff", "model", "length", "mae", "mae_gradient"]
    assert table["unique_id"].to_pylist() == ["b", "b", "a", "a", "b", "b"]
    assert table["model"].to_pylist() == ["Naive", "Theta"] * 3
    assert table["mae"].to_pylist() == [0, 100, 1, 101, 2, 102]
    assert [list(gradient) for gradient in table["mae_gradient"].to_pylist()] == [[0], [1]] * 3
    assert pa.table(df)["cutoff"].type == table["cutoff"].type
    assert [day.day for day in table["cutoff"].to_pylist()] == [30, 30, 30, 30, 31, 31]


def test_without_cutoff(kind):
    columns = {name: LONG[name] for name in ("unique_id", "ds", "y", "Theta")}
    reading = read_frame(kind(columns), Columns(), duplicates="allow")
    assert reading.forecasts.key_of(0) == ("b", None)
    assert as_lists(reading.forecasts, reading.forecasts.target) == [[1, 5, 2], [3, 4]]
    frame = pa.table(write_frame(reading, answer_of(reading.forecasts)))
    assert frame.column_names == ["unique_id", "model", "length", "mae"]


def test_no_rows(kind):
    df = kind(LONG)[:0] if not isinstance(kind(LONG), pa.Table) else kind(LONG).slice(0, 0)
    reading = read_frame(df, Columns())
    assert len(reading.forecasts) == 0
    assert len(write_frame(reading, answer_of(reading.forecasts))) == 0


@pytest.mark.parametrize("index", [["unique_id"], ["unique_id", "cutoff"], ["unique_id", "ds"]])
def test_pandas_may_have_keys_in_the_index(index):
    df = pd.DataFrame(LONG).set_index(index)
    reading = read_frame(df, Columns())
    assert as_lists(reading.forecasts, reading.forecasts.target) == [[1, 2], [3, 4], [5]]
    frame = write_frame(reading, answer_of(reading.forecasts))
    assert frame.columns.tolist() == ["unique_id", "cutoff", "model", "length", "mae"]
    assert frame.index.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("columns", [Columns(), Columns(time=None), Columns(cutoff=None)])
def test_an_index_without_a_name_is_no_column(columns):
    reading = read_frame(pd.DataFrame(LONG), columns, duplicates="allow")
    assert reading.forecasts.models == ("Naive", "Theta")


def test_a_pandas_index_of_any_order_is_not_looked_at():
    df = pd.DataFrame(LONG, index=[9, 9, 3, 1, 0])
    reading = read_frame(df, Columns())
    assert as_lists(reading.forecasts, reading.forecasts.target) == [[1, 2], [3, 4], [5]]
    frame = write_frame(reading, answer_of(reading.forecasts))
    assert frame["unique_id"].tolist() == ["b", "b", "a", "a", "b", "b"]


IDS = {
    "strings": ["b", "a", "b", "a", "b"],
    "integers": [7, 3, 7, 3, 7],
    "pandas categories": pd.Categorical(["b", "a", "b", "a", "b"], categories=["z", "a", "b"]),
    "polars categories": pl.Series(["b", "a", "b", "a", "b"], dtype=pl.Categorical),
    "arrow dictionary": pa.array(["b", "a", "b", "a", "b"]).dictionary_encode(),
    "objects": np.array(["b", "a", "b", "a", "b"], object),
}


@pytest.mark.parametrize("ids", IDS)
def test_ids_keep_their_type(ids):
    make = pd.DataFrame if "polars" not in ids else pl.DataFrame
    make = pa.table if "arrow" in ids else make
    df = make({**LONG, "unique_id": IDS[ids]})
    reading = read_frame(df, Columns())
    frame = write_frame(reading, answer_of(reading.forecasts))
    ids_of = [row["unique_id"] for row in pa.table(frame).to_pylist()]
    assert (
        ids_of
        == [value for value in list(pa.array(IDS[ids]).to_pylist()) for _ in (0, 1)][:4]
        + (ids_of[:2])
    )
    if isinstance(df, pa.Table):
        assert frame.schema.field("unique_id").type == df.schema.field("unique_id").type
    else:
        assert frame["unique_id"].dtype == df["unique_id"].dtype


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (pa.array([1, 2], pa.int16()), np.float64),
        (pa.array([1.0, 2.0], pa.float32()), np.float32),
        (pa.array([1.0, 2.0], pa.float16()), np.float32),
        (pa.array([Decimal("1.00"), Decimal("2.00")]), np.float64),
        (pa.array([1.0, 2.0], pa.float64()), np.float64),
    ],
)
def test_numbers_of_any_type_become_floats(values, wanted):
    table = pa.table({"unique_id": ["a", "a"], "ds": [1, 2], "y": [1.0, 2.0], "Naive": values})
    (prediction,) = read_frame(table, Columns(models=["Naive"])).forecasts.predictions
    assert prediction.dtype == wanted
    assert prediction.tolist() == [1, 2]


@pytest.mark.parametrize("type_", [pa.float32(), pa.float64(), pa.int32(), pa.decimal128(5, 2)])
def test_a_null_is_a_missing_element(type_):
    column = pa.chunked_array([pa.array([None], type_), pa.array([2], type_)])
    table = pa.table({"unique_id": ["a", "a"], "ds": [1, 2], "y": [1.0, 2.0], "Naive": column})
    (prediction,) = read_frame(table, Columns(models=["Naive"])).forecasts.predictions
    np.testing.assert_array_equal(prediction, [np.nan, 2])


def test_what_lies_in_order_is_not_copied():
    table = pa.table({"unique_id": ["a", "a"], "ds": [1, 2], "y": [1.0, 2.0], "Naive": [3.0, 4.0]})
    forecasts = read_frame(table, Columns()).forecasts
    address = table["y"].chunk(0).buffers()[1].address
    assert forecasts.target.__array_interface__["data"][0] == address


def test_any_frame_with_an_arrow_stream():
    class Frame:
        def __arrow_c_stream__(self, requested_schema=None):
            return pa.table(LONG).__arrow_c_stream__(requested_schema)

    reading = read_frame(Frame(), Columns())
    assert as_lists(reading.forecasts, reading.forecasts.target) == [[1, 2], [3, 4], [5]]
    assert isinstance(write_frame(reading, answer_of(reading.forecasts)), pa.Table)


def polars_of(table):
    if any(pa.types.is_decimal256(type_) for type_ in table.schema.types):
        raise NotImplementedError
    return pl.DataFrame({name: pl.from_arrow(table[name]) for name in table.column_names})


KINDS_OF_CASES = {
    "pandas": pa.Table.to_pandas,
    "pandas-arrow": KINDS["pandas-arrow"],
    "polars": polars_of,
    "pyarrow": pa.table,
}


@pytest.mark.parametrize("make", KINDS_OF_CASES)
@pytest.mark.parametrize("case", model_columns.CASES, ids=model_columns.name_of)
def test_models_are_found_by_the_rule_of_the_service(case, make):
    try:
        df = KINDS_OF_CASES[make](model_columns.table_of(case))
    except (pa.ArrowException, NotImplementedError, pl.exceptions.PolarsError):
        pytest.skip(f"{make} has no such type")
    if isinstance(case.verdict, model_columns.Refused):
        with pytest.raises(InvalidInput) as caught:
            read_frame(df, Columns())
        assert all(part in str(caught.value) for part in case.verdict.says)
        with pytest.raises(InvalidInput) as caught:
            read_frame(df, Columns(models=[case.name]))
        assert all(part in str(caught.value) for part in case.verdict.says)
        assert read_frame(df, Columns(exclude=[case.name])).models.models == ("A",)
        return
    found = read_frame(df, Columns()).models
    if case.verdict == model_columns.MODEL:
        assert found.models == ("A", case.name)
        assert not found.left_out
    else:
        assert found.models == ("A",)
        ((name, reason),) = found.left_out
        assert name == case.name
        is_same = make == "pyarrow" or not case.verdict.startswith("holds")
        assert reason == case.verdict if is_same else reason.startswith("holds")


def test_rows_that_a_column_of_text_tells_apart_are_said_to_be_repeated():
    rows = {"unique_id": ["a", "a"], "ds": [1, 1], "y": [1.0, 2.0], "A": [1.0, 2.0]}
    df = pd.DataFrame({**rows, "store": ["1", "2"]})
    with pytest.raises(InvalidInput, match="duplicates") as caught:
        read_frame(df, Columns())
    assert "numbers as text" not in str(caught.value)
    with pytest.raises(InvalidInput, match="'store' holds numbers as text"):
        read_frame(df.assign(ds=[1, 2]), Columns())


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
@pytest.mark.parametrize(
    "make", [pa.table, pl.from_arrow, lambda table: table.to_pandas(types_mapper=pd.ArrowDtype)]
)
def test_both_zeros_are_one_id_and_so_is_every_nan(kind, make):
    nan, other_nan = np.array([0x7FC00000, 0xFFC00001], np.uint32).view(np.float32)
    ids = pa.array(np.array([-0.0, nan, 0.0, 1.0, other_nan], np.float32)).cast(kind)
    columns = {"unique_id": ids, "y": [1.0, 2.0, 3.0, 4.0, 5.0], "A": [0.0] * 5}
    reading = read_frame(make(pa.table(columns)), Columns(time=None))
    forecasts = reading.forecasts
    assert as_lists(forecasts, forecasts.target) == [[1, 3], [2, 5], [4]]
    frame = pa.table(write_frame(reading, answer_of(forecasts)))
    zero, nan, last = frame["unique_id"].to_pylist()
    assert (zero, math.copysign(1, zero), last) == (0, -1, 1)
    assert math.isnan(nan)
    pandas = pa.table(columns).to_pandas().groupby("unique_id", sort=False, dropna=False)
    assert [part["y"].tolist() for _, part in pandas] == [[1, 3], [2, 5], [4]]


def test_what_pandas_holds_as_missing_is_no_id():
    df = pd.DataFrame({"unique_id": [0.0, np.nan], "y": [1.0, 2.0], "A": [1.0, 2.0]})
    with pytest.raises(InvalidInput, match="'unique_id' is null in row 1"):
        read_frame(df, Columns(time=None))


def test_named_columns():
    columns = Columns("note", None, "Naive", None, ["y", "Theta", "y"])
    forecasts = read_frame(pl.DataFrame(LONG), columns).forecasts
    assert forecasts.models == ("y", "Theta")
    assert as_lists(forecasts, forecasts.target) == [LONG["Naive"]]


@pytest.mark.parametrize(
    ("change", "columns", "words"),
    [
        ({}, Columns(id="id"), "no column 'id'"),
        ({}, Columns(time="time"), "no column 'time'"),
        ({}, Columns(target="actual"), "no column 'actual'"),
        ({}, Columns(cutoff="fold"), "no column 'fold'"),
        ({}, Columns(models=["ETS"]), "no column 'ETS'"),
        ({}, Columns(models=[]), "models is empty"),
        ({}, Columns(models=["note"]), "'note' must hold numbers, not text, 'x'"),
        ({}, Columns(target="note"), "'note' must hold numbers"),
        ({"Naive": None, "Theta": None}, Columns(), "no column of predictions"),
        ({"unique_id": ["a", None, "b", None, "c"]}, Columns(), "'unique_id' is null in row 1"),
        ({"cutoff": [None, 1, 2, 3, 4]}, Columns(), "'cutoff' is null in row 0"),
        (
            {"ds": [1, 2, 3, 4, None]},
            Columns(),
            "'ds' is null in row 4, so the row has no time .*; fill it, or pass time_col=None",
        ),
    ],
)
def test_what_cannot_be_read_is_explained(kind, change, columns, words):
    content = {name: values for name, values in {**LONG, **change}.items() if values is not None}
    with pytest.raises(InvalidInput, match=words):
        read_frame(kind(content), columns)


DICTIONARY = pa.DictionaryArray.from_arrays([0, 0, 1, 0, 1], [7, None])
RUNS = pa.RunEndEncodedArray.from_arrays([2, 3, 5], [7, None, 8])


@pytest.mark.parametrize("column", ["unique_id", "ds", "cutoff"])
@pytest.mark.parametrize("values", [DICTIONARY, RUNS], ids=["dictionary", "runs"])
def test_a_null_among_encoded_values_is_found(column, values):
    assert values.null_count == 0
    table = pa.table({**LONG, column: values})
    with pytest.raises(InvalidInput, match=f"'{column}' is null in row 2"):
        read_frame(table, Columns())


@pytest.mark.parametrize("values", [DICTIONARY, RUNS], ids=["dictionary", "runs"])
def test_encoded_numbers_are_numbers(values):
    table = pa.table({**LONG, "y": values, "Naive": values, "ds": range(5)})
    forecasts = read_frame(table, Columns(models=["Naive"])).forecasts
    wanted = np.array(values.to_pylist(), float)[forecasts.rows]
    np.testing.assert_array_equal(forecasts.target, wanted)
    np.testing.assert_array_equal(forecasts.predictions[0], wanted)


@pytest.mark.parametrize("name", ["model", "length", "mae", "mape_masked", "smape_gradient"])
def test_names_that_the_answer_needs(name):
    df = pl.DataFrame(LONG).rename({"unique_id": name})
    with pytest.raises(InvalidInput, match=f"'{name}' too"):
        read_frame(df, Columns(id=name), ["mae", "mape", "smape"])


@pytest.mark.parametrize(
    "df", [[1, 2], {"y": [1.0]}, np.zeros((2, 2)), pl.DataFrame(LONG).lazy(), "a.parquet", None]
)
def test_what_is_no_frame(df):
    with pytest.raises(InvalidInput, match="a frame is wanted"):
        read_frame(df, Columns())


def test_two_columns_of_one_name():
    df = pd.DataFrame(LONG).rename(columns={"Theta": "Naive"})
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_frame(df, Columns())


def test_periods_of_pandas():
    days = pd.PeriodIndex(["2026-02", "2026-01", "2026-03"], freq="M")
    df = pd.DataFrame({"unique_id": days[[0, 1, 0]], "ds": days[::-1], "y": [1.0, 2, 3], "A": 0.0})
    reading = read_frame(df, Columns())
    forecasts = reading.forecasts
    assert as_lists(forecasts, forecasts.target) == [[3, 1], [2]]
    frame = write_frame(reading, answer_of(forecasts))
    assert frame["unique_id"].tolist() == days[:2].tolist()


def test_two_levels_of_an_index_with_one_name():
    df = pd.DataFrame(LONG).drop(columns="cutoff")
    df.index = pd.MultiIndex.from_arrays([LONG["cutoff"]] * 2, names=["cutoff", "cutoff"])
    with pytest.raises(InvalidInput, match="the index cannot be read"):
        read_frame(df, Columns())


def test_ids_of_mixed_types():
    with pytest.raises(
        InvalidInput, match=r"'unique_id' holds objects \(int, str\) of several types"
    ):
        read_frame(pd.DataFrame({**LONG, "unique_id": ["a", 1, "b", 2, "c"]}), Columns())


rows = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(0, 2),
        st.integers(0, 5),
        st.floats(-9, 9),
        st.floats(-9, 9),
    ),
    min_size=1,
    max_size=30,
)


@given(rows, st.sampled_from([pd.DataFrame, pl.DataFrame]))
def test_any_frame_is_read_as_pandas_groups_it(table, make):
    names = ["unique_id", "cutoff", "ds", "y", "Naive"]
    columns = {
        name: list(values) for name, values in zip(names, zip(*table, strict=True), strict=True)
    }
    reading = read_frame(make(columns), Columns(), duplicates="allow")
    wanted = [
        (key, part.sort_values("ds", kind="stable"))
        for key, part in pd.DataFrame(columns).groupby(["unique_id", "cutoff"], sort=False)
    ]
    forecasts = reading.forecasts
    assert [forecasts.key_of(i) for i in range(len(forecasts))] == [key for key, _ in wanted]
    for i, (target, prediction) in enumerate(
        zip(
            as_lists(forecasts, forecasts.target),
            as_lists(forecasts, forecasts.predictions[0]),
            strict=True,
        )
    ):
        part = wanted[i][1]
        assert (target, prediction) == (part["y"].tolist(), part["Naive"].tolist())
        assert [forecasts.row_of(i, at) for at in range(len(target))] == part.index.tolist()


@pytest.mark.parametrize(
    "ids",
    [
        pa.array(["b", "a", "b"], pa.string_view()),
        pa.array([b"b", b"a", b"b"], pa.binary_view()),
        pa.array(np.array([2, 1, 2], np.float16)),
        pc.run_end_encode(pa.array(["b", "a", "b"])),
    ],
    ids=lambda values: str(values.type),
)
def test_ids_and_cutoffs_of_any_type(ids):
    table = pa.table({"unique_id": ids, "cutoff": ids, "y": [1.0, 2.0, 3.0], "A": [1.0] * 3})
    reading = read_frame(table, Columns(time=None))
    forecasts = reading.forecasts
    assert as_lists(forecasts, forecasts.target) == [[1, 3], [2]]
    frame = write_frame(reading, answer_of(forecasts))
    assert frame["unique_id"].to_pylist() == frame["cutoff"].to_pylist() == ids.to_pylist()[:2]


def test_pandas_takes_no_rows_of_views():
    table = pa.table({"unique_id": pa.array(["a"], pa.string_view()), "y": [1.0], "A": [1.0]})
    with pytest.raises(InvalidInput, match=r"found by unique_id \(string_view\)"):
        read_frame(table.to_pandas(types_mapper=pd.ArrowDtype), Columns(time=None))


def test_keys_that_arrow_cannot_take_apart_are_refused_in_words():
    ids = pa.array([{"a": 1}, {"a": 2}])
    table = pa.table({"unique_id": [1, 2], "ds": ids, "y": [1.0, 2.0], "A": [1.0, 2.0]})
    with pytest.raises(InvalidInput, match="column 'ds' holds struct<a: int64>, which cannot"):
        read_frame(table, Columns())


def test_a_model_without_any_number_is_missing_throughout(kind):
    df = kind({**LONG, "Theta": [None] * 5})
    (prediction,) = read_frame(df, Columns(models=["Theta"])).forecasts.predictions
    np.testing.assert_array_equal(prediction, [np.nan] * 5)


def test_numbers_among_objects_are_read():
    df = pd.DataFrame({**LONG, "Theta": np.array([200, None, 1.5, 400, 500], object)})
    (prediction,) = read_frame(df, Columns(time=None, models=["Theta"])).forecasts.predictions
    np.testing.assert_array_equal(prediction, [200, 1.5, np.nan, 400, 500])


def test_half_is_read_where_narwhals_does_not_know_it(kind, monkeypatch):
    """As narwhals before 2.23, which is allowed: types are Arrow's."""
    half = np.array([1.0, 2.0], np.float16)
    df = kind({"unique_id": ["a", "a"], "ds": [1, 2], "y": half, "A": half, "B": [1.0, 2.0]})
    monkeypatch.setattr(nw.Series, "dtype", nw.Unknown())
    monkeypatch.setattr(nw.DataFrame, "schema", {name: nw.Unknown() for name in LONG})
    reading = read_frame(df, Columns())
    assert reading.models.models == ("A", "B")
    assert reading.forecasts.target.dtype == reading.forecasts.predictions[0].dtype == np.float32


def test_labels_that_are_no_strings_are_taken_as_text():
    frame = pd.DataFrame({"unique_id": ["a"], "y": [1.0], 0: [1.0], 0.1: [2.0], np.float64(0.9): 3})
    found = read_frame(frame, Columns(time=None)).models
    assert found.models == ("0",)
    assert found.left_out == (("0.1", "a quantile"), ("0.9", "a quantile"))
    named = read_frame(frame, Columns(time=None, models=["0.9"])).forecasts
    assert named.predictions[0].tolist() == [3]


def test_labels_that_are_the_same_text():
    frame = pd.DataFrame([["a", 1.0, 1.0, 2.0]], columns=["unique_id", "y", 0.1, "0.1"])
    with pytest.raises(InvalidInput, match=r"several columns of the frame have the name '0\.1'"):
        read_frame(frame, Columns(time=None))


def test_columns_of_several_levels():
    frame = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("y", ""), ("A", "mean")]))
    with pytest.raises(InvalidInput, match=r"columns of 2 levels, as \('y', ''\)"):
        read_frame(frame, Columns())


THETA = [11.0, 19.0]
OF_PANDAS = {
    "objects": np.array(THETA, object),
    "objects of several types": np.array([11, Decimal("19.0")], object),
    "floats and decimals": np.array([11.0, Decimal("19.0")], object),
    "numpy's scalars": np.array([np.float32(11), np.int8(19)], object),
    "sparse": pd.arrays.SparseArray(THETA),
    "sparse integers": pd.arrays.SparseArray([11, 19]),
    "big-endian": np.array(THETA, ">f8"),
    "big-endian integers": np.array(THETA, ">i2"),
    "long double": np.array(THETA, np.longdouble),
    "decimals": [Decimal("11.0"), Decimal("19.0")],
    "half": np.array(THETA, np.float16),
    "nullable integers": pd.array([11, 19], "Int16"),
    "nullable floats": pd.array(THETA, "Float32"),
    "arrow's decimals": pd.array([Decimal(11), Decimal(19)], pd.ArrowDtype(pa.decimal128(9, 2))),
    "categories": pd.Categorical(THETA),
    "fractions": np.array([Fraction(11), Fraction(19)], object),
    "large integers": np.array([11, 19 * 10**30], object),
}
OF_POLARS = {
    "decimals": pl.Series([11, 19], dtype=pl.Decimal(9, 2)),
    "objects": pl.Series(THETA, dtype=pl.Object),
    "integers of 128 bits": pl.Series([11, 19], dtype=pl.Int128),
    "more than 64 bits": pl.Series([11, 19 * 10**30], dtype=pl.Int128),
    "half": pl.Series(THETA, dtype=pl.Float32).cast(pl.Float16),
}
BASE = {"unique_id": ["a", "a"], "ds": [1, 2], "y": [10.0, 20.0], "Naive": [12.0, 18.0]}


@pytest.mark.parametrize("numbers", [*OF_PANDAS, *(f"polars {name}" for name in OF_POLARS)])
def test_numbers_of_any_python_type_are_models(numbers):
    _, is_polars, name = numbers.rpartition("polars ")
    make, values = (pl.DataFrame, OF_POLARS[name]) if is_polars else (pd.DataFrame, OF_PANDAS[name])
    reading = read_frame(make({**BASE, "Theta": values}), Columns())
    assert reading.models.models == ("Naive", "Theta")
    assert not reading.models.left_out
    theta = reading.forecasts.predictions[1]
    assert theta.tolist() == ([11, 19e30] if "64" in numbers or "large" in numbers else THETA)
    target = read_frame(make({**BASE, "y": values}), Columns()).forecasts.target
    assert target.tolist() == theta.tolist()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([True, 1.5], object), "holds objects (bool, float)"),
        (np.array([1.5, True], object), "holds objects (bool, float)"),
        (np.array([1 + 2j, 2]), "holds objects (complex)"),
        (np.array([True, None], object), "holds objects (bool)"),
        (pd.interval_range(0, 2), "holds extension<"),
        (np.array(["x", 1.0], object)[[0, 0]], "text"),
        (np.array(["x", object], object), "holds objects (str, type)"),
        (pd.Categorical(["x", "y"]), "text"),
        ([{"a": 1}, {"a": 2}], "holds objects (dict)"),
    ],
)
def test_what_pandas_holds_beside_numbers_is_left_out(values, reason):
    found = read_frame(pd.DataFrame({**BASE, "Theta": values}), Columns()).models
    assert found.models == ("Naive",)
    ((name, why),) = found.left_out
    assert name == "Theta"
    assert why.startswith(reason)
    with pytest.raises(InvalidInput, match="'Theta' must hold numbers, not"):
        read_frame(pd.DataFrame({**BASE, "Theta": values}), Columns(models=["Theta"]))


@pytest.mark.parametrize("column", ["y", "Theta"])
@pytest.mark.parametrize(
    "values", [np.array([1.5, "n/a"], object), pd.Categorical([1.5, "n/a"]), ["1.5", "n/a"]]
)
def test_numbers_among_text_are_an_error(column, values):
    for columns in (Columns(models=["Theta"]), Columns()):
        with pytest.raises(
            InvalidInput, match=f"column '{column}' holds numbers, but 'n/a' in row 1 is text"
        ) as caught:
            read_frame(pd.DataFrame({**BASE, "Theta": [1.0, 2.0], column: values}), columns)
        is_chosen = column == "y" or columns.models
        assert ("exclude" in str(caught.value)) is not bool(is_chosen)


@pytest.mark.parametrize("make", [pa.table, pd.DataFrame, pl.DataFrame])
def test_lists_of_numbers_are_to_be_exploded(make):
    frame = make({"unique_id": ["a"], "ds": [1], "y": [[1.0, 2.0]], "A": [[1.0, 2.0]]})
    with pytest.raises(InvalidInput, match=r"'y' must hold numbers, not .*list.*; .* explode"):
        read_frame(frame, Columns(models=["A"]))


def test_columns_of_no_rows_have_any_type():
    names = ["unique_id", "cutoff", "ds", "y", "A"]
    for make in (pd.DataFrame, pl.DataFrame, pa.table):
        frame = make({name: [] for name in names})
        reading = read_frame(frame, Columns())
        assert (len(reading.forecasts), reading.models.models) == (0, ("A",))
        assert len(write_frame(reading, answer_of(reading.forecasts))) == 0


class Lazy:
    """As dask's and Spark's frames are."""

    def compute(self):
        """Return a frame."""


@pytest.mark.parametrize(
    ("df", "words"),
    [
        (pl.DataFrame(LONG).lazy(), r"not LazyFrame; call its collect\(\) first"),
        (Lazy(), r"not Lazy; call its compute\(\) first"),
        (Path("a.parquet"), "not PosixPath; read the file first"),
        ([{"y": 1.0}], "not list; make a frame of it, or call score_series"),
        (pd.DataFrame(LONG).groupby("unique_id"), "not DataFrameGroupBy$"),
    ],
)
def test_what_is_no_frame_has_a_way_out(df, words):
    with pytest.raises(InvalidInput, match=words):
        read_frame(df, Columns())


def test_what_is_excluded_is_no_model_and_not_reported():
    frame = pl.DataFrame(LONG)
    found = read_frame(frame, Columns(exclude=["Theta", "note", "flag"])).models
    assert found.models == ("Naive",)
    assert [name for name, _ in found.left_out] == ["Naive-lo-90", "Naive-hi-97.5"]
    assert str(found) == (
        "scored as models: Naive; left out: 'Naive-lo-90' (a bound of a prediction interval), "
        "'Naive-hi-97.5' (a bound of a prediction interval)"
    )
    with pytest.raises(InvalidInput, match=r"no column 'theta' among .*; did you mean 'Theta'\?"):
        read_frame(frame, Columns(exclude=["theta"]))
    with pytest.raises(InvalidInput, match="exclude is for models that nobody names"):
        Columns(models=["Naive"], exclude=["Theta"])


def test_many_columns_are_counted_in_a_message():
    table = pa.table({"unique_id": ["a"], "y": [1.0], **{f"A-lo-{n}": [1.0] for n in range(30)}})
    with pytest.raises(InvalidInput, match=r"'A-lo-19' \(.*\) and 10 more; name the models"):
        read_frame(table, Columns(time=None))


UUIDS = [uuid.UUID(int=1 + row // 3) for row in range(6)]


class Plain:
    """Equal only to itself."""


@pytest.mark.parametrize("column", ["unique_id", "cutoff"])
@pytest.mark.parametrize(
    "make",
    [
        pd.DataFrame,
        pl.DataFrame,
        lambda columns: pd.DataFrame(columns).set_index("unique_id"),
        lambda columns: pa.table(pd.DataFrame(columns)),
    ],
    ids=["pandas", "polars", "index", "pyarrow"],
)
def test_uuids_are_grouped_by_value(make, column):
    columns = {"unique_id": ["x"] * 6, "ds": [0, 1, 2] * 2, "y": [0.0] * 6, "A": np.arange(6.0)}
    frame = make({**columns, column: UUIDS})
    reading = read_frame(frame, Columns())
    assert as_lists(reading.forecasts, reading.forecasts.predictions[0]) == [[0, 1, 2], [3, 4, 5]]
    assert (
        getattr(reading.forecasts.key_of(1), "id" if column == "unique_id" else column) == UUIDS[3]
    )
    assert len(write_frame(reading, answer_of(reading.forecasts))) == 2


OF_SEVERAL_TYPES = {
    "text and integers": (np.array(["1", 1] * 3, object), "int, str"),
    "dates and times": (
        np.array([dt.date(2024, 1, 1), dt.datetime(2024, 1, 1, 5)] * 3, object),  # noqa: DTZ001
        "date, datetime",
    ),
    "categories": (pd.Categorical(["1", 1] * 3), "int, str"),
    "truth values and integers": (np.array([True, 1, 2] * 2, object), "bool, int"),
}


@pytest.mark.parametrize("column", ["unique_id", "cutoff", "ds"])
@pytest.mark.parametrize("what", OF_SEVERAL_TYPES)
def test_objects_of_several_types_are_refused_by_their_types(column, what):
    values, types = OF_SEVERAL_TYPES[what]
    columns = {"unique_id": list("aaabbb"), "ds": [0, 1, 2] * 2, "y": [0.0] * 6, "A": [1.0] * 6}
    words = rf"column '{column}' holds objects \({types}\) of several types; convert them to one"
    frame = pd.DataFrame({**columns, column: values})
    for each in (frame, frame.set_index(column)):
        with pytest.raises(InvalidInput, match=words):
            read_frame(each, Columns())


PERIODS = pd.Categorical(pd.period_range("2026-01-01", periods=3, freq="D")[[2, 1, 0] * 2])


@pytest.mark.parametrize("column", ["unique_id", "cutoff", "ds"])
def test_categories_of_periods_are_compared_as_periods(column):
    columns = {"unique_id": list("aaabbb"), "ds": [0, 1, 2] * 2, "y": [0.0] * 6}
    frame = pd.DataFrame({**columns, "A": np.arange(6.0), column: PERIODS})
    found = []
    for each in (frame, frame.astype({column: "period[D]"}), frame.set_index(column)):
        reading = read_frame(each, Columns(), duplicates="allow")
        forecasts = reading.forecasts
        keys = [forecasts.key_of(series) for series in range(len(forecasts))]
        found.append((as_lists(forecasts, forecasts.predictions[0]), keys))
        assert len(write_frame(reading, answer_of(forecasts))) == len(forecasts)
    assert found[0] == found[1] == found[2]
    if column == "ds":
        assert found[0][0] == [[2, 1, 0], [5, 4, 3]]


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        (np.array([2.0, 1.0]), [2.0, 1.0]),
        (np.array([2, 1], np.int16), [2, 1]),
        (np.array([np.int64(2), np.int64(1)], object), [2, 1]),
        (np.array([True, False]), [True, False]),
        (pd.array([2, 1], "Int64"), [2, 1]),
    ],
    ids=["floats", "integers", "objects", "truth values", "nullable"],
)
def test_ids_are_named_as_python_writes_them(ids, wanted):
    frame = pd.DataFrame({"unique_id": ids, "ds": [1, 1], "y": [0.0, 0.0], "A": [1.0, 2.0]})
    for each in (frame, pl.from_pandas(frame)):
        forecasts = read_frame(each, Columns()).forecasts
        assert repr([forecasts.key_of(0).id, forecasts.key_of(1).id]) == repr(wanted)


BY_NAME = {
    "objects of a class": np.array([Plain() for _ in range(6)], object),
    "nanoseconds among objects": pd.Series(
        [pd.Timestamp(1, unit="ns"), pd.Timestamp(2)] * 3, dtype=object
    ),
    "tuples": pd.Series([(1, 2), (3, 4)] * 3),
    "dictionaries": pd.Series([{"a": 1}, {"a": 2}] * 3),
    "intervals": pd.interval_range(0, 6),
    "categories of intervals": pd.cut(range(6), [-1, 2, 6]),
    "arrow's categories of intervals": pa.array(pd.cut(range(6), [-1, 2, 6])),
    "sets": pd.Series([frozenset([1]), frozenset([2])] * 3),
    "large integers": np.array([10**30, 1] * 3, object),
    "polars objects": pl.Series([Plain() for _ in range(6)], dtype=pl.Object),
    "polars structs": pl.Series([{"a": 1}, {"a": 2}] * 3),
    "polars lists": pl.Series([[1], [2]] * 3),
    "polars arrays": pl.Series([[1], [2]] * 3, dtype=pl.Array(pl.Int8, 1)),
    "arrow's unions": pa.UnionArray.from_sparse(
        pa.array([0] * 6, pa.int8()), [pa.array(range(6)), pa.array(["x"] * 6)]
    ),
}


@pytest.mark.parametrize("column", ["unique_id", "cutoff", "ds"])
@pytest.mark.parametrize("what", BY_NAME)
def test_what_cannot_be_compared_is_refused_by_name(column, what):
    make = pl.DataFrame if "polars" in what else pa.table if "arrow" in what else pd.DataFrame
    columns = {"unique_id": list("aaabbb"), "ds": [0, 1, 2] * 2, "y": [0.0] * 6, "A": [1.0] * 6}
    frame = make({**columns, column: BY_NAME[what]})
    words = f"column '{column}' holds .*, which cannot be compared by value; convert it to text"
    with pytest.raises(InvalidInput, match=words):
        read_frame(frame, Columns())
    if make is pd.DataFrame and "nanoseconds" not in what:  # an index makes times of them
        with pytest.raises(InvalidInput, match=words):
            read_frame(frame.set_index(column), Columns())


@pytest.mark.parametrize("ordered", [True, False])
def test_repeated_rows_are_named(kind, ordered):
    columns = {
        "unique_id": ["a", "a", "b", "b", "b"],
        "ds": [dt.datetime(2026, 1, day) for day in (1, 2, 1, 1, 2)],  # noqa: DTZ001
        "y": [1.0] * 5,
        "A": [2.0] * 5,
    }
    if not ordered:
        columns = {name: [values[i] for i in (2, 4, 1, 0, 3)] for name, values in columns.items()}
    rows = "2 and 3" if ordered else "0 and 4"
    words = rf"series 'b' has ds 2026-01-01 00:00:00 twice, in rows {rows}; .* cutoff_col, or allow"
    with pytest.raises(InvalidInput, match=words):
        read_frame(kind(columns), Columns())
    forecasts = read_frame(kind(columns), Columns(), duplicates="allow").forecasts
    assert sorted(np.diff(forecasts.offsets)) == [2, 3]
    assert len(read_frame(kind(columns), Columns(time=None)).forecasts) == 2


def test_a_frame_concatenated_with_itself():
    frame = pd.concat([pd.DataFrame(LONG)] * 2)
    words = (
        r"series 'b' at cutoff 2025-12-30 00:00:00 has ds .* twice, in rows 0 and 5, the first of 5"
    )
    with pytest.raises(InvalidInput, match=words):
        read_frame(frame, Columns())


LATE = {
    "a nanosecond": (pa.scalar(1, pa.int64()), pa.timestamp("ns"), "1970-01-01T00:00:00.000000001"),
    "the year 3000": (pa.scalar(376_200, pa.int32()), pa.date32(), "3000-01-01"),
    "the year 33658": (pa.scalar(10**12, pa.int64()), pa.timestamp("s"), "33658-09-27T01:46:40"),
    "in microseconds": (pa.scalar(9 * 10**18), pa.timestamp("us"), "287168-08-24T16:00:00"),
    "a date": (pa.scalar(10**7, pa.int32()), pa.date32(), "29349-01-26"),
    "a zone": (pa.scalar(10**12), pa.timestamp("s", "Europe/Rome"), "33658-09-27T01:46:40"),
}


@pytest.mark.parametrize("make", KINDS_OF_CASES)
@pytest.mark.parametrize("name", LATE)
def test_any_cutoff_has_a_name(make, name):
    value, type_, text = LATE[name]
    cutoff = pa.array([value.as_py()] * 2, value.type).cast(type_)
    try:
        df = KINDS_OF_CASES[make](pa.table({**BASE, "cutoff": cutoff}))
    except (pa.ArrowException, OverflowError, ValueError):
        pytest.skip(f"{make} has no such time")
    reading = read_frame(df, Columns())
    found = reading.forecasts.key_of(0).cutoff
    assert str(found).replace(" ", "T").removesuffix("+00:00").startswith(text[:19]), repr(found)
    if name == "a nanosecond":
        assert found == pd.Timestamp(1, unit="ns")
    assert len(write_frame(reading, answer_of(reading.forecasts))) == 1
    twice = pa.concat_tables([pa.table({**BASE, "cutoff": cutoff}).slice(0, 1)] * 2)
    with pytest.raises(InvalidInput, match=text[:10]):
        read_frame(KINDS_OF_CASES[make](twice), Columns())
