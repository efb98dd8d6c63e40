"""Frames pooled by other columns, as they are before they are sent."""

import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from lossclient.columns import Columns
from lossclient.exceptions import InvalidInput
from lossclient.frames import read_frame, write_frame

FRAME = pd.DataFrame(
    {
        "unique_id": ["b", "a", "b", "a", "a"],
        "ds": [1, 3, 2, 1, 2],
        "shop": ["x", "y", "x", "y", "x"],
        "y": [1.0, 2.0, 3.0, 4.0, 5.0],
        "A": [1.5, 2.5, 3.5, 4.5, 5.5],
    }
)
KINDS = [lambda x: x, pl.from_pandas, lambda x: pa.Table.from_pandas(x, preserve_index=False)]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=["pandas", "polars", "pyarrow"])


def read(frame, *by, **columns):
    return read_frame(frame, Columns(cutoff=None, by=by, **columns))


def groups(reading):
    """Return the targets of each group."""
    forecasts = reading.forecasts
    return [part.tolist() for part in np.split(forecasts.target, forecasts.offsets[1:-1])]


def rows_of(frame):
    return pa.table(frame).to_pylist() if not isinstance(frame, pa.Table) else frame.to_pylist()


@each_kind
def test_by_the_horizon(kind):
    reading = read(kind(FRAME), "horizon")
    assert groups(reading) == [[4, 1], [5, 3], [2]]
    answer = pa.table({"length": [2, 2, 1], "mae": [0.5, 0.5, 0.5]})
    frame = write_frame(reading, answer)
    assert type(frame) is type(kind(FRAME))
    assert [(row["horizon"], row["model"]) for row in rows_of(frame)] == [
        (1, "A"),
        (2, "A"),
        (3, "A"),
    ]
    assert reading.forecasts.key_of(1).id == "horizon=2"
    assert [reading.forecasts.row_of(0, place) for place in (0, 1)] == [3, 0]


@each_kind
def test_by_columns_and_the_horizon(kind):
    reading = read(kind(FRAME), "horizon", "shop")
    names = rows_of(reading.keys.to_native())
    assert [(row["horizon"], row["shop"]) for row in names] == [
        (1, "x"),
        (1, "y"),
        (2, "x"),
        (3, "y"),
    ]
    assert groups(reading) == [[1], [4], [5, 3], [2]]
    assert groups(read(kind(FRAME), "shop")) == [[5, 1, 3], [4, 2]]


@each_kind
def test_by_nothing_is_one_group(kind):
    reading = read(kind(FRAME))
    assert groups(reading) == [[4, 5, 2, 1, 3]]
    frame = write_frame(reading, pa.table({"length": [5], "mae": [0.5]}))
    assert rows_of(frame) == [{"model": "A", "length": 5, "mae": 0.5}]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_rows_does_not_matter(seed):
    shuffled = FRAME.sample(frac=1, random_state=seed)
    for by in (("horizon",), ("shop",), ("shop", "horizon"), ()):
        assert groups(read(shuffled, *by)) == groups(read(FRAME, *by))


def test_text_of_times_is_ordered_by_its_meaning():
    frame = FRAME.assign(ds=["9", "30", "10", "9", "20"])
    assert groups(read(frame, "horizon")) == [[4, 1], [5, 3], [2]]


def test_a_column_that_tells_groups_apart_is_no_model():
    frame = FRAME.assign(week=[1, 1, 2, 2, 2])
    assert read(frame, "week").models.models == ("A",)


@pytest.mark.parametrize(
    ("change", "by", "says"),
    [
        ({}, ["shops"], "no column 'shops' to pool by"),
        ({"shop": ["x", None, "x", "x", "x"]}, ["shop"], "'shop' is null in row 1"),
        (
            {"ds": list("vwxyz")},
            ["horizon"],
            "column 'ds' holds text such as 'v', of unknown order",
        ),
        ({"length": [1] * 5}, ["length"], "the answer has a column 'length' too"),
    ],
)
def test_what_cannot_be_pooled_is_refused(change, by, says):
    with pytest.raises(InvalidInput, match=says):
        read(FRAME.assign(**change), *by)


def test_a_horizon_needs_times():
    with pytest.raises(InvalidInput, match="a horizon needs times"):
        read(FRAME, "horizon", time=None)
    assert groups(read(FRAME, "shop", time=None)) == [[5, 1, 3], [2, 4]]


def test_times_are_still_checked():
    twice = pd.concat([FRAME, FRAME])
    with pytest.raises(InvalidInput, match="ds 1 twice"):
        read(twice, "horizon")


def test_dates_in_the_index():
    frame = FRAME.assign(ds=[dt.date(2024, 1, day) for day in FRAME["ds"]]).set_index(
        ["unique_id", "ds", "shop"]
    )
    assert groups(read(frame, "shop", "horizon")) == [[1], [5, 3], [4], [2]]
