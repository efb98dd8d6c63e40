from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lossclient import InvalidInput
from lossclient.series import Scores, read_series, scores_of


@pytest.mark.parametrize(
    ("prediction", "target"),
    [
        ([[1, 2], [3.5]], [[1.0, 2.0], [3]]),
        ([np.array([1, 2]), np.array([3.5])], [[1, 2], [3]]),
        (([1, 2], (3.5,)), ([1, 2], (3,))),
        (iter([[1, 2], [3.5]]), iter([[1, 2], [3]])),
        (np.array([np.array([1, 2]), np.array([3.5])], object), [[1, 2], [3]]),
    ],
)
def test_series_of_any_make(prediction, target):
    forecasts, ids = read_series(prediction, target)
    assert forecasts.offsets.tolist() == [0, 2, 3]
    assert forecasts.predictions[0].tolist() == [1, 2, 3.5]
    assert forecasts.target.tolist() == [1, 2, 3]
    assert ids.tolist() == [0, 1]
    assert forecasts.row_of(0, 1) is None


@given(
    st.integers(0, 4).flatmap(
        lambda n: st.lists(
            hnp.arrays(np.float64, hnp.array_shapes(max_dims=2, max_side=4)), min_size=n, max_size=n
        )
    )
)
def test_channels_are_read_row_by_row(series):
    forecasts, _ = read_series([array.tolist() for array in series], series)
    flat = [value for array in series for value in array.ravel().tolist()]
    np.testing.assert_array_equal(forecasts.target, np.array(flat, float))
    np.testing.assert_array_equal(forecasts.predictions[0], np.array(flat, float))
    assert np.diff(forecasts.offsets).tolist() == [array.size for array in series]


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        (np.array([1.5, 2.5]), [1.5, 2.5]),
        ([np.int64(1), "a"], [1, "a"]),
        (np.array(["2026-01-31"] * 2, "M8[ns]"), [np.datetime64("2026-01-31", "ns")] * 2),
    ],
)
def test_ids_are_named_as_python_writes_them(ids, wanted):
    forecasts, _ = read_series([[1.0], [2.0]], [[1.0], [2.0]], ids)
    assert repr([forecasts.key_of(series).id for series in range(2)]) == repr(wanted)


def test_the_rows_of_an_array_are_series():
    grid = np.arange(6, dtype=np.float32).reshape(3, 2)
    forecasts, _ = read_series(grid, grid)
    assert forecasts.offsets.tolist() == [0, 2, 4, 6]
    assert forecasts.target.dtype == np.float32
    cube = np.arange(12).reshape(2, 3, 2)
    forecasts, _ = read_series(cube, cube)
    assert forecasts.offsets.tolist() == [0, 6, 12]
    assert forecasts.target.dtype == np.float64


@given(
    hnp.arrays(
        st.sampled_from([np.float64, np.float32, np.float16, np.int32]),
        hnp.array_shapes(min_dims=2, max_dims=3, max_side=4),
    )
)
def test_an_array_is_read_as_the_list_of_its_rows(grid):
    at_once, _ = read_series(grid, grid[::-1])
    one_by_one, _ = read_series(list(grid), list(grid[::-1]))
    assert at_once.offsets.tolist() == one_by_one.offsets.tolist()
    np.testing.assert_array_equal(at_once.target, one_by_one.target)
    np.testing.assert_array_equal(at_once.predictions[0], one_by_one.predictions[0])
    if len(grid):
        assert at_once.target.dtype == one_by_one.target.dtype


def one_by_one(side):
    """Read series as they are said to be read: each by itself, in float32 if that holds all."""
    arrays = [np.array(raw, object) if isinstance(raw, list | tuple) else raw for raw in side]
    types = {array.dtype.newbyteorder("=") for array in arrays}
    narrow = types and types <= set(map(np.dtype, ("f2", "f4", "i1", "u1", "i2", "u2")))
    flat = [value for array in arrays for value in array.ravel().tolist()]
    return np.array(flat, np.float32 if narrow else np.float64), [array.size for array in arrays]


arrays_of = hnp.arrays(
    st.sampled_from(["f2", "f4", "f8", ">f4", "i1", "u8", "i8"]),
    hnp.array_shapes(max_dims=2, max_side=4),
)
lists_of = st.lists(st.floats() | st.integers(-(2**70), 2**70) | st.none(), min_size=1, max_size=4)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@given(
    st.lists(arrays_of, max_size=5)
    | st.lists(lists_of, max_size=5)
    | st.lists(arrays_of | lists_of)
)
def test_series_read_at_once_are_those_read_one_by_one(side):
    flat, lengths = one_by_one(side)
    forecasts, _ = read_series(side, tuple(side))
    for found in (forecasts.predictions[0], forecasts.target):
        np.testing.assert_array_equal(found, flat)
        assert found.dtype == flat.dtype
    assert np.diff(forecasts.offsets).tolist() == lengths


