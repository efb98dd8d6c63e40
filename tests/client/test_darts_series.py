"""``lossclient.darts`` against the real ``darts.metrics``; runs by ``make test-darts``."""

import logging

import numpy as np
import pandas as pd
import pytest
from forecasts import LONG
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lossclient import Client, InvalidInput

pytestmark = [
    pytest.mark.darts,
    pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning"),  # darts' way to NaN
    pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning"),  # nanmax's, likewise
    pytest.mark.filterwarnings("ignore:isinstance.obj, DateOffset:DeprecationWarning"),  # likewise
]
darts = pytest.importorskip("darts", reason="make test-darts installs darts")
from darts import TimeSeries, metrics  # noqa: E402 - skipped above where there is none

from lossclient.darts import score  # noqa: E402

FACTORS = {"mae": 1, "mape": 100, "smape": 200}


@pytest.fixture(scope="module", autouse=True)
def quiet():
    """Darts logs each division by zero."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def remote(url):
    with Client(url) as client:
        yield client


def series(values, start=0):
    """Return hourly values: darts 0.48 cannot intersect days under pandas 3."""
    hours = pd.date_range("2026-01-01", periods=start + len(values), freq="h")
    return TimeSeries.from_times_and_values(hours[start:], values)


def check(client, actual, predicted, **options):
    scores = score(client, actual, predicted, **options)
    assert list(scores) == list(FACTORS)
    for loss, factor in FACTORS.items():
        wanted = getattr(metrics, loss)(actual, predicted, **options)
        got = scores[loss]
        assert isinstance(got, list) == isinstance(wanted, list)
        if not isinstance(wanted, list):
            wanted, got = [wanted], [got]
        assert len(wanted) == len(got)
        for found, expected in zip(got, wanted, strict=True):
            assert np.shape(found) == np.shape(expected)
            np.testing.assert_allclose(np.multiply(found, factor), expected, rtol=1e-12)


def test_real_forecasts(remote):
    frame = pd.read_parquet(LONG).sort_values("ds")
    parts = [part for _, part in frame.groupby(["unique_id", "cutoff"]) if len(part) > 2][::9]
    actual = [series(part["y"].to_numpy(float)) for part in parts]
    predicted = [series(part[["Theta"]].to_numpy(float)) for part in parts]
    later = [series(part[["Theta"]].to_numpy(float)[2:], start=2) for part in parts]
    assert len(parts) > 30
    check(remote, actual, predicted)
    check(remote, actual, later)


numbers = st.sampled_from([np.nan, 0.0, -0.0, 1.0]) | st.floats(1e-3, 1e6) | st.floats(-1e6, -1e-3)


@settings(max_examples=60)
@given(st.data())
def test_any_series(remote, data):
    count = data.draw(st.integers(1, 4))
    actual, predicted = [], []
    for _ in range(count):
        components = data.draw(st.integers(1, 3))
        samples = data.draw(st.sampled_from([1, 1, 2, 5]))
        length, start = data.draw(st.integers(2, 6)), data.draw(st.integers(0, 1))
        shapes = ((6, components), (length, components, samples))
        dtype = data.draw(st.sampled_from([np.float64, np.float64, np.int64]))
        elements = numbers if dtype is np.float64 else st.integers(-9, 9)
        target, prediction = (
            data.draw(hnp.arrays(dtype, shape, elements=elements)).astype(float) for shape in shapes
        )
        actual.append(series(target))
        predicted.append(series(prediction, start=start))
    if data.draw(st.booleans()):
        check(remote, actual, predicted)
        check(remote, actual, predicted, component_reduction=None)
        check(remote, actual, predicted, component_reduction=np.nanmax)
    else:
        check(remote, actual[0], predicted[0])
        check(remote, actual[0], predicted[0], component_reduction=None)


def test_steps_of_another_frequency_meet_in_common_times(remote):
    hourly = series(np.arange(1.0, 9.0))
    hours = hourly.time_index[1::3]
    sparse = TimeSeries.from_times_and_values(hours, np.array([4.0, 4.0, 9.0]))
    check(remote, hourly, sparse)
    assert score(remote, hourly, sparse, ["mae"]) == {"mae": pytest.approx((2 + 1 + 1) / 3)}


def test_times_may_be_left_out_of_account(remote):
    check(remote, series(np.ones(3)), series(np.full(3, 2.0), start=2), intersect=False)


def test_no_series_have_no_losses(remote):
    assert score(remote, [], [], ["mae"]) == {"mae": []}


def test_what_cannot_be_compared_is_named(remote):
    single, late, double = series(np.ones(3)), series(np.ones(3), start=5), series(np.ones((3, 2)))
    with pytest.raises(InvalidInput, match="series 1: 0 and 0 steps"):
        score(remote, [single, single], [single, late])
    with pytest.raises(InvalidInput, match="series 0: 3 and 2 steps"):
        score(remote, single, single[:2], intersect=False)
    with pytest.raises(InvalidInput, match=r"series 1 differs .* actual 1, predicted 2"):
        score(remote, [single, single], [single, double])
    with pytest.raises(InvalidInput, match="actual has 2 series, predicted 1"):
        score(remote, [single, single], [single])
    with pytest.raises(InvalidInput, match="both be one series, or both several"):
        score(remote, single, [single])
    with pytest.raises(InvalidInput, match="predicted 0 must be a TimeSeries, not list"):
        score(remote, [single], [[1.0]])
    for nothing in (None, 5, iter([single])):
        with pytest.raises(InvalidInput, match="predicted must be a TimeSeries or a list of them"):
            score(remote, single, nothing)
