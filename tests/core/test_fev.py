"""Leaderboards and pairs against fev's, of the same losses: a task there is a series here."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from loss_scoring.core.table import leaderboard, pairwise, score_table

fev = pytest.importorskip(
    "fev", reason="make test-decisions installs it in an environment of its own"
)
pytestmark = [pytest.mark.decisions, pytest.mark.filterwarnings("ignore")]
BASELINE = "SeasonalNaive"
STATISTICS = ["win_rate", "win_rate_lower", "win_rate_upper"]
STATISTICS += [name.replace("win_rate", "skill_score") for name in STATISTICS]


@pytest.fixture(scope="module", params=["real", "drawn"])
def losses(request):
    """One row a series, a column a model.

    In the order in which we draw: that of the losses, so that both draw the same series. Series
    that one of both cannot take are left out: fev refuses a baseline without error, and compares
    relative errors after they were clipped, so that what is beyond the bounds is a tie.
    """
    if request.param == "real":
        table = pq.read_table(ROOT / "examples/data/forecasts.parquet")
        scores = score_table(table, missing="skip").to_pandas()
        wide = scores.set_index(["unique_id", "cutoff", "model"])["smape"].unstack()  # noqa: PD010
        wide = wide.drop(columns="CrostonSBA").dropna()
    else:
        draws = np.random.default_rng(1).lognormal(size=(500, 7))
        wide = pd.DataFrame(draws, columns=[BASELINE, *"ABCDEF"])
    wide = wide[sorted(wide.columns)]
    ratios = wide.div(wide[BASELINE], axis="index")
    wide = wide[ratios.ge(0.01).all(axis="columns") & ratios.le(100).all(axis="columns")]
    wide = wide.sort_values(list(wide.columns)).reset_index(drop=True)
    assert len(wide) > 200
    return wide


def long(wide):
    rows = wide.rename_axis("task").reset_index()
    return rows.melt("task", var_name="model", value_name="smape")


def summaries(wide):
    rows = long(wide)
    rows = rows.assign(
        dataset_path="d",
        dataset_config=rows.pop("task").map("{:06}".format),
        quantile_levels="[]",
        fev_version="0.10.0",
        trained_on_this_dataset=False,
    )
    return rows.rename(columns={"model": "model_name", "smape": "test_error"})


def test_leaderboard(losses):
    theirs = fev.leaderboard(summaries(losses), baseline_model=BASELINE, n_resamples=500, seed=123)
    ours = leaderboard(long(losses), keys=["task"], baseline=BASELINE, n_resamples=500, seed=123)
    ours = ours.to_pandas().set_index("model")
    for name in STATISTICS:
        np.testing.assert_allclose(ours[name], theirs[name][ours.index], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), [("common", "drop"), ("impute", "impute")])
def test_missing(losses, ours, theirs):
    holes = losses.mask(np.random.default_rng(2).random(losses.shape) < 0.1)
    holes[BASELINE] = losses[BASELINE]
    board = (
        leaderboard(long(holes), keys=["task"], baseline=BASELINE, missing=ours, n_resamples=0)
        .to_pandas()
        .set_index("model")
    )
    want = fev.leaderboard(summaries(holes), baseline_model=BASELINE, missing_strategy=theirs)
    for name in ("win_rate", "skill_score", "num_failures"):
        np.testing.assert_allclose(board[name], want[name][board.index], rtol=0, atol=1e-12)


def test_pairs(losses):
    theirs = fev.pairwise_comparison(summaries(losses), n_resamples=300, seed=7)
    ours = pairwise(long(losses), keys=["task"], n_resamples=300, seed=7)
    ours = ours.to_pandas().set_index(["model_1", "model_2"])
    for name in STATISTICS:
        np.testing.assert_allclose(ours[name], theirs[name][ours.index], rtol=0, atol=1e-12)
