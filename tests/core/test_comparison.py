"""Leaderboards, pairs and the gate, against pandas and formulas written from their definitions."""

import copy
import doctest
import importlib
import math
import pickle
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import utilsforecast.evaluation
import utilsforecast.losses
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

import lossclient
from loss_scoring.core.table import (
    CheckError,
    NotComparableError,
    ScoresError,
    ScoresInParts,
    WorseError,
    check,
    leaderboard,
    pairwise,
    score_table,
)
from loss_scoring.core.table.comparison import frames
from loss_scoring.core.table.comparison.statistics import exact_sum

KEYS = ["unique_id", "cutoff"]


@pytest.fixture(scope="module")
def scores():
    """Scores of the real forecasts, of which two models lack some."""
    table = pq.read_table(ROOT / "examples/data/forecasts.parquet")
    return score_table(table, missing="skip")


def wide_of(scores, loss="smape"):
    return scores.to_pandas().set_index([*KEYS, "model"])[loss].unstack()  # noqa: PD010


def geometric_skill(losses, baseline):
    """Return 1 - the geometric mean of relative losses between 0.01 and 100, by plain loops."""
    logs = []
    for own, other in zip(losses, baseline, strict=True):
        ratio = 1.0 if own == other else own / other if other else math.inf
        logs.append(math.log(min(max(ratio, 0.01), 100.0)))
    return 1 - math.exp(math.fsum(logs) / len(logs))


def test_a_leaderboard_is_of_the_series_that_all_models_have(scores):
    board = leaderboard(scores, baseline="SeasonalNaive", n_resamples=50).to_pandas()
    wide = wide_of(scores)
    common = wide.dropna()
    board = board.set_index("model")
    assert list(board.index) == list(common.mean().sort_values().index)
    assert (board["n"] == len(common)).all()
    np.testing.assert_allclose(board["mean"], common.mean()[board.index], rtol=1e-14)
    np.testing.assert_array_equal(board["median"], common.median()[board.index])
    ranks = common.rank(axis="columns")
    np.testing.assert_allclose(board["avg_rank"], ranks.mean()[board.index], rtol=1e-14)
    best = common.eq(common.min(axis="columns"), axis="index").sum()
    assert board["wins"].to_dict() == best.to_dict()
    assert board["num_failures"].to_dict() == wide.isna().sum().to_dict()
    for model in common:
        others = [
            (common[model] < common[x]) + 0.5 * (common[model] == common[x])
            for x in common
            if x != model
        ]
        assert board.loc[model, "win_rate"] == pytest.approx(np.mean(others), rel=1e-14)
        want = geometric_skill(common[model], common["SeasonalNaive"])
        assert board.loc[model, "skill_score"] == pytest.approx(want, abs=1e-14)
    for name in ("win_rate", "skill_score"):
        assert (board[f"{name}_lower"] <= board[name]).all()
        assert (board[name] <= board[f"{name}_upper"]).all()
    masked = wide_of(scores, "smape_masked")
    assert board["masked"].to_dict() == masked.loc[common.index].sum().to_dict()


def test_who_leaves_out_the_hard_series_does_not_win(scores):
    """The mean of each model over its own series says the opposite."""
    own = wide_of(scores).mean()
    assert own.idxmin() == "CrostonSBA"
    board = leaderboard(scores, n_resamples=0)
    assert board.table["model"].to_pylist()[0] == "Theta"
    assert board.notes == (
        "smape: 30 of 326 series are compared; CrostonSBA has none for 216, AutoETS has none for 80",
    )


