"""Elements pooled by other columns, against pandas and darts' formulas a step."""

import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from loss_scoring.core.table import (
    NullKeyError,
    TableError,
    break_down,
    group_rows,
    score_table,
)

MODELS = ["SeasonalNaive", "Theta"]


@pytest.fixture(scope="module")
def forecasts():
    table = pq.read_table(ROOT / "examples/data/forecasts.parquet")
    return table.drop_columns(["AutoETS", "CrostonSBA"])


def by_pandas(table, names):
    """Return each loss of each group and model, from elements, of which missing ones are left out."""
    frame = table.to_pandas().sort_values(["unique_id", "cutoff", "ds"])
    frame["horizon"] = frame.groupby(["unique_id", "cutoff"]).cumcount() + 1
    parts = []
    for model in MODELS:
        y, p = frame["y"], frame[model]
        with np.errstate(all="ignore"):
            terms = {
                "mae": (y - p).abs(),
                "mape": ((y - p) / y).abs(),
                "smape": (y - p).abs() / (y.abs() + p.abs()),
            }
        there = y.notna() & p.notna()
        part = frame[names].copy()
        for name, term in terms.items():
            part[name] = term.where(np.isfinite(term) & there, term.where(~there, 0.0))
            part.loc[~there, name] = np.nan
        part["model"] = model
        parts.append(part)
    return pd.concat(parts).groupby([*names, "model"], sort=True).mean(numeric_only=True)


def test_values_that_cannot_be_compared_are_refused_as_columns_are():
    table = pa.table({"unique_id": ["a"], "tags": [["x"]], "ds": [[1]], "y": [1.0], "A": [1.0]})
    series = group_rows(table.select(["unique_id"]))
    for by, time, says in (("tags", None, "'tags' cannot be"), ("y", "ds", "cannot be compared")):
        with pytest.raises(TableError, match=says):
            break_down(table, series, [by], time)


@pytest.mark.parametrize("by", [["horizon"], ["panel", "horizon"], ["panel"]])
def test_elements_are_pooled(forecasts, by):
    panel = pa.compute.utf8_slice_codeunits(forecasts["unique_id"], 0, 2)
    table = forecasts.append_column("panel", panel)
    scores = score_table(table, by=[*by, "model"], predictions=MODELS, missing="skip").to_pandas()
    want = by_pandas(table, by)
    ours = scores.set_index([*by, "model"])
    assert list(ours.index.get_level_values(0)) == sorted(ours.index.get_level_values(0))
    assert len(ours) == len(want)
    for name in ("mae", "mape", "smape"):
        np.testing.assert_allclose(ours[name], want[name][ours.index], rtol=1e-12)
    assert ours["length"].sum() == 2 * len(table)


