"""Each loss against its formula in numpy, and torch's derivative of that formula."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from reference import DEFAULT

from loss_scoring.core import LOSSES, LossSpec, ScoreOptions
from loss_scoring.core.kernels.fused_cpu import CHUNK, FusedCpuKernel
from loss_scoring.core.kernels.plain import plain_kernel

SPECS = tuple(
    LossSpec(name, **{"huber": {"delta": 1.3}, "pinball": {"q": 0.9}}.get(name, {}))
    for name in LOSSES
)
HUBER = torch.nn.HuberLoss(reduction="none", delta=1.3)
TERMS = {
    "mae": lambda p, y: (p - y).abs(),
    "mape": lambda p, y: ((p - y) / y).abs(),
    "smape": lambda p, y: (p - y).abs() / (p.abs() + y.abs()).detach(),
    "mse": torch.nn.MSELoss(reduction="none"),
    "bias": lambda p, y: p - y,
    "huber": HUBER,
    "logcosh": lambda p, y: torch.log(torch.cosh(p - y)),
    "pinball": lambda p, y: torch.maximum(0.9 * (y - p), -0.1 * (y - p)),
}


def expected(name, p, y, w, scale):
    """Return the loss of a series by its formula, in torch, so that it can be derived."""
    if name in TERMS:
        return (w * TERMS[name](p, y)).sum() / w.sum()
    mean = {n: expected(n, p, y, w, scale) for n in ("mae", "mse")}
    return {
        "rmse": mean["mse"].sqrt,
        "wape": lambda: (w * (p - y).abs()).sum() / (w * y.abs()).sum(),
        "mase": lambda: mean["mae"] / scale,
        "rmsse": lambda: mean["mse"].sqrt() / scale,
    }[name]()


def batch(dtype, lengths):
    rng = np.random.default_rng(0)
    p, y = (rng.normal(1, 2, sum(lengths)).astype(dtype) for _ in range(2))
    weights, scales = rng.random(len(p)), rng.random(len(lengths)) + 0.5
    weights[::7] = 0
    return p, y, np.concatenate([[0], np.cumsum(lengths)]), weights, scales


def plain(p, y, *others):
    return plain_kernel(torch.from_numpy(p), torch.from_numpy(y), *others)


@pytest.mark.parametrize("kernel", [FusedCpuKernel(), plain], ids=["fused", "plain"])
@pytest.mark.parametrize(("dtype", "weighted"), [(np.float32, False), (np.float64, True)])
def test_losses_and_gradients_are_those_of_the_formula(kernel, dtype, weighted):
    lengths = [1, 15, 16, 40, 128, 129, 1000, CHUNK + 9]
    p, y, offsets, weights, scales = batch(dtype, lengths)
    options = ScoreOptions(SPECS, gradients=True)
    scores = kernel(p, y, offsets, options, weights if weighted else None, scales)
    tolerance = 1e-4 if dtype == np.float32 else 1e-9
    for i, (a, b) in enumerate(itertools.pairwise(offsets)):
        leaf = torch.from_numpy(p[a:b].astype(float)).requires_grad_()
        target = torch.from_numpy(y[a:b].astype(float))
        w = torch.from_numpy(weights[a:b] if weighted else np.ones(b - a))
        for spec in SPECS:
            loss = expected(spec.name, leaf, target, w, scales[i])
            value = float(scores.values[spec.name][i])
            if weighted and not w.any():
                assert math.isnan(value)
                assert scores.masked[spec.name][i] == b - a
                assert not scores.gradients[spec.name][a:b].any()
                continue
            assert value == pytest.approx(loss.item(), rel=tolerance, abs=tolerance)
            (slope,) = torch.autograd.grad(loss, leaf)
            np.testing.assert_allclose(
                scores.gradients[spec.name][a:b].double(), slope, tolerance, tolerance / (b - a)
            )


@pytest.mark.parametrize("kernel", [FusedCpuKernel(), plain], ids=["fused", "plain"])
def test_a_series_without_a_divisor_is_null_and_counted(kernel):
    p, y = np.array([1.0, 2, 3, 4]), np.array([0.0, 0, 3, 5])
    scales = np.array([0.0, math.inf])
    specs = tuple(map(LossSpec, ("wape", "mase", "rmsse")))
    scores = kernel(p, y, np.array([0, 2, 4]), ScoreOptions(specs, gradients=True), None, scales)
    assert scores.values["wape"].isnan().tolist() == [True, False]
    assert scores.masked["wape"].tolist() == [2, 0]
    assert not scores.gradients["wape"][:2].any()
    for name in ("mase", "rmsse"):
        assert scores.values[name].isnan().all()
        assert scores.masked[name].tolist() == [2, 2]
        assert not scores.gradients[name].any()


@pytest.mark.parametrize("kernel", [FusedCpuKernel(), plain], ids=["fused", "plain"])
@pytest.mark.parametrize("weight", [5e-324, 1e-310, 1e-300])
def test_gradients_are_finite_whatever_elements_weigh(kernel, weight):
    p, y = np.array([1.0, 2, 3]), np.array([2.0, 4, 1])
    weights = np.array([weight, 0, weight])
    options = ScoreOptions(SPECS, gradients=True)
    scores = kernel(p, y, np.array([0, 3]), options, weights, np.array([1e-300]))
    is_void = weight < 1e-308
    for name in LOSSES:
        assert scores.gradients[name].isfinite().all()
        assert scores.gradients[name][1] == 0
        assert scores.values[name].isnan().tolist() == [is_void]
        assert scores.masked[name].tolist() == [3 * is_void]


EXACT = [spec for spec in SPECS if spec.name != "logcosh"]  # exp has other bits in torch


@pytest.mark.parametrize("spec", EXACT, ids=lambda spec: spec.name)
def test_kernels_agree_in_the_bits_of_float32_gradients(spec):
    p, y, offsets, _, scales = batch(np.float32, [1, 40, 129])
    options = ScoreOptions((spec,), gradients=True)
    fused, other = (
        kernel(p, y, offsets, options, None, scales) for kernel in (FusedCpuKernel(), plain)
    )
    assert fused.gradients[spec.name].tolist() == other.gradients[spec.name].tolist()


@pytest.mark.parametrize("kernel", [FusedCpuKernel(), plain], ids=["fused", "plain"])
def test_no_loss_is_minus_zero(kernel):
    p, y = np.array([-0.0, 0.0]), np.array([0.0, -0.0])
    scores = kernel(p, y, np.array([0, 1, 2]), ScoreOptions(SPECS), None, np.ones(2))
    for values in scores.values.values():
        assert not values.signbit().any()


@pytest.mark.parametrize("kernel", [FusedCpuKernel(), plain], ids=["fused", "plain"])
def test_a_loss_over_a_tiny_scale_is_null_where_it_overflows(kernel):
    p, y, offsets = np.array([1e9, 1.0]), np.zeros(2), np.array([0, 1, 2])
    options = ScoreOptions(tuple(map(LossSpec, ("mase", "rmsse"))), gradients=True)
    scores = kernel(p, y, offsets, options, None, np.full(2, 2.0**-996))
    for name in ("mase", "rmsse"):
        assert scores.values[name].isnan().tolist() == [True, False]
        assert scores.masked[name].tolist() == [1, 0]
        assert scores.gradients[name].tolist() == [0, 2.0**996]


@pytest.mark.parametrize("kernel", [FusedCpuKernel(), plain], ids=["fused", "plain"])
def test_a_divisor_that_overflows_gives_null_and_no_zero(kernel):
    p, y, offsets = np.full(4, 1e308), np.array([1e308, 1.7e308, 1.0, 2.0]), np.array([0, 2, 4])
    wape = kernel(p, y, offsets, ScoreOptions((LossSpec("wape"),), gradients=True))
    assert wape.values["wape"].isnan().tolist() == [True, False]
    assert wape.masked["wape"].tolist() == [2, 0]
    assert wape.gradients["wape"].tolist() == [0, 0, 1 / 3, 1 / 3]
    weights = np.array([1.7e308, 1.7e308, 1.0, 1.0])
    ones, zeros = np.full(4, 0.5), np.zeros(4)
    mae = kernel(ones, zeros, offsets, ScoreOptions((LossSpec("mae"),)), weights)
    assert mae.values["mae"].isnan().tolist() == [True, False]
    assert mae.masked["mae"].tolist() == [2, 0]


@pytest.mark.parametrize("kernel", [FusedCpuKernel(), plain], ids=["fused", "plain"])
def test_rmse_of_a_perfect_forecast_has_gradient_zero(kernel):
    p = np.array([1.0, 2.0])
    scores = kernel(p, p, np.array([0, 2]), ScoreOptions((LossSpec("rmse"),), gradients=True))
    assert scores.values["rmse"].tolist() == [0]
    assert scores.gradients["rmse"].tolist() == [0, 0]


def units_off(value: float, terms: np.ndarray) -> Fraction:
    """Return how many units in its last place a mean is off that of these terms, taken exactly."""
    exact = sum(map(Fraction, terms.tolist())) / len(terms)
    return abs(Fraction(value) - exact) / Fraction(math.ulp(float(exact)))


def adverse(rng, n):
    """Return terms of which a running sum loses digits."""
    kind = rng.integers(4)
    if kind == 0:
        terms = np.full(n, 1e-3)
        terms[rng.integers(n)] = 1e8
        return terms
    if kind == 1:
        return np.full(n, 0.1)
    return rng.lognormal(0, 1 if kind == 2 else 8, n)


@pytest.mark.parametrize("kernel", [FusedCpuKernel(), plain], ids=["fused", "plain"])
def test_a_loss_is_within_4_plus_log2_n_units_of_the_exact_mean(kernel):
    rng = np.random.default_rng(5)
    lengths = [1, 2, 15, 16, 17, 127, 128, 129, 255, 1000, 10_000, CHUNK + 1, 3 * CHUNK + 77]
    for _ in range(10 if kernel is not plain else 2):
        series = [adverse(rng, n) for n in lengths]
        p, offsets = np.concatenate(series), np.concatenate([[0], np.cumsum(lengths)])
        scores = kernel(p, np.zeros(len(p)), offsets, ScoreOptions(DEFAULT[:1]))
        for value, terms in zip(scores.values["mae"].tolist(), series, strict=True):
            assert units_off(value, terms) <= 4 + math.log2(len(terms))


def test_weighted_scores_have_the_same_bits_in_any_batch():
    lengths = [3, 200, 17, CHUNK + 5, 40]
    p, y, offsets, weights, scales = batch(np.float64, lengths)
    options = ScoreOptions(SPECS, gradients=True)
    together = FusedCpuKernel(2)(p, y, offsets, options, weights, scales)
    for i, (a, b) in enumerate(itertools.pairwise(offsets)):
        own = np.array([0, b - a])
        alone = FusedCpuKernel(1)(p[a:b], y[a:b], own, options, weights[a:b], scales[i : i + 1])
        for spec in SPECS:
            for ours, whole, cut in (
                (alone.values, together.values, slice(i, i + 1)),
                (alone.gradients, together.gradients, slice(a, b)),
            ):
                assert ours[spec.name].numpy().tobytes() == whole[spec.name][cut].numpy().tobytes()