def test_a_mean_is_that_of_utilsforecast(scores):
    """Which takes id and cutoff for one name of a series only if they are one column."""
    models = ["SeasonalNaive", "Theta"]
    frame = pq.read_table(ROOT / "examples/data/forecasts.parquet").to_pandas()
    frame = frame.dropna(subset=["y"])[["unique_id", "cutoff", "ds", "y", *models]]
    frame["unique_id"] += frame.pop("cutoff").astype(str)
    theirs = utilsforecast.evaluation.evaluate(
        frame, metrics=[utilsforecast.losses.mae], models=models, agg_fn="mean"
    )
    rows = scores.filter(pa.compute.is_in(scores["model"], pa.array(models)))
    ours = leaderboard(rows, "mae", n_resamples=0).to_pandas().set_index("model")["mean"]
    for model in models:
        assert ours[model] == pytest.approx(theirs[model].item(), rel=1e-12)


def test_lengths_as_weights_make_a_mean_over_elements(scores):
    """Of elements that were not skipped, which the frame has counted."""
    table = pq.read_table(ROOT / "examples/data/forecasts.parquet").drop_columns(
        ["AutoETS", "CrostonSBA"]
    )
    frame = table.to_pandas().dropna(subset=["y"])
    whole = score_table(pa.Table.from_pandas(frame, preserve_index=False))
    board = leaderboard(whole, "mae", weights="length", n_resamples=0).to_pandas()
    for model, mean in zip(board["model"], board["mean"], strict=True):
        assert mean == pytest.approx((frame["y"] - frame[model]).abs().mean(), rel=1e-12)


@pytest.mark.parametrize("block", [1 << 22, 1000])
def test_scores_in_parts_are_compared_as_those_in_a_frame(scores, block, monkeypatch):
    monkeypatch.setattr(frames, "_BLOCK", block)
    models = ["SeasonalNaive", "AutoETS", "Theta", "CrostonSBA"]
    assert scores["model"].to_pylist()[:8] == 2 * models
    parts = ScoresInParts(models)
    for start in range(0, len(scores), 400):
        parts.add(scores.slice(start, 400), ["smape", "mae"])
    arguments = {"baseline": "Theta", "n_resamples": 20}
    for losses in (["smape", "mae"], ["mae"]):
        whole = leaderboard(scores, losses, **arguments)
        board = leaderboard(parts, losses, **arguments)
        assert board.table == whole.table
        assert (
            pairwise(parts, losses, n_resamples=0).table
            == pairwise(scores, losses, n_resamples=0).table
        )
    given = {"model": "AutoETS", "baseline": "SeasonalNaive", "max_missing": 1, "loss": "mae"}
    assert check(parts, **given) == check(scores, **given)
    with pytest.raises(ScoresError, match=r"no model 'Thta' among .*; did you mean 'Theta'"):
        leaderboard(parts, "mae", baseline="Thta")
    for change in ({"loss": "mse"}, {"loss": "mae", "weights": "length"}):
        with pytest.raises(ScoresError, match=r"there is no column '(mse|length)' among smape"):
            leaderboard(parts, **change)


def test_a_column_of_weights(scores):
    rows = pa.table({"id": ["a", "b"], "model": ["A", "A"], "mae": [1.0, 4.0], "sales": [3, 1]})
    assert leaderboard(rows, "mae", weights="sales").table["mean"].to_pylist() == [1.75]
    nothing = rows.set_column(3, "sales", pa.array([0, 0]))
    assert leaderboard(nothing, "mae", weights="sales").table["mean"].to_pylist() == [None]
    for bad in (-1.0, math.nan, math.inf, None):
        with pytest.raises(ScoresError, match="weights in column 'sales'"):
            leaderboard(rows.set_column(3, "sales", pa.array([1.0, bad])), "mae", weights="sales")


def test_groups_have_leaderboards_of_their_own(scores):
    frame = scores.to_pandas()
    frame["panel"] = frame["unique_id"].str.split("_").str[0]
    board = leaderboard(frame, by="panel", n_resamples=20, baseline="SeasonalNaive").to_pandas()
    assert list(board["panel"].drop_duplicates()) == sorted(frame["panel"].unique())
    for panel, rows in board.groupby("panel"):
        alone = leaderboard(
            frame[frame["panel"] == panel], n_resamples=20, baseline="SeasonalNaive"
        ).to_pandas()
        alone = rows[["model"]].merge(alone, on="model", how="left")
        same = alone.dropna(subset=["n"])  # a model without a row in a group has no line alone
        mine = rows.reset_index(drop=True).loc[same.index, same.columns]
        if len(same) == len(rows):
            pd.testing.assert_frame_equal(mine, same, check_dtype=False)


