"""Weights and scales in ``score`` and ``score_table``, against numpy and torch's autograd."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loss_scoring.core import LOSSES, LossSpec, Ragged, find_missing, may_be_missing, score
from loss_scoring.core.table import CellsError, TableError, score_table

SCALED = ["mae", "mase"]


def batch(lengths, seed=0):
    make = np.random.default_rng(seed)
    p, y, w = (make.normal(size=sum(lengths)) for _ in range(3))
    return [Ragged.from_lengths(values, lengths) for values in (p, y, np.abs(w).round(1))]


def terms_of(loss, p, y):
    """Return the weighted terms' dividend and divisor of a series, as torch has them."""
    error = (y - p).abs()
    quotient = {"mape": y.abs(), "smape": y.abs() + p.abs().detach()}.get(loss)
    return error if quotient is None else error / quotient


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 99))
def test_a_loss_is_the_weighted_mean_of_its_terms(lengths, seed):
    p, y, w = batch(lengths, seed)
    scores = score(p, y, weights=w, gradients=True)
    values, masked, gradients = scores.arrays()
    for i in range(len(lengths)):
        own = slice(p.offsets[i], p.offsets[i + 1])
        for loss in ("mae", "mape", "smape"):
            x = p[i].clone().requires_grad_()
            terms = terms_of(loss, x, y[i])
            if not w[i].sum():
                assert np.isnan(values[loss][i])
                assert masked[loss][i] == lengths[i]
                assert not gradients[loss][own].any()
                continue
            mean = np.average(terms.detach().numpy(), weights=w[i].numpy())
            assert values[loss][i] == pytest.approx(mean, rel=1e-13)
            ((terms * w[i]).sum() / w[i].sum()).backward()
            assert gradients[loss][own] == pytest.approx(x.grad.numpy(), rel=1e-12)
            assert masked[loss][i] == 0


def test_equal_weights_change_no_value_by_more_than_rounding():
    p, y, w = batch([5, 40, 1], 3)
    plain, weighted = score(p, y), score(p, y, weights=w.like(np.full(46, 0.25)))
    for loss, values in plain.arrays()[0].items():
        assert weighted.arrays()[0][loss] == pytest.approx(values, rel=1e-15)


def test_elements_without_weight_do_not_count():
    p, y, _ = batch([6, 6], 4)
    w = p.like(np.array([1.0, 1, 0, 1, 0, 0] * 2))
    kept = w.array > 0
    fewer = [Ragged.from_lengths(side.array[kept], [3, 3]) for side in (p, y)]
    want = score(*fewer).arrays()[0]
    for loss, values in score(p, y, weights=w).arrays()[0].items():
        assert values == pytest.approx(want[loss], rel=1e-15)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_a_scale_that_cannot_divide_gives_null_and_a_count(scale):
    p, y, _ = batch([3, 2])
    scores = score(p, y, SCALED, scales=[2.0, scale], gradients=True)
    values, masked, gradients = scores.arrays()
    assert values["mase"].tolist()[0] == values["mae"][0] / 2
    assert np.isnan(values["mase"][1])
    assert masked["mase"].tolist() == [0, 2]
    assert gradients["mase"].tolist() == [*(gradients["mae"][:3] / 2).tolist(), 0, 0]


def test_a_missing_element_leaves_a_trace_whatever_it_weighs():
    for losses in (["mae"], ["mape"], SCALED):
        p = Ragged.from_lengths(np.array([np.nan, 1.0]), [2])
        w = p.like(np.array([0.0, 1.0]))
        y = p.like(np.ones(2))
        given = {"weights": w, "scales": [1.0] if losses is SCALED else None}
        scores = score(p, y, losses, **given, missing="propagate")
        assert may_be_missing(scores)
        with pytest.raises(ValueError, match="series 0, prediction element 0"):
            score(p, y, losses, **given)
    assert find_missing(p, y).affected == 1