@pytest.mark.parametrize("series", [np.zeros(3), [1.0, None, 2]])
def test_a_hundred_thousand_series_are_read_without_a_python_loop(series, monkeypatch):
    monkeypatch.delattr("lossclient.series._array")
    forecasts, _ = read_series([series] * 100_000, [series] * 100_000)
    assert len(forecasts) == 100_000


def test_float32_stays_only_if_all_is():
    narrow, wide = np.ones(2, np.float32), np.ones(2)
    forecasts, _ = read_series([narrow, narrow.astype(np.float16)], [narrow, wide])
    assert forecasts.predictions[0].dtype == np.float32
    assert forecasts.target.dtype == np.float64


SMALL = ("f2", "f4", ">f4", "i1", "u1", "i2", ">u2")


@pytest.mark.parametrize("wrap", [list, np.asarray])
@pytest.mark.parametrize("kind", [*SMALL, "i4", "u4", "i8", "u8", "f8", ">f8", "g"])
def test_numbers_are_held_in_the_narrowest_float(kind, wrap):
    numbers = wrap(np.ones((2, 3), kind))
    narrow = np.float32 if kind in SMALL else np.float64
    forecasts, _ = read_series(numbers, numbers)
    assert forecasts.predictions[0].dtype == forecasts.target.dtype == narrow
    forecasts, _ = read_series(numbers, wrap(np.ones((2, 3), "f4")))
    assert forecasts.predictions[0].dtype == narrow
    wide = np.float32 if kind in ("f2", "f4", ">f4") else np.float64
    forecasts, _ = read_series(numbers, np.ones((2, 3)))
    assert forecasts.predictions[0].dtype == wide


@pytest.mark.parametrize(
    "side",
    [
        [[Decimal("1.5"), 2]],
        [[Fraction(3, 2), Decimal(2)]],
        [[np.float32(1.5), 2]],
        np.array([[1.5, Decimal(2)]], object),
        [pd.Series([1.5, 2], dtype="Float64")],
        [pd.Series([Decimal("1.5"), Decimal(2)], dtype=pd.ArrowDtype(pa.decimal128(9, 2)))],
        pd.Series([[1.5, 2]]),
        pl.Series([[1.5, 2]]),
        [pl.Series([1.5, 2])],
        pa.array([[1.5, 2]]),
        pa.chunked_array([[[1.5, 2]]]),
        pa.array([[1.5, 2]], pa.list_(pa.float32(), 2)),
        ((1.5, 2),),
    ],
    ids=lambda side: f"{type(side).__name__} of {type(next(iter(side))).__name__}",
)
def test_numbers_of_any_type_and_make(side):
    forecasts, _ = read_series(side, side)
    assert forecasts.predictions[0].tolist() == forecasts.target.tolist() == [1.5, 2]


@pytest.mark.parametrize(
    "side",
    [
        [[1.5, None]],
        [[Decimal("1.5"), None]],
        [[1.5, pd.NA]],
        [[np.float32(1.5), None]],
        [pd.Series([1.5, None], dtype="Float32")],
        [pl.Series([1.5, None])],
        pa.array([[1.5, None]]),
        np.array([[1.5, None]], object),
    ],
    ids=lambda side: f"{type(side).__name__} of {type(next(iter(side))).__name__}",
)
def test_what_is_null_is_missing(side):
    forecasts, _ = read_series(side, [[1, 2]])
    np.testing.assert_array_equal(forecasts.predictions[0], [1.5, np.nan])


def test_nested_lists_of_arrow():
    forecasts, _ = read_series(pa.array([[[1, 2], [3, 4]]]), np.arange(4).reshape(1, 2, 2))
    assert forecasts.predictions[0].tolist() == [1, 2, 3, 4]


def test_a_number_beyond_floats_is_infinite():
    forecasts, _ = read_series([[10**400, -(10**400)]], [[1, 1]])
    assert forecasts.predictions[0].tolist() == [np.inf, -np.inf]