def test_nothing_in_common_is_a_leaderboard_of_nothing():
    rows = pa.table({"id": ["a", "b"], "model": ["A", "B"], "mae": [1.0, 2.0]})
    board = leaderboard(rows, "mae", baseline="A")
    first = board.table.to_pylist()[0]
    assert first["n"] == 0
    assert {first[name] for name in ("mean", "median", "win_rate", "skill_score_lower")} == {None}
    assert len(board) == 2
    assert board.notes == ("mae: 0 of 2 series are compared; B has none for 1, A has none for 1",)


def test_a_model_without_any_loss_is_listed_and_not_waited_for():
    rows = pa.table(
        {"id": ["a", "b"] * 3, "model": [*"AABBCC"], "mae": [1.0, 2.0, 3.0, 4.0, None, math.nan]}
    )
    board = leaderboard(rows, "mae", baseline="B")
    assert board.table["n"].to_pylist() == [2, 2, 0]
    assert board.table["num_failures"].to_pylist() == [0, 0, 2]
    assert board.table["mean"].to_pylist() == [1.5, 3.5, None]
    assert board.notes == ("mae: 2 of 2 series are compared; C has none for 2",)
    assert leaderboard(rows, "mae", baseline="C").table["n"].to_pylist() == [0, 0, 0]
    assert len(pairwise(rows, "mae")) == 4


def test_missing_losses_are_filled_in_or_refused(scores):
    board = leaderboard(scores, baseline="SeasonalNaive", missing="impute", n_resamples=0)
    wide = wide_of(scores)
    filled = wide.apply(lambda column: column.fillna(wide["SeasonalNaive"]))
    ours = board.to_pandas().set_index("model")["mean"]
    np.testing.assert_allclose(ours, filled.mean()[ours.index], rtol=1e-13)
    assert "296 of 326 series are filled in" in board.notes[0]
    with pytest.raises(ScoresError, match="AutoETS has none for 80"):
        leaderboard(scores, missing="error")
    with pytest.raises(ScoresError, match="AutoETS itself has none for 80 of 326"):
        leaderboard(scores, missing="impute", baseline="AutoETS")
    with pytest.raises(ValueError, match="needs a baseline"):
        leaderboard(scores, missing="impute")


def test_zeros_and_infinities_do_not_break_a_score():
    rows = pa.table(
        {
            "id": ["a", "b", "c", "d"] * 2,
            "model": ["A"] * 4 + ["B"] * 4,
            "mae": [0.0, 0.0, 1.0, math.inf, 0.0, 2.0, 0.0, math.inf],
        }
    )
    board = leaderboard(rows, "mae", baseline="A", n_resamples=10).to_pandas().set_index("model")
    logs = [0, math.log(100), math.log(0.01), 0]
    assert board.loc["B", "skill_score"] == pytest.approx(1 - math.exp(sum(logs) / 4), abs=1e-15)
    assert board.loc["B", "mean"] == math.inf
    assert board.loc["B", "win_rate"] == 0.5


def test_pairs(scores):
    table = pairwise(scores, n_resamples=50).to_pandas().set_index(["model_1", "model_2"])
    common = wide_of(scores).dropna()
    order = list(common.rank(axis="columns").mean().sort_values(kind="stable").index)
    assert list(table.index.get_level_values(0)[:: len(order)]) == order
    for (first, second), row in table.iterrows():
        a, b = common[first], common[second]
        assert row["win_rate"] == ((a < b) + 0.5 * (a == b)).mean()
        assert row["skill_score"] == pytest.approx(geometric_skill(a, b), abs=1e-14)
        assert row["skill_score_lower"] <= row["skill_score"] <= row["skill_score_upper"]