def test_what_is_refused():
    p, y, w = batch([3, 2])
    bad = w.like(np.array([1.0, 1, 1, 1, -2]))
    with pytest.raises(ValueError, match=r"at least 0, not -2.0 as element 1 of series 1"):
        score(p, y, weights=bad)
    with pytest.raises(ValueError, match="weights and prediction must have the same offsets"):
        score(p, y, weights=Ragged.from_lengths(w.array, [2, 3]))
    with pytest.raises(ValueError, match="mase and rmsse must have scales"):
        score(p, y, ["mase", "mae", "rmsse"])
    with pytest.raises(ValueError, match="none of the losses asked for takes scales"):
        score(p, y, ["mae"], scales=[1.0, 2.0])
    with pytest.raises(ValueError, match="one a series, 2, not"):
        score(p, y, ["mase"], scales=[1.0])


def long_table(**columns):
    table = {
        "unique_id": ["a", "b", "a", "b", "a"],
        "y": [1.0, 2.0, 3.0, 4.0, 5.0],
        "A": [2.0, 2.5, 0.0, 4.0, 5.0],
        "B": [1.0, 1.0, 1.0, 1.0, 1.0],
        "w": [1.0, 0.0, 2.0, 0.0, 0.5],
        "s": [2, 0, 2, 0, 2],
    }
    return pa.table(table | columns)


def scored(table, **options):
    named = {"group_by": ["unique_id"], "weight_col": "w", "scale_col": "s", "losses": SCALED}
    return score_table(table, **named | options)


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.int8()])
def test_a_table_is_scored_as_its_series_are(kind):
    table = long_table(w=pa.array([1, 0, 2, 0, 3], kind))
    answer = scored(table, gradients=True)
    assert answer["model"].to_pylist() == ["A", "B", "A", "B"]
    a, b = (Ragged.from_lengths(table[name].to_numpy()[[0, 2, 4, 1, 3]], [3, 2]) for name in "AB")
    y = a.like(table["y"].to_numpy()[[0, 2, 4, 1, 3]])
    w = a.like(np.array([1.0, 2, 3, 0, 0]))
    for place, model in enumerate((a, b)):
        want = score(model, y, SCALED, weights=w, scales=[2, 0], gradients=True).arrays()
        for loss in SCALED:
            assert answer[loss].to_pylist()[place] == want[0][loss][0]
            assert answer[loss].to_pylist()[2 + place] is None
            assert answer[f"{loss}_masked"].to_pylist()[place::2] == [0, 2]
            slopes = answer[f"{loss}_gradient"].to_pylist()[place::2]
            assert [x for row in slopes for x in row] == want[2][loss].tolist()


def test_a_void_loss_is_null_and_a_propagated_one_is_not():
    table = long_table(A=[np.nan, 2.5, 0.0, np.nan, 5.0])
    answer = scored(table, missing="propagate", predictions=["A"])
    assert np.isnan(answer["mae"].to_pylist()[0])
    assert np.isnan(answer["mase"].to_pylist()[0])
    assert answer["mae"].to_pylist()[1] is None
    assert answer["mase"].to_pylist()[1] is None


def test_what_a_table_is_refused_for():
    with pytest.raises(CellsError, match=r"'w' in row 3 of the series unique_id='b' is -1"):
        scored(long_table(w=[1.0, 1, 1, -1, None]))
    with pytest.raises(CellsError, match=r"'s' in row 4 .*'a' is 3; a series has one scale"):
        scored(long_table(s=[2, 0, 2, 0, 3]))
    with pytest.raises(TableError, match="'v' is absent"):
        scored(long_table(), weight_col="v")
    with pytest.raises(TableError, match="'w' must hold numbers, not string"):
        scored(long_table(w=list("abcde")))
    with pytest.raises(TableError, match="'y' is named more than once"):
        scored(long_table(), weight_col="y")
    needed = "mase must have scales; pass scale_col, or train_df and seasonality"
    with pytest.raises(ValueError, match=needed):
        scored(long_table(), scale_col=None)


def test_scales_may_be_null():
    answer = scored(long_table(s=[None, 2, None, 2, None]), weight_col=None, exclude=["w"])
    assert answer["mase"].is_null().to_pylist() == [True, True, False, False]
    assert answer["mase_masked"].to_pylist() == [3, 3, 0, 0]
    assert set(SCALED) <= set(LOSSES)


