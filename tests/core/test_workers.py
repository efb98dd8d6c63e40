"""What workers of Ray and Spark do, in this process; tests/bulk has the engines themselves."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from loss_scoring.core.table import (
    LeftOutWarning,
    ScoresError,
    TableError,
    UnmatchedWarning,
    leaderboard,
    score_table,
)
from loss_scoring.core.table.bulk import _checked, _Reading, _Worker

ORDER = [("unique_id", "ascending"), ("cutoff", "ascending"), ("model", "ascending")]
TABLE = pq.read_table(ROOT / "examples/data/forecasts.parquet").slice(0, 2500)
SCORES = score_table(TABLE, missing="skip")


def parts_of(table, keys, seed, count):
    """Divide rows among workers by their keys, as a shuffle does: in no order."""
    rng = np.random.default_rng(seed)
    worker = rng.integers(0, count, len(table))  # of each key that of its first row
    owners = {}
    names = zip(*(table[key].to_pylist() for key in keys), strict=True)
    owner = np.array([owners.setdefault(name, worker[row]) for row, name in enumerate(names)])
    rows = rng.permutation(len(table))
    return [table.take(pa.array(rows[owner[rows] == own])) for own in range(count)]


@pytest.mark.parametrize("options", [{}, {"gradients": True, "models": ["Theta"]}])
def test_shuffled_rows_have_the_bits_of_those_in_order(options):
    options = {"missing": "skip", "losses": ["mae", "smape"], **options}
    worker = _Worker(_checked(TABLE.slice(0, 100), options))
    parts = [worker(part) for part in parts_of(TABLE, ["unique_id", "cutoff"], 1, 7)]
    parts.append(worker(TABLE.slice(0, 0)))
    got = pa.concat_tables(parts).sort_by(ORDER)
    assert got.equals(score_table(TABLE, **options).sort_by(ORDER))


def test_parts_without_an_actual_value_are_no_fault():
    actuals = TABLE.group_by(["unique_id", "ds"]).aggregate([("y", "max")])
    actuals = actuals.rename_columns(["unique_id", "ds", "y"]).slice(0, 50)
    options = {"losses": ["mae"], "missing": "skip", "actuals": actuals}
    forecasts = TABLE.drop(["y"])
    with pytest.warns(UnmatchedWarning):
        want = score_table(forecasts, **options)
    with pytest.warns(UnmatchedWarning):
        worker = _Worker(_checked(forecasts.slice(2000, 10), options))
    parts = parts_of(forecasts, ["unique_id", "cutoff"], 2, 9)
    with pytest.warns(UnmatchedWarning):
        scores = [*map(worker, parts)]
    assert pa.concat_tables(scores).sort_by(ORDER).equals(want.sort_by(ORDER))


@settings(deadline=None, max_examples=15)
@given(
    st.integers(0, 99),
    st.integers(1, 9),
    st.sampled_from([{"baseline": "Theta"}, {"weights": "length"}, {"by": "cutoff"}]),
)
def test_leaderboards_have_the_bits_of_the_whole(seed, count, options):
    options |= {"n_resamples": 20}
    reading = _Reading(SCORES.slice(0, 1), ["smape", "mae"], options)
    parts = parts_of(SCORES.select(reading.columns), reading.keys, seed, count)
    got = reading.board([*map(reading.part, parts)])
    want = leaderboard(SCORES, ["smape", "mae"], **options)
    assert got.to_arrow().equals(want.to_arrow())
    assert got.notes == want.notes


def test_a_series_that_was_cut_is_found():
    halves = [
        score_table(half, missing="skip") for half in (TABLE.slice(0, 1001), TABLE.slice(1001))
    ]
    reading = _Reading(SCORES.slice(0, 1), "mae", {})
    with pytest.raises(ScoresError, match="are both model="):
        reading.part(pa.concat_tables(halves).select(reading.columns))


def test_what_does_not_fit_is_refused_before_anything_is_shuffled():
    for options, kind, says in (
        ({"group_by": ["store"]}, TableError, "'store' is absent"),
        ({"by": "horizon"}, ValueError, "by is not for tables"),
        ({"device": "cuda"}, ValueError, "device is not for tables"),
        ({"losses": ["mase"]}, ValueError, "mase must have scales"),
    ):
        with pytest.raises(kind, match=says):
            _checked(TABLE, options)
    with pytest.raises(ScoresError, match="no column 'mad'"):
        _Reading(SCORES.slice(0, 1), "mad", {})
    more = TABLE.append_column("fold", pa.array([1] * len(TABLE)))
    with pytest.warns(LeftOutWarning, match="'fold'"):
        checked = _checked(more, {"missing": "skip"})
    assert "fold" not in checked["models"]