def test_the_interval_is_that_of_resampled_series(scores):
    """By drawing rows and computing each resample anew."""
    board = leaderboard(scores, baseline="SeasonalNaive", n_resamples=300, confidence=0.9, seed=5)
    common = wide_of(scores).dropna().to_numpy()
    models = sorted(wide_of(scores).columns)
    common = common[np.lexsort(common.T[::-1])]
    drawn = np.random.default_rng(5).integers(0, len(common), size=(300, len(common)))
    place = models.index("SeasonalNaive")
    ours = board.to_pandas().set_index("model")
    for model, name in enumerate(models):
        skills = [geometric_skill(x[:, model], x[:, place]) for x in common[drawn]]
        low, high = np.quantile(skills, [0.05, 0.95])
        assert ours.loc[name, "skill_score_lower"] == pytest.approx(low, abs=1e-12)
        assert ours.loc[name, "skill_score_upper"] == pytest.approx(high, abs=1e-12)


def test_draws_in_parts_are_the_same_draws(scores, monkeypatch):
    from loss_scoring.core.table.comparison import statistics

    whole = leaderboard(scores, n_resamples=101).table
    for at_once in (1, 77, 1000):
        monkeypatch.setattr(statistics, "_DRAWN_AT_ONCE", at_once)
        parts = leaderboard(scores, n_resamples=101).table
        for name in whole.column_names:
            if name.endswith(("lower", "upper")):
                np.testing.assert_allclose(
                    parts[name].to_numpy(), whole[name].to_numpy(), rtol=1e-13
                )


finite = st.floats(0, 1e300) | st.sampled_from([0.1, 0.2, 0.3, 1e-320])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_an_aggregate_has_the_same_bits_however_it_was_sharded(data):
    """Shuffled rows, in parts, in other chunks: every statistic is equal to the bit."""
    count, models = data.draw(st.integers(1, 12)), ["A", "B", "C"][: data.draw(st.integers(1, 3))]
    rows = [(f"s{i}", m, data.draw(finite | st.none())) for i in range(count) for m in models]
    weights = {row[0]: data.draw(st.integers(0, 9)) for row in rows}
    shuffled = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(0, len(rows)))

    def table(rows):
        columns = list(zip(*rows, strict=True)) or [[], [], []]
        arrays = [
            pa.array(c, t)
            for c, t in zip(columns, (pa.string(), pa.string(), pa.float64()), strict=True)
        ]
        return pa.table(
            [*arrays, pa.array([weights[row[0]] for row in rows], pa.int64())],
            ["unique_id", "model", "mae", "length"],
        )

    def boards(table):
        return [
            leaderboard(table, "mae", baseline="A", weights="length", n_resamples=20).table,
            pairwise(table, "mae", n_resamples=20).table,
        ]

    parts = pa.concat_tables([table(shuffled[:cut]), table(shuffled[cut:])])
    assert [str(b.to_pylist()) for b in boards(table(rows))] == [
        str(b.to_pylist()) for b in boards(parts)
    ]


@settings(max_examples=50, deadline=None)
@given(st.lists(finite, min_size=1, max_size=30))
def test_a_mean_is_the_rounded_exact_sum_by_the_count(values):
    rows = pa.table({"id": range(len(values)), "model": ["A"] * len(values), "mae": values})
    total = float(sum(map(Fraction, values)))
    assert leaderboard(rows, "mae", n_resamples=0).table["mean"][0].as_py() == total / len(values)


@pytest.mark.parametrize("largest", [-900, 0, 990, 1005])
@pytest.mark.parametrize("count", [1, 1023, 1025, 40_000])
def test_the_sum_of_many_values_is_the_rounded_exact_sum(largest, count):
    rng = np.random.default_rng([count, abs(largest)])
    values = np.ldexp(rng.normal(size=count), rng.integers(largest - 200, largest, count))
    values[rng.integers(0, count, 3)] = 0.0, -0.0, values[0]
    assert exact_sum(values) == math.fsum(values.tolist())


