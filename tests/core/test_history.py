"""Scales of mase and rmsse by history, against utilsforecast, and that no row leaks."""

import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from utilsforecast.losses import mase, rmsse

from loss_scoring.core.table import (
    History,
    RepeatedTimeError,
    TableError,
    group_rows,
    score_table,
)

LOSSES = ["mase", "rmsse"]
KEYS = ["unique_id", "cutoff"]
DAYS = pd.date_range("2026-01-01", periods=60)


def forecasts(cutoffs=(20, 30), ids=("a", "b"), horizon=3):
    """Return forecasts at each cutoff, and the history of all days."""
    make = np.random.default_rng(7)
    values = {key: make.integers(-50, 50, len(DAYS)) / 4 for key in ids}
    rows = [
        (key, DAYS[cutoff], DAYS[day], values[key][day], make.integers(-50, 50) / 4)
        for cutoff in cutoffs
        for key in ids
        for day in range(cutoff + 1, cutoff + 1 + horizon)
    ]
    train = [(key, day, value) for key in ids for day, value in zip(DAYS, values[key], strict=True)]
    return (
        pd.DataFrame(rows, columns=["unique_id", "cutoff", "ds", "y", "Model"]),
        pd.DataFrame(train, columns=["unique_id", "ds", "y"]),
    )


def scored(frame, train, seasonality=7, **options):
    tables = [pa.Table.from_pandas(x, preserve_index=False) for x in (frame, train)]
    options = {"losses": LOSSES} | options
    return score_table(tables[0], train_df=tables[1], seasonality=seasonality, **options)


@pytest.mark.parametrize("seasonality", [1, 7])
def test_they_are_those_of_utilsforecast_at_each_cutoff(seasonality):
    frame, train = forecasts()
    got = scored(frame, train, seasonality).to_pandas().set_index(KEYS)
    for name, function in (("mase", mase), ("rmsse", rmsse)):
        want = function(frame, ["Model"], seasonality, train).set_index(KEYS)["Model"]
        np.testing.assert_array_max_ulp(got[name].to_numpy(), want[got.index].to_numpy(), 1)


@given(st.randoms(use_true_random=False), st.sampled_from([1, 7]))
def test_no_row_after_a_cutoff_nor_the_order_of_rows_matters(chance, seasonality):
    frame, train = forecasts()
    want = scored(frame, train, seasonality)
    later = train[train["ds"] > DAYS[30]].copy()
    changed = train.copy()
    changed.loc[later.index, "y"] = [chance.choice([0, 1e9, np.nan]) for _ in later.index]
    shuffled = changed.iloc[chance.sample(range(len(changed)), len(changed))]
    assert scored(frame, shuffled, seasonality).equals(want)
    assert scored(frame, train[train["ds"] <= DAYS[30]], seasonality).equals(want)


def test_a_column_of_cutoffs_may_have_another_name():
    frame, train = forecasts(horizon=1)
    frame["ds"] += pd.Timedelta(days=1)  # a day between the cutoff and the first row
    want = scored(frame, train)
    named = frame.rename(columns={"cutoff": "made"})
    got = scored(named, train, group_by=["unique_id", "made"], cutoff_col="made")
    assert got.column("mase").equals(want.column("mase"))
    with pytest.raises(ValueError, match="cutoff_col 'made' must be one of group_by"):
        scored(frame, train, cutoff_col="made")


def test_a_cutoff_may_be_beyond_the_times_of_the_history():
    frame, train = forecasts(cutoffs=(30,))
    tables = [pa.Table.from_pandas(x, preserve_index=False) for x in (frame, train)]
    far = pa.array([dt.date(9999, 12, 31)] * len(frame)).cast(pa.timestamp("us"))
    place = tables[0].schema.get_field_index("cutoff")
    later = tables[0].set_column(place, "cutoff", far)
    nanos = tables[1].set_column(1, "ds", tables[1]["ds"].cast(pa.timestamp("ns")))
    options = {"losses": ["mase"], "seasonality": 7}
    got = score_table(later, train_df=nanos, **options)
    last = pa.array([DAYS[-1]] * len(frame)).cast(pa.timestamp("us"))
    want = score_table(tables[0].set_column(place, "cutoff", last), train_df=nanos, **options)
    assert got["mase"].null_count == 0
    assert got["mase"].equals(want["mase"])


def test_without_cutoffs_only_rows_before_the_first_count():
    frame, train = forecasts(cutoffs=(30,))
    want = scored(frame, train).drop_columns("cutoff")
    frame = frame.drop(columns="cutoff").iloc[::-1]
    got = scored(frame, train, group_by=["unique_id"]).sort_by("unique_id")
    assert got.column("mase").to_pylist() == pytest.approx(want.column("mase").to_pylist())
    assert got.column("rmsse").to_pylist() == pytest.approx(want.column("rmsse").to_pylist())


def test_one_of_the_two_has_the_same_bits():
    frame, train = forecasts()
    both = scored(frame, train, losses=["rmsse", "mae", "mase"], gradients=True)
    assert both.column_names[4:10] == [
        *("rmsse", "mae", "mase"),
        *("rmsse_masked", "mase_masked"),
        "rmsse_gradient",
    ]
    for loss in LOSSES:
        alone = scored(frame, train, losses=[loss], gradients=True)
        for name in (loss, f"{loss}_masked", f"{loss}_gradient"):
            assert alone[name].equals(both[name])


