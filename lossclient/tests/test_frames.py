"""From a frame to series and back, in every kind of frame."""

import datetime as dt
import math
from decimal import Decimal

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


def test_columns_of_nixtla_are_no_models_where_others_stand_for_them(kind):
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
    assert [list(one) for one in table["mae_gradient"].to_pylist()] == [[0], [1]] * 3
    assert pa.table(df)["cutoff"].type == table["cutoff"].type
    assert [day.day for day in table["cutoff"].to_pylist()] == [30, 30, 30, 30, 31, 31]


def test_without_cutoff(kind):
    columns = {name: LONG[name] for name in ("unique_id", "ds", "y", "Theta")}
    reading = read_frame(kind(columns), Columns())
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
    assert read_frame(pd.DataFrame(LONG), columns).forecasts.models == ("Naive", "Theta")


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
    ids_of = [one["unique_id"] for one in pa.table(frame).to_pylist()]
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


def test_models_are_all_other_floats_and_integers():
    types = {
        "half": pa.float16(),
        "float": pa.float32(),
        "int": pa.int8(),
        "unsigned": pa.uint64(),
        "bool": pa.bool_(),
        "decimal": pa.decimal128(5, 2),
        "text": pa.string(),
        "date": pa.date32(),
        "null": pa.null(),
    }
    table = pa.table({"unique_id": [1], "ds": [1], "cutoff": [0], "y": [1]})
    for name, type_ in types.items():
        table = table.append_column(name, pa.nulls(1, type_))
    assert read_frame(table, Columns()).forecasts.models == ("half", "float", "int", "unsigned")


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
    zero, nan, one = frame["unique_id"].to_pylist()
    assert (zero, math.copysign(1, zero), one) == (0, -1, 1)
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
        ({}, Columns(models=["note"]), "'note' must hold numbers"),
        ({}, Columns(target="note"), "'note' must hold numbers"),
        ({"Naive": None, "Theta": None}, Columns(), "no column of predictions"),
        ({"unique_id": ["a", None, "b", None, "c"]}, Columns(), "'unique_id' is null in row 1"),
        ({"cutoff": [None, 1, 2, 3, 4]}, Columns(), "'cutoff' is null in row 0"),
        ({"ds": [1, 2, 3, 4, None]}, Columns(), "'ds' is null in row 4"),
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


@pytest.mark.parametrize("column", ["y", "Naive"])
@pytest.mark.parametrize("values", [DICTIONARY, RUNS], ids=["dictionary", "runs"])
def test_encoded_numbers_are_refused(column, values):
    with pytest.raises(InvalidInput, match=f"'{column}' must hold numbers"):
        read_frame(pa.table({**LONG, column: values}), Columns(models=["Naive"]))


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


def test_a_column_that_stands_twice():
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
    with pytest.raises(InvalidInput, match="cannot be read"):
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
    reading = read_frame(make(columns), Columns())
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
    with pytest.raises(
        InvalidInput, match=r"found by unique_id \(int64\), ds \(struct<a: int64>\)"
    ):
        read_frame(table, Columns())


def test_a_model_without_any_number_is_missing_throughout(kind):
    df = kind({**LONG, "Theta": [None] * 5})
    (prediction,) = read_frame(df, Columns(models=["Theta"])).forecasts.predictions
    np.testing.assert_array_equal(prediction, [np.nan] * 5)


def test_numbers_among_objects_are_read():
    df = pd.DataFrame({**LONG, "Theta": np.array([200, None, 1.5, 400, 500], object)})
    (prediction,) = read_frame(df, Columns(time=None, models=["Theta"])).forecasts.predictions
    np.testing.assert_array_equal(prediction, [200, 1.5, np.nan, 400, 500])


def test_names_that_are_no_strings_are_refused_in_words():
    frame = pd.DataFrame({"unique_id": ["a"], "y": [1.0], 0: [1.0]})
    with pytest.raises(InvalidInput, match="must be strings, not 0"):
        read_frame(frame, Columns(time=None))