@pytest.mark.parametrize(
    "convert",
    [
        pa.Table.to_pandas,
        pl.from_arrow,
        lambda table: table.to_batches()[0],
        lambda table: table.to_pandas().set_index(KEYS),
        lambda table: table.to_pandas().sample(frac=1, random_state=1),
        lambda table: table.set_column(0, "unique_id", table["unique_id"].dictionary_encode()),
        lambda table: table.set_column(0, "unique_id", table["unique_id"].cast(pa.string_view())),
        lambda table: table.set_column(2, "model", table["model"].dictionary_encode()),
    ],
)
def test_any_frame_of_scores(scores, convert):
    want = leaderboard(scores, n_resamples=30).table
    assert leaderboard(convert(scores), n_resamples=30).table.equals(want)


@pytest.mark.parametrize(
    "ids",
    [
        [1, 2],
        [1.5, math.nan],
        [True, False],
        pa.array(["1.1", "2.2"]).cast(pa.decimal128(5, 2)),
        pa.array([1, 2], pa.timestamp("ns", "UTC")),
        pa.array([1, 2], pa.duration("s")),
    ],
)
def test_ids_of_any_type(ids):
    ids = pa.array(ids)
    rows = pa.table(
        {
            "id": pa.concat_arrays([ids, ids]),
            "model": ["A", "A", "B", "B"],
            "mae": [1.0, 2.0, 3.0, 4.0],
        }
    )
    assert leaderboard(rows, "mae").table["n"].to_pylist() == [2, 2]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop_columns("model"), "no column 'model'"),
        (lambda t: t.drop_columns("smape"), "no column 'smape' among"),
        (lambda t: t.select(["model", "smape"]), "no column tells series apart"),
        (lambda t: pa.concat_tables([t, t]), r"rows \d+ and \d+ are both model=\w+, unique_id=\w+, cutoff=.*the first of 1304 such pairs"),
        (lambda t: t.select(["unique_id", "model", "smape"]), "name by keys="),
        (lambda t: t.set_column(0, "unique_id", pa.nulls(len(t))), "'unique_id' is null in 1304 rows"),
        (lambda t: t.set_column(4, "smape", t["model"]), "more than once"),
        (lambda t: t.slice(0, 0), "has no rows"),
        (lambda t: t.drop_columns("smape").append_column("smape", t["model"]), "must hold numbers, not string"),
        (lambda t: t.set_column(0, "unique_id", pa.array([[1]] * len(t))), "'unique_id' cannot be compared"),
        (lambda t: t.to_pylist(), "a frame of scores is wanted, not list"),
    ],
)  # fmt: skip
def test_what_is_no_frame_of_scores_is_refused(scores, change, says):
    with pytest.raises(ScoresError, match=says):
        leaderboard(change(scores))