def test_a_series_without_enough_history_is_null_and_counted():
    frame, train = forecasts()
    got = scored(frame, train[(train["unique_id"] == "a") & (train["ds"] <= DAYS[24])], 22)
    assert got["mase"].is_null().to_pylist() == [True, True, False, True]
    assert got["mase_masked"].to_pylist() == [3, 3, 0, 3]
    flat = train.assign(y=1.0)
    assert scored(frame, flat)["rmsse"].null_count == 4


def test_missing_values_of_the_history_are_left_out():
    table = pa.table(
        {"unique_id": ["a"] * 5, "ds": range(5), "y": pa.array([1.0, 3.0, None, 4.0, 9.0])}
    )
    history = History(table, KEYS, "ds", "y", 1)
    groups = history_groups([4, 3, 1, 0])
    assert history.scales("mase", groups)[:3].tolist() == [3.5, 2.0, 2.0]
    assert np.isnan(history.scales("mase", groups)[3])


def test_a_square_that_overflows_is_not_left_out():
    train = pa.table({"unique_id": ["a"] * 4, "ds": [1, 2, 3, 4], "y": [0, 1e200, 1e200, 1e200]})
    history = History(train, KEYS, "ds", "y", 1)
    assert history.scales("rmsse", history_groups([4])).tolist() == [np.inf]


def history_groups(cutoffs, type_=None):
    keys = {"unique_id": pa.array(["a"] * len(cutoffs)).dictionary_encode()}
    return group_rows(pa.table(keys | {"cutoff": pa.array(cutoffs, type_)}))


@pytest.mark.parametrize(
    ("times", "cutoffs"),
    [
        (pa.int64(), pa.int8()),
        (pa.int32(), pa.float64()),
        (pa.timestamp("ns"), pa.timestamp("s")),
        (pa.timestamp("us"), pa.date32()),
        (pa.timestamp("us", "UTC"), pa.timestamp("ns", "Europe/Berlin")),
        (pa.string(), pa.large_string()),
    ],
)
def test_cutoffs_and_times_are_compared_across_types(times, cutoffs):
    days = [dt.datetime(2026, 1, day, tzinfo=dt.UTC) for day in range(1, 6)]
    values = list(range(5))

    def column(type_, cells):
        if pa.types.is_temporal(type_):
            naive = [days[i] if getattr(type_, "tz", None) else days[i].date() for i in cells]
            kind = pa.timestamp("us", "UTC") if getattr(type_, "tz", None) else pa.date32()
            return pa.array(naive, kind).cast(type_)
        return pa.array(cells).cast(type_)

    table = pa.table({"unique_id": ["a"] * 5, "ds": column(times, values), "y": [0, 1, 3, 3, 9]})
    history = History(table, KEYS, "ds", "y", 1)
    groups = history_groups([3, 1], None)
    keys = groups.keys.set_column(1, "cutoff", column(cutoffs, [3, 1]))
    groups = type(groups)(keys, groups.offsets, groups.order)
    assert history.scales("mase", groups).tolist() == [1.0, 1.0]
    assert history.scales("rmsse", groups).tolist() == [np.sqrt(5 / 3), 1.0]


def test_text_is_ordered_by_what_it_says():
    for times, cutoffs in (
        (["8", "9", "10", "11", "12"], ["11", "9"]),
        (["2026-01-08", "2026-01-09", "2026-01-10", "2026-01-11", "2026-01-12"],
         ["2026-01-11 00:00:00", "2026-01-09T12:00:00"]),
    ):  # fmt: skip
        table = pa.table({"unique_id": ["a"] * 5, "ds": times, "y": [0, 1, 3, 3, 9]})
        history = History(table, KEYS, "ds", "y", 1)
        assert history.scales("mase", history_groups(cutoffs)).tolist() == [1.0, 1.0]
    with pytest.raises(TableError, match=r"'ds' is text .* of ISO 8601, in the history"):
        History(table.set_column(1, "ds", pa.array(list("vwxyz"))), KEYS, "ds", "y", 1)


def test_what_is_refused():
    frame, train = forecasts()
    with pytest.raises(RepeatedTimeError, match="history"):
        scored(frame, pd.concat([train, train[:1]]))
    with pytest.raises(TableError, match="'y' is absent, in the history"):
        scored(frame, train.drop(columns="y"))
    with pytest.raises(TableError, match="'ds' is absent, in the history"):
        scored(frame, train.drop(columns="ds"))
    with pytest.raises(TableError, match="'unique_id' is absent, in the history"):
        scored(frame, train.drop(columns="unique_id"))
    with pytest.raises(TableError, match=r"'cutoff' is timestamp.* with int64 of the history"):
        scored(frame, train.assign(ds=range(len(train))))
    with pytest.raises(TableError, match=r"'ds' is timestamp.* with int64 of the history"):
        scored(
            frame.drop(columns="cutoff"),
            train.assign(ds=range(len(train))),
            group_by=["unique_id"],
        )
    with pytest.raises(TableError, match="'unique_id' cannot be compared: int64 and"):
        scored(frame, train[:60].assign(unique_id=1))
    with pytest.raises(ValueError, match="seasonality must be at least 1"):
        scored(frame, train, 0)
    with pytest.raises(ValueError, match="train_df and seasonality belong together"):
        scored(frame, train, None)
    with pytest.raises(ValueError, match="both say what the scales are"):
        scored(frame, train, scale_col="y")
    with pytest.raises(ValueError, match="none of the losses asked for takes train_df"):
        scored(frame, train, losses=["mae"])