def test_none_is_missing():
    forecasts, _ = read_series([[1.0, None]], [[None, 2]])
    np.testing.assert_array_equal(forecasts.predictions[0], [1, np.nan])
    np.testing.assert_array_equal(forecasts.target, [np.nan, 2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_what_is_masked_is_missing(dtype):
    masked = np.ma.array(np.array([[1, 99], [3, 4]], dtype), mask=[[0, 1], [0, 0]])
    for side in (masked, list(masked), [masked[0], [3, 4]]):
        forecasts, _ = read_series(side, np.ones((2, 2)))
        np.testing.assert_array_equal(forecasts.predictions[0], [1, np.nan, 3, 4])
    forecasts, _ = read_series([list(masked)], np.ones((1, 2, 2)))  # of two components
    np.testing.assert_array_equal(forecasts.predictions[0], [1, np.nan, 3, 4])
    forecasts, _ = read_series(masked, masked)
    assert forecasts.target.dtype == (np.float32 if dtype == np.float32 else np.float64)


def test_ids_of_several_types_stay_what_they_are():
    forecasts, ids = read_series([[1], [2]], [[1], [2]], ids=["1", 1])
    assert ids.tolist() == ["1", 1]
    assert [forecasts.key_of(i).id for i in (0, 1)] == ["1", 1]
    _, ids = read_series([[1], [2]], [[1], [2]], ids=[np.int64(1), 2])
    assert ids.dtype == np.int64


class Tensor:
    """Like torch's, in a graph or of a type that numpy lacks."""

    def __init__(self, error):
        self.error = error

    def __array__(self, dtype=None, copy=None):
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("requires grad"), TypeError("BFloat16")])
def test_tensors_that_numpy_cannot_read(error):
    with pytest.raises(InvalidInput, match=f"prediction of series 0 .*{error}"):
        read_series([Tensor(error)], [[1.0]])


def test_ids_are_given_back():
    forecasts, ids = read_series([[1], [2]], [[1], [2]], ids=["a", "b"])
    assert ids.tolist() == ["a", "b"]
    assert forecasts.key_of(1) == ("b", None)
    assert type(forecasts.key_of(1).id) is str
    forecasts, _ = read_series([[1]], [[1]], ids=np.array([5]))
    assert type(forecasts.key_of(0).id) is int
    forecasts, _ = read_series([[1]], [[1]], ids=np.array(["x"], object))
    assert forecasts.key_of(0).id == "x"


@pytest.mark.parametrize(
    ("prediction", "target", "ids", "words"),
    [
        ([[1], [2]], [[1]], None, "2 series, target 1"),
        ([[1, 2]], [[1]], None, r"series 0 differs in shape: prediction \[2\], target \[1\]"),
        (np.ones((2, 2)), np.ones((2, 3)), None, "differs in shape"),
        (np.ones((1, 2, 3)), np.ones((1, 3, 2)), None, "differs in shape"),
        ([1.0, 2.0], [1.0, 2.0], None, "prediction of series 0 must hold numbers"),
        (np.ones(3), np.ones(3), None, "1 dimensions"),
        ([["1.5"]], [[1.5]], None, "must hold numbers"),
        ([[True]], [[1]], None, "must hold numbers, not bool"),
        ([[1, True, None]], [[1, 1, 1]], None, r"must hold numbers, not objects \(bool, int\)"),
        ([[1 + 2j]], [[1]], None, "must hold numbers"),
        ([[[1, 2], [3]]], [[[1, 2], [3]]], None, "not a regular array"),
        ([[1], [1, 2]], [[1], [1]], ["a", "b"], "series 'b' differs in shape"),
        (
            [[1], ["x"]],
            [[1], [1]],
            ["a", "b"],
            r"prediction of series 'b' must hold .* text \('x'\)",
        ),
        ([[1.5, "x"]], [[1, 1]], None, r"must hold numbers, not text \('x'\)"),
        ([[1], [1.5, "x"]], [[1]], ["a"], r"prediction of series 1 must hold numbers"),
        (
            [[[1, 2], [3]]],
            [[[1, 2], [3]]],
            ["a"],
            "series 'a' is not .*: its rows differ in length",
        ),
        (
            [1.0, 2.0],
            [1.0, 2.0],
            None,
            r"not be 1\.0; a single series is a list with one list in it",
        ),
        ([None, [1.0]], [[1.0], [1.0]], None, "not be None$"),
        (["abc"], [[1.0]], None, "prediction of series 0 must hold numbers, not be 'abc'$"),
        (np.array(5.0), [[1]], None, "an array of 0 dimensions has none"),
        (np.ones(3), np.ones(3), None, r"for a single series write \[prediction\]"),
        ({"a": [1.0]}, [[1.0]], None, "must be a list of series, not dict"),
        ({(1.0,)}, [[1.0]], None, "must be a list of series, not set"),
        (
            pd.DataFrame({"A": [1.0]}),
            [[1.0]],
            None,
            r"not a frame \(DataFrame\); score takes frames",
        ),
        ([[1.0]], pl.DataFrame({"A": [1.0]}), None, r"target must be .* not a frame \(DataFrame\)"),
        (pl.LazyFrame({"A": [1.0]}), [[1.0]], None, r"not a frame \(LazyFrame\)"),
        (pa.table({"A": [1.0]}), [[1.0]], None, r"not a frame \(Table\)"),
        (pd.Series([1.0, 2.0]), [[1.0]], None, "not be 1.0; a single series"),
        (pa.array([[1.0], None]), [[1.0], [1.0]], None, "prediction of series 1 .* not be None"),
        (np.array([["a"]]), [[1]], None, r"not text \('a'\)"),
        ([[np.datetime64(1, "D")]], [[1]], None, "must hold numbers, not datetime64"),
        ([[object()]], [[1]], None, r"must hold numbers, not objects \(object\)"),
        ("12", [[1]], None, "must be a list of series, not str"),
        (5, [[1]], None, "must be a list of series, not int"),
        ([[1.0], [True]], [[1], [1]], None, "of series 1 must hold numbers, not bool"),
        ([[1.0, None], [1.0, True, None]], [[1, 1]], None, "of series 1 must hold numbers"),
        ([np.ones(2), np.array(1.0)], [[1, 2], [1]], None, "of series 1 must hold numbers"),
        ([np.ones(2), np.array([True])], [[1, 2], [1]], None, "of series 1 must hold numbers, not"),
        ([np.ones(2), np.array(["1"])], [[1, 2], [1]], None, "of series 1 must hold numbers, not"),
        ([[1], None], [[1], [1]], None, "of series 1 must hold numbers"),
        ([[1], []], [[1], []], ["a", "b"], "series 'b' is empty"),
        ([np.ones(1), np.ones((2, 0))], [[1], np.ones((2, 0))], None, "series 1 is empty"),
        (np.ones((3, 0)), np.ones((3, 0)), None, "series 0 is empty"),
        ([[1]], [[1]], ["a", "b"], "one a series"),
        ([[1]], [[1]], [["a"]], "one a series"),
    ],
)
def test_what_cannot_be_read_is_explained(prediction, target, ids, words):
    with pytest.raises(InvalidInput, match=words):
        read_series(prediction, target, ids)