def test_names_and_numbers_are_checked(scores):
    with pytest.raises(
        ScoresError, match=r"no model 'SeasonalNaiv' .*did you mean 'SeasonalNaive'"
    ):
        leaderboard(scores, baseline="SeasonalNaiv")
    for wrong in ({"missing": "drop"}, {"n_resamples": -1}, {"confidence": 1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            leaderboard(scores, **wrong)


def test_a_leaderboard_is_any_frame(scores):
    board = leaderboard(scores, ["smape", "mae"], n_resamples=0)
    assert board.to_pandas().equals(board.to_arrow().to_pandas())
    assert pl.DataFrame(board).equals(board.to_polars())
    assert len(board) == 8
    lines = repr(board).splitlines()
    assert lines[0].split() == board.table.column_names
    assert " (0." in repr(leaderboard(scores))
    assert lines[-1] == board.notes[-1]
    rows = board.to_markdown().splitlines()
    assert len(rows) == 10
    assert rows[1].startswith("| --- | --- | ---: |")


def test_a_leaderboard_in_a_notebook_is_text_and_no_markup():
    rows = pa.table({"id": ["a"], "model": ["<script>|"], "mae": [1.0]})
    board = leaderboard(rows, "mae")
    assert "<script>" not in board._repr_html_()
    assert "&lt;script&gt;|" in board._repr_html_()
    assert r"<script>\|" in board.to_markdown()


def means_of(scores, first, second, loss="smape"):
    wide = wide_of(scores, loss)[[first, second]].dropna()
    return wide[first].mean(), wide[second].mean()


def test_a_better_model_passes(scores):
    (row,) = check(scores, model="Theta", baseline="SeasonalNaive", loss="mae")
    own, other = means_of(scores, "Theta", "SeasonalNaive", "mae")
    assert (row.verdict, row.n, row.num_failures, row.limit) == ("passed", 326, 0, 0)
    assert (row.loss, row.baseline) == pytest.approx((own, other), rel=1e-13)
    assert row.value == pytest.approx((other - own) / other, rel=1e-12)
    assert str(row).startswith(
        "passed: mae of Theta no worse than that of SeasonalNaive: 67.3077 against 96"
    )


def test_a_worse_model_fails_and_the_error_holds_the_rows(scores):
    with pytest.raises(WorseError, match=r"0\.167666 against 0\.160832") as error:
        check(scores, model="Theta", baseline="SeasonalNaive", max=0.2)
    assert [row.verdict for row in error.value.rows] == ["worse", "passed"]
    for twin in (copy.copy(error.value), pickle.loads(pickle.dumps(error.value))):  # noqa: S301
        assert twin.rows == error.value.rows
    with pytest.raises(WorseError):
        check(scores, model="SeasonalNaive", max=0.1)
    with pytest.raises(WorseError):
        check(
            scores,
            model="Theta",
            baseline="SeasonalNaive",
            loss="mae",
            min_relative_improvement=0.4,
        )


def test_an_interval_on_both_sides_cannot_tell(scores):
    (row,) = check(scores, model="Theta", baseline="SeasonalNaive", confidence=0.95)
    assert row.verdict == "cannot tell"
    assert row.lower < 0 < row.upper
    with pytest.raises(WorseError) as error:
        check(
            scores,
            model="Theta",
            baseline="SeasonalNaive",
            min_relative_improvement=0.2,
            confidence=0.95,
        )
    assert error.value.rows[0].upper < 0.2
    (row,) = check(scores, model="Theta", max=1.0, confidence=0.95)
    assert row.verdict == "passed"
    assert row.lower < row.loss < row.upper < 1


def test_series_that_the_model_lacks_are_not_passed_over(scores):
    with pytest.raises(NotComparableError, match="246 series, 80 missing") as error:
        check(scores, model="AutoETS", baseline="SeasonalNaive", max_missing=0.2)
    assert error.value.rows[0].verdict == "not comparable"
    with pytest.raises(WorseError):  # 80 of 326 are 0.245
        check(scores, model="AutoETS", baseline="SeasonalNaive", max_missing=0.25)
    (row,) = check(scores, model="SeasonalNaive", baseline="CrostonSBA", max=1)[:1]
    assert (row.n, row.num_failures) == (110, 0)  # what only the model has is no harm


def test_each_group_must_pass():
    rows = pa.table(
        {
            "id": ["a", "b"] * 2,
            "model": ["Old", "Old", "New", "New"],
            "mae": [1.0, 1.0, 0.5, 1.1],
            "category": ["x", "y"] * 2,
        }
    )
    assert check(rows, model="New", baseline="Old", loss="mae")
    with pytest.raises(WorseError, match="category=y") as error:
        check(rows, model="New", baseline="Old", loss="mae", by="category")
    assert [(row.group, row.verdict) for row in error.value.rows] == [
        ({"category": "x"}, "passed"),
        ({"category": "y"}, "worse"),
    ]


@pytest.mark.parametrize(
    ("own", "other", "verdict"),
    [
        (0.0, 0.0, "passed"),
        (1.0, 0.0, "worse"),
        (math.nextafter(1.99, 2), 1.99, "worse"),  # whose quotient rounds to 1
        (math.inf, math.inf, "passed"),
        (math.inf, 1.0, "worse"),
        (-2.0, -1.0, "worse"),
        (-1.0, -2.0, "passed"),
        (-100.0, 1.0, "worse"),
        (-1.0, 1.0, "passed"),
    ],
)
def test_means_at_the_edge(own, other, verdict):
    rows = pa.table({"id": ["a", "a"], "model": ["New", "Old"], "mae": [own, other]})
    try:
        found = check(rows, model="New", baseline="Old", loss="mae")
    except CheckError as error:
        found = error.rows
    assert [row.verdict for row in found] == [verdict]


def test_arguments_of_check_are_checked(scores):
    for wrong, says in [
        ({}, "name a baseline or a max"),
        ({"max": 1, "min_relative_improvement": 0.1}, "needs a baseline"),
        ({"baseline": "Theta"}, "its own baseline"),
        ({"max": 1, "max_missing": 2}, "a share"),
        ({"max": 1, "confidence": 95}, "between 0 and 1"),
        ({"baseline": "Nobody"}, "no model 'Nobody'"),
    ]:
        with pytest.raises(ValueError, match=says):
            check(scores, model="Theta", **wrong)


@pytest.mark.parametrize("package", ["loss_scoring.core.table.comparison", "lossclient.comparison"])
@pytest.mark.parametrize("module", ["boards", "checks", "pooling", "statistics"])
def test_examples_in_docstrings_run(package, module):
    result = doctest.testmod(importlib.import_module(f"{package}.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_client_has_the_same_without_torch(scores, tmp_path):
    pq.write_table(scores, tmp_path / "scores.parquet")
    code = (
        "import sys, pyarrow.parquet as pq, lossclient;"
        f"print(lossclient.leaderboard(pq.read_table({str(tmp_path / 'scores.parquet')!r})));"
        "assert not {'torch', 'loss_scoring.core'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == repr(leaderboard(scores))
    assert lossclient.check.__doc__ == check.__doc__


signed = st.integers(-1000, 1000).map(float)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(signed, signed), min_size=1, max_size=8))
def test_the_gate_and_the_leaderboard_agree_on_losses_with_a_sign(losses):
    rows = pa.table(
        {
            "id": [i for i, _ in enumerate(losses) for _ in "ab"],
            "model": ["New", "Old"] * len(losses),
            "bias": [loss for pair in losses for loss in pair],
        }
    )
    new, old = (abs(math.fsum(side)) / len(losses) for side in zip(*losses, strict=True))
    try:
        found = check(rows, model="New", baseline="Old", loss="bias", max=2.0)
    except WorseError as error:
        found = error.rows
    assert [row.verdict == "passed" for row in found] == [new <= old, new <= 2]
    assert found[1].value == new
    if new != old:
        first = leaderboard(rows, "bias", n_resamples=0).table["model"][0].as_py()
        assert (first == "New") == (new < old)


def test_an_interval_of_losses_with_a_sign_is_of_their_size():
    rows = pa.table({"id": [1, 2], "model": ["New"] * 2, "bias": [-100.0, -90.0]})
    with pytest.raises(WorseError, match=r"-95, interval .* \(2 series, compared without signs\)"):
        check(rows, model="New", loss="bias", max=0.2, confidence=0.9)
    assert check(rows, model="New", loss="bias", max=101, confidence=0.9)[0].lower >= 90


def test_losses_with_a_sign_are_compared_by_their_size():
    table = pa.table(
        {
            "unique_id": ["a", "a", "b", "b"],
            "model": ["Low", "Near"] * 2,
            "bias": [-3.0, 1.0, -2.0, -1.0],
        }
    )
    board = leaderboard(table, "bias", n_resamples=0).to_arrow()
    assert board["model"].to_pylist() == ["Near", "Low"]
    assert board["mean"].to_pylist() == [0, -2.5]
    assert board["wins"].to_pylist() == [2, 0]