def test_all_elements_of_a_model(forecasts):
    (first, _) = score_table(forecasts, by="model", missing="skip").to_pylist()
    frame = forecasts.to_pandas().dropna(subset=["y"])
    assert list(first)[:2] == ["model", "length"]
    assert first["mae"] == pytest.approx(
        (frame["y"] - frame["SeasonalNaive"]).abs().mean(), rel=1e-12
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_breakdown_has_the_same_bits_in_any_order_of_rows(seed):
    generator = np.random.default_rng(seed)
    count = 200
    table = pa.table(
        {
            "unique_id": [f"s{n % 7}" for n in range(count)],
            "ds": np.arange(count) // 7,
            "kind": [f"k{n % 3}" for n in range(count)],
            "y": generator.lognormal(size=count),
            "A": generator.lognormal(size=count),
        }
    )
    shuffled = table.take(generator.permutation(count))
    for by in ("horizon", "kind", ["kind", "horizon"], "model"):
        want, got = (
            score_table(rows, group_by=["unique_id"], predictions=["A"], by=by)
            for rows in (table, shuffled)
        )
        assert got.equals(want)


@pytest.mark.parametrize(
    "times",
    [
        pa.array(["10", "9", "2"]),
        pa.array(["2024-10-01", "2024-09-01", "2023-12-31"]),
        pa.array([dt.date(2024, 1, 3), dt.date(2024, 1, 2), dt.date(2024, 1, 1)]),
        pa.array([3, 2, 1], pa.timestamp("ns", "Asia/Tokyo")),
        pa.array([3.0, 2.0, 1.0]),
    ],
)
def test_a_horizon_follows_the_meaning_of_times(times):
    rows = {"unique_id": ["a"] * 3, "ds": times, "y": [0.0] * 3, "A": [3.0, 2.0, 1.0]}
    scores = score_table(pa.table(rows), group_by=["unique_id"], by="horizon", losses=["mae"])
    assert scores["mae"].to_pylist() == [1.0, 2.0, 3.0]


def test_a_column_of_the_name_is_taken_as_it_is():
    rows = {"unique_id": ["a"] * 2, "y": [0.0] * 2, "A": [3.0, 2.0], "horizon": ["late", "early"]}
    scores = score_table(pa.table(rows), group_by=["unique_id"], by="horizon", losses=["mae"])
    assert scores["horizon"].to_pylist() == ["early", "late"]


@pytest.mark.parametrize(
    ("change", "by", "error", "says"),
    [
        ({"ds": None}, "horizon", TableError, "no column of times to derive a horizon"),
        ({"ds": ["x", "y"]}, "horizon", TableError, "'ds' holds text such as 'x', of unknown order"),
        ({"ds": [1, None]}, "horizon", TableError, "'ds' is null in row 1"),
        ({}, "panell", TableError, "'panell' is absent; did you mean 'panel'"),
        ({"panel": ["x", None]}, "panel", NullKeyError, "'panel' has no key in row 1"),
        (
            {"panel": pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["x", None]))},
            "panel", NullKeyError, "'panel' has no key in row 1",
        ),
        ({"panel": [[1], [2]]}, "panel", TableError, "must hold text, numbers, dates or times"),
        ({}, ["horizon", "length"], TableError, "has the name of a column of the answer"),
    ],
)  # fmt: skip
def test_what_cannot_be_pooled_is_refused(change, by, error, says):
    rows = {
        "unique_id": ["a", "a"],
        "ds": [1, 2],
        "panel": ["p", "q"],
        "length": [1, 2],
        "y": [1.0, 2.0],
        "A": [1.0, 1.0],
    }
    rows = {name: cells for name, cells in (rows | change).items() if cells is not None}
    with pytest.raises(error, match=says):
        score_table(pa.table(rows), group_by=["unique_id"], predictions=["A"], by=by)


@pytest.mark.parametrize("by", ["model", []])
def test_no_rows_are_a_group_of_none(by):
    rows = pa.table({name: pa.array([], pa.float64()) for name in ("unique_id", "y", "A")})
    scores = score_table(rows, group_by=["unique_id"], by=by, losses=["mae"])
    assert scores.to_pylist() == [{"model": "A", "length": 0, "mae": None}]


def test_dictionaries_of_chunks_may_outgrow_their_index_together():
    small = pa.dictionary(pa.int8(), pa.string())
    chunks = [pa.array([f"{x}{i}" for i in range(100)]).cast(small) for x in "ab"]
    rows = pa.table({"id": ["s"] * 200, "panel": pa.chunked_array(chunks), "y": range(200)})
    rows = rows.append_column("A", pa.array(np.zeros(200)))
    scores = score_table(rows, group_by=["id"], by="panel", losses=["mae"])
    assert sorted(scores["mae"].to_pylist()) == list(range(200))


def test_gradients_are_of_series():
    with pytest.raises(ValueError, match="gradients are of series"):
        score_table(pa.table({}), by="horizon", gradients=True)


@pytest.mark.darts
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("loss", "step", "factor"), [("mae", "ae", 1), ("mape", "ape", 100), ("smape", "sape", 200)]
)
def test_steps_are_those_of_darts(loss, step, factor):
    darts = pytest.importorskip("darts", reason="make test-darts installs darts")
    metrics = pytest.importorskip("darts.metrics")
    generator = np.random.default_rng(4)
    y, p = generator.lognormal(size=(2, 30, 12))
    rows = {
        "unique_id": np.repeat([f"s{n:02}" for n in range(30)], 12),
        "ds": np.tile(np.arange(12), 30),
        "y": y.ravel(),
        "A": p.ravel(),
    }
    ours = score_table(pa.table(rows), group_by=["unique_id"], by="horizon", losses=[loss])
    hours = pd.date_range("2026-01-01", periods=12, freq="h")
    series = [
        [darts.TimeSeries.from_times_and_values(hours, values) for values in side]
        for side in (y, p)
    ]
    theirs = np.mean(getattr(metrics, step)(*series), axis=0)
    np.testing.assert_allclose(ours[loss].to_numpy() * factor, theirs, rtol=1e-12)