@pytest.mark.darts
@pytest.mark.parametrize(
    ("name", "loss", "options"),
    [
        ("mean_absolute_error", "mae", {}),
        ("mean_squared_error", "mse", {}),
        ("root_mean_squared_error", "rmse", {}),
        ("mean_absolute_percentage_error", "mape", {}),
        ("mean_pinball_loss", {"name": "pinball", "q": 0.9}, {"alpha": 0.9}),
    ],
)
def test_weights_are_those_of_sklearn(name, loss, options):
    metrics = pytest.importorskip("sklearn.metrics")
    p, y, w = batch([5, 40, 200], 6)
    (values,) = score(p, y, [loss], weights=w).arrays()[0].values()
    for i, value in enumerate(values):
        want = getattr(metrics, name)(y[i], p[i], sample_weight=w[i], **options)
        assert value == pytest.approx(want, rel=1e-13)


@pytest.mark.darts
@pytest.mark.filterwarnings("ignore")  # of what neuralforecast imports
@pytest.mark.parametrize(
    ("name", "loss", "options", "factor"),
    [
        ("MAE", "mae", {}, 1),
        ("MSE", "mse", {}, 1),
        ("RMSE", "rmse", {}, 1),
        ("MAPE", "mape", {}, 1),
        ("SMAPE", {"name": "smape", "block_denom_grad": False}, {}, 2),
        ("HuberLoss", {"name": "huber", "delta": 0.5}, {"delta": 0.5}, 1),
        ("QuantileLoss", {"name": "pinball", "q": 0.9}, {"q": 0.9}, 1),
    ],
)
def test_weights_are_the_horizon_weights_of_neuralforecast(name, loss, options, factor):
    """There the mean is over a batch of [series, horizon, 1], here over each series."""
    losses = pytest.importorskip(
        "neuralforecast.losses.pytorch", reason="make test-darts installs it"
    )
    n, horizon = 5, 24
    rng = np.random.default_rng(7)
    p, y = rng.normal(size=(2, n, horizon))
    y[:, ::6] = 0
    kept = rng.random((n, horizon)) > 0.1
    w = rng.integers(0, 9, horizon).astype(np.float32)
    theirs = getattr(losses, name)(horizon_weight=torch.from_numpy(w), **options)
    actual, mask = torch.from_numpy(y)[..., None], torch.from_numpy(kept * 1.0)[..., None]

    leaf = torch.from_numpy(p)[..., None].requires_grad_()
    want = [theirs(actual[i : i + 1], leaf[i : i + 1], mask=mask[i : i + 1]) for i in range(n)]
    torch.stack(want).sum().backward()
    slopes = leaf.grad.flatten().numpy() / factor
    want = [value.item() / factor for value in want]

    sides = [
        Ragged.from_lengths(side.ravel(), [horizon] * n) for side in (p, np.where(kept, y, np.nan))
    ]
    weights = sides[0].like(np.tile(w, n).astype(float))
    scores = score(*sides, [loss], weights=weights, missing="skip", gradients=True).arrays()
    label = LossSpec.of(loss).name
    assert scores[0][label] == pytest.approx(want, rel=1e-13)
    assert scores[2][label] == pytest.approx(slopes, rel=1e-12, abs=1e-300)

    table = pa.table(
        {
            "unique_id": np.repeat(np.arange(n), horizon),
            "y": pa.array(y.ravel(), mask=~kept.ravel()),
            "A": p.ravel(),
            "w": np.tile(w, n),
        }
    )
    own = {"group_by": ["unique_id"], "weight_col": "w", "missing": "skip", "losses": [loss]}
    assert score_table(table, **own)[label].to_pylist() == pytest.approx(want, rel=1e-13)

    ours = LossSpec.of(loss).module()
    tiled = torch.from_numpy(w).double()[None, :, None]
    batch_leaf = leaf.detach().clone().requires_grad_()
    ours(batch_leaf, actual, weight=tiled.expand(n, horizon, 1) * mask).backward()
    value = ours(leaf.detach(), actual, weight=tiled.expand(n, horizon, 1) * mask).item()
    again = leaf.detach().clone().requires_grad_()
    whole = theirs(actual, again, mask=mask)
    whole.backward()
    assert value == pytest.approx(whole.item() / factor, rel=1e-13)
    assert batch_leaf.grad.numpy() == pytest.approx(
        again.grad.numpy() / factor, rel=1e-12, abs=1e-300
    )