def test_scores_are_arrays():
    first = pa.table(
        {
            "length": [2],
            "mae": [1.0],
            "mape": pa.array([None], pa.float64()),
            "mape_masked": [2],
            "mae_gradient": pa.array([[0.5, -0.5]], pa.large_list(pa.float32())),
        }
    )
    last = first.set_column(4, "mae_gradient", pa.array([[1.0, 0.0]], pa.large_list(pa.float32())))
    scores = scores_of(pa.concat_tables([first, last]), np.array(["a", "b"]))
    assert scores.lengths.tolist() == [2, 2]
    assert scores.losses["mae"].tolist() == [1, 1]
    np.testing.assert_array_equal(scores.losses["mape"], [np.nan, np.nan])
    assert scores.masked["mape"].tolist() == [2, 2]
    assert scores.gradients["mae"].dtype == np.float32
    assert [gradient.tolist() for gradient in scores.split("mae")] == [[0.5, -0.5], [1, 0]]
    assert scores.split("mae")[0].base is not None


def scores(count):
    lengths = np.arange(count) % 3 + 1
    flat = np.arange(lengths.sum(), dtype=np.float32)
    losses = {"mae": np.arange(count) / 2, "mape": np.full(count, np.nan)}
    ids = np.array([f"<b>{i}" for i in range(count)])
    return Scores(ids, lengths, losses, {"mape": lengths}, {"mae": flat})


def test_scores_are_frames_of_all_libraries():
    made = scores(5)
    table = made.to_arrow()
    assert table.column_names == ["id", "length", "mae", "mape", "mape_masked", "mae_gradient"]
    assert table["id"].to_pylist() == made.ids.tolist()
    assert [row.tolist() for row in made.split("mae")] == table["mae_gradient"].to_pylist()
    assert table.schema.field("mae_gradient").type == pa.large_list(pa.float32())
    frame, polars = made.to_pandas(), made.to_polars()
    pd.testing.assert_frame_equal(frame, table.to_pandas())
    assert isinstance(polars, pl.DataFrame)
    assert polars.to_arrow()["mae"].to_pylist() == made.losses["mae"].tolist()
    assert scores(0).to_arrow().num_rows == 0


def test_a_notebook_shows_the_first_scores():
    assert scores(20)._repr_html_().count("<tr>") == 21
    page = scores(21)._repr_html_()
    assert page.count("<tr>") == 21
    assert "the first 20 of 21 series" in page
    assert "<td>&lt;b&gt;19</td>" in page
    assert "<b>" not in page
