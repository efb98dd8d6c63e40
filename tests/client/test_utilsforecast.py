"""The losses for utilsforecast against its own, in its own evaluation, at the real service."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from forecasts import LONG
from hypothesis import given, settings
from hypothesis import strategies as st
from utilsforecast import losses as theirs
from utilsforecast.evaluation import evaluate

from lossclient import Client, InvalidInput
from lossclient.utilsforecast import Losses

NAMES = ("mae", "mape", "smape")


@pytest.fixture(scope="module")
def ours(url):
    with Client(url) as client:
        yield Losses(client)


@pytest.fixture(scope="module")
def forecasts():
    frame = pd.read_parquet(LONG)
    return frame.sample(frac=1, random_state=0)


def of(module):
    return [getattr(module, name) for name in NAMES]


def test_an_evaluation_in_pandas_is_the_same(ours, forecasts):
    wanted, got = (evaluate(forecasts, metrics=of(module)) for module in (theirs, ours))
    assert set(wanted["metric"]) == set(NAMES)
    pd.testing.assert_frame_equal(got, wanted, rtol=1e-12, atol=0)


def test_an_evaluation_in_polars_is_the_same_but_where_theirs_is_nan(ours, forecasts):
    frame = pl.from_pandas(forecasts)
    wanted, got = (evaluate(frame, metrics=of(module)) for module in (theirs, ours))
    assert got.schema == wanted.schema
    pandas = evaluate(forecasts, metrics=of(theirs))
    for model in [name for name in got.columns if name not in ("unique_id", "cutoff", "metric")]:
        nan = wanted[model].is_nan().fill_null(value=False).to_numpy()
        assert set(wanted["metric"].to_numpy()[nan]) <= {"mape"}
        found, expected = (frame[model].to_numpy() for frame in (got, wanted))
        np.testing.assert_allclose(found[~nan], expected[~nan], rtol=1e-12)
        np.testing.assert_allclose(found, pandas[model], rtol=1e-12)
    keys = ["unique_id", "cutoff", "metric"]
    assert got.select(keys).equals(wanted.select(keys))


def test_an_aggregated_evaluation_is_the_same(ours, forecasts):
    arguments = {"models": ["Theta", "SeasonalNaive"], "agg_fn": "mean"}
    wanted, got = (evaluate(forecasts, of(module), **arguments) for module in (theirs, ours))
    pd.testing.assert_frame_equal(got, wanted, rtol=1e-12, atol=0)


numbers = (
    st.none() | st.sampled_from([0.0, -0.0, 1.0]) | st.floats(1e-3, 1e6) | st.floats(-1e6, -1e-3)
)
rows = st.tuples(st.sampled_from("abc"), st.integers(0, 2), numbers, numbers, numbers)


@pytest.mark.parametrize("name", [*NAMES, "mse", "rmse", "bias"])
@settings(max_examples=40)
@given(rows=st.lists(rows, min_size=1, max_size=12), has_cutoff=st.booleans())
def test_each_is_that_of_utilsforecast(ours, name, rows, has_cutoff):
    cutoff = "fold" if has_cutoff else "absent"
    frame = pd.DataFrame(rows, columns=["key", "fold", "actual", "A", "B"])
    frame = frame.astype({"actual": float, "A": float, "B": float})
    arguments = (["B", "A"], "key", "actual", cutoff)
    wanted, got = (getattr(module, name)(frame, *arguments) for module in (theirs, ours))
    wanted = wanted.reset_index(drop=True)
    pd.testing.assert_frame_equal(got, wanted, rtol=1e-12, atol=0)


def test_pyarrow_is_taken_too(ours):
    table = pa.table({"unique_id": [2, 1], "y": [1.0, 4.0], "M": [2.0, 2.0]})
    assert ours.mape(table, ["M"]).to_pydict() == {"unique_id": [1, 2], "M": [0.5, 1.0]}


def test_a_loss_with_a_parameter(ours):
    table = pd.DataFrame({"unique_id": [1, 1], "y": [1.0, 4.0], "M": [2.0, 2.0]})
    pinball = ours.of("pinball", q=0.9)
    wanted = theirs.quantile_loss(table, {"M": "M"}, q=0.9)
    pd.testing.assert_frame_equal(pinball(table, ["M"]), wanted, rtol=1e-12, atol=0)
    copied = pickle.loads(pickle.dumps(pinball))  # noqa: S301 - own bytes
    with copied.client:
        found = evaluate(table, metrics=[copied])
    assert found.to_dict("list") == {"unique_id": [1], "metric": ["pinball"], "M": [0.95]}


def test_an_absent_model_is_named(ours, forecasts):
    with pytest.raises(InvalidInput, match="no column 'Nobody'"):
        ours.mae(forecasts, ["Nobody"])


def test_a_stream_of_arrow_is_read_once(ours):
    table = pa.table({"unique_id": [1, 1], "cutoff": [5, 6], "y": [1.0, 2.0], "M": [2.0, 5.0]})
    found = ours.mae(table.to_reader(), ["M"])
    assert found.to_pydict() == {"cutoff": [5, 6], "unique_id": [1, 1], "M": [1.0, 3.0]}


def test_a_cutoff_in_the_index_of_pandas_counts(ours):
    columns = {"unique_id": [1, 1], "cutoff": [5, 6], "y": [1.0, 2.0], "M": [2.0, 5.0]}
    found = ours.mae(pd.DataFrame(columns).set_index(["unique_id", "cutoff"]), ["M"])
    assert found.to_dict("list") == {"unique_id": [1, 1], "cutoff": [5, 6], "M": [1.0, 3.0]}


@pytest.mark.parametrize("models", [None, "M", iter(["M"]), [["M"]]])
def test_models_are_a_list(ours, models):
    table = pa.table({"unique_id": [2, 1], "y": [1.0, 4.0], "M": [2.0, 2.0]})
    with pytest.raises(InvalidInput, match="models must be a list of names"):
        ours.mae(table, models)


@pytest.mark.parametrize("df", [pd.Series([1.0]), [1.0], None])
def test_what_is_no_frame(ours, df):
    with pytest.raises(InvalidInput, match="a frame is wanted"):
        ours.mae(df, ["M"])
