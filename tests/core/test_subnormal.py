"""Numbers whose inverse overflows: gradients near the exact ones, the same bits from all."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import darts_loss
from test_kernels import INTERPRETED, KERNELS, SPECS, run

from loss_scoring.core import LossSpec, ScoreOptions

FULL = LossSpec("smape", block_denom_grad=False)
HERE = [name for name, on in KERNELS.items() if on.device == "cpu"]
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@st.composite
def series(draw):
    """Pairs of multiples of the smallest number, of the smallest normal one, and ordinary ones."""
    unit = st.tuples(st.sampled_from([0, 0, 0, 1, 2]), st.integers(-(2**20), 2**20))
    few = unit | st.tuples(st.just(0), st.integers(-5, 5))
    return draw(st.lists(st.tuples(few, few), min_size=1, max_size=20))


def arrays(pairs, dtype):
    info = np.finfo(dtype)
    units = [dtype(info.smallest_subnormal), dtype(info.tiny), dtype(0.37)]
    grid = np.array([[units[u] * dtype(n) for u, n in pair] for pair in pairs], dtype)
    return grid[:, 0].copy(), grid[:, 1].copy()


def autograd(loss, p, y):
    leaf = torch.from_numpy(p).requires_grad_()
    loss(leaf, torch.from_numpy(y)).backward()
    return leaf.grad.numpy()


def exact(p, y, block):
    """The derivative of one element of sMAPE, without any rounding."""

    def sign(x):
        return (x > 0) - (x < 0)

    p, y = Fraction(float(p)), Fraction(float(y))
    d = abs(p) + abs(y)
    return sign(p - y) / d - (0 if block else sign(p) * abs(p - y) / d / d)


@each_dtype
@pytest.mark.parametrize("spec", SPECS, ids=str)
@settings(deadline=None, max_examples=60)
@given(pairs=series())
@example(pairs=[((0, 2**19), (0, 0))] * 6)
@example(pairs=[((0, 3), (0, 1)), ((0, -3), (0, -1)), ((0, 1), (0, 3)), ((0, 5), (0, 5))])
def test_kernels_agree_with_modules(dtype, spec, pairs):
    p, y = arrays(pairs, dtype)
    module = autograd(spec.module(), p, y) + dtype(0)  # no -0.0
    darts = autograd(
        lambda p, y: darts_loss(
            p, y, spec.name, block=spec.parameters.get("block_denom_grad", True)
        ),
        p,
        y,
    )
    finite = np.isfinite(darts)
    assert module[finite].tobytes() == (darts[finite] + dtype(0)).tobytes()
    assert np.isfinite(module).all()
    for kernel in HERE:
        if kernel == INTERPRETED and len(pairs) % 4:
            continue  # it takes 20 ms
        scores = run(kernel, p, y, [len(p)], ScoreOptions((spec,), gradients=True))
        assert scores.gradients[spec.name].numpy().tobytes() == module.tobytes(), kernel


@each_dtype
@pytest.mark.parametrize("block", [True, False])
@settings(deadline=None, max_examples=200)
@given(pairs=series())
def test_an_overflow_is_only_clamped_at_the_end(dtype, block, pairs):
    p, y = arrays(pairs, dtype)
    spec = LossSpec("smape", block_denom_grad=block)
    got = autograd(spec.module(), p, y)
    darts = autograd(lambda p, y: darts_loss(p, y, "smape", block=block), p, y)
    most = Fraction(float(np.finfo(dtype).max))
    for i in np.flatnonzero(~np.isfinite(darts)):
        if p[i] == y[i] == 0:
            assert got[i] == 0
            continue
        true = max(-most, min(most, exact(p[i], y[i], block) / len(p)))
        assert float(got[i]) == pytest.approx(float(true), rel=0.04)  # 1 - quotient is cancelled


@each_dtype
def test_the_target_has_the_same_gradient(dtype):
    """The loss looks the same from both sides."""
    tiny = np.finfo(dtype).smallest_subnormal
    p, y = (np.array(side, dtype) * tiny for side in ([3, 1, -3, 5, 0], [1, 3, -1, 5, 4]))
    module = FULL.module()
    assert autograd(module, p, y).tobytes() == autograd(lambda y, p: module(p, y), p, y).tobytes()
