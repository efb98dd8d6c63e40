"""Gradients under factors: clamped where the loss overflows, infinite where only a factor does."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_losses import DTYPES, by_spec, gradient

from loss_scoring.core import LossSpec, MAELoss, MapeLoss, SmapeLoss

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def module_of(spec, reduction="mean"):
    module = spec.module()
    module.reduction = reduction
    return module


def exact(spec, p, y):
    """Return the derivative of one element, without rounding, and its largest term."""

    def sign(x):
        return (x > 0) - (x < 0)

    p, y = Fraction(p), Fraction(y)
    if spec.name == "mae":
        return Fraction(sign(p - y)), Fraction(1)
    d = abs(y) if spec.name == "mape" else abs(p) + abs(y)
    second = 0 if spec.parameters.get("block_denom_grad", True) else sign(p) * abs(p - y) / d / d
    return sign(p - y) / d - second, 1 / d


@st.composite
def elements(draw, dtype):
    """Pairs of multiples of the smallest number, of the smallest normal one, and of 1/64."""
    info = torch.finfo(dtype)
    multiple = st.integers(-200, 200)
    number = st.builds(
        lambda unit, n: float(torch.tensor(unit * n, dtype=torch.float64).to(dtype)),
        st.sampled_from([info.smallest_normal * info.eps, info.smallest_normal, 2**-12, 2**-6]),
        multiple,
    )
    return draw(st.lists(st.tuples(number, number), min_size=1, max_size=8))


@each_dtype
@by_spec
@each_reduction
@settings(max_examples=60)
@given(data=st.data(), exponent=st.floats(-8, 15))
def test_an_overflow_is_clamped_if_the_loss_alone_makes_it(dtype, spec, reduction, data, exponent):
    pairs = data.draw(elements(dtype))
    p, y = torch.tensor(pairs, dtype=torch.float64).to(dtype).T
    p = p.clone().requires_grad_()
    scale = torch.tensor(2.0**exponent, dtype=dtype)
    out = module_of(spec, reduction)(p, y)
    out.backward(scale.expand(out.shape))
    most, eps = torch.finfo(dtype).max, torch.finfo(dtype).eps
    one = Fraction(1, len(p) if reduction == "mean" else 1)
    for got, (x, t) in zip(p.grad.tolist(), pairs, strict=True):
        quotient = torch.tensor(0.0)
        if spec.name != "mae":
            x_, t_ = (torch.tensor(side, dtype=dtype) for side in (x, t))
            quotient = (t_ - x_) / (t_ if spec.name == "mape" else t_.abs() + x_.abs())
        if not quotient.isfinite():
            assert got == 0
            continue
        slope, term = exact(spec, x, t)
        alone, alone_slack = slope * one, 8 * Fraction(eps) * term * one
        right, slack = (x * Fraction(scale.item()) for x in (alone, alone_slack))
        if np.isinf(got):
            assert abs(right) + slack > most
            assert abs(alone) - alone_slack <= most
            assert (got > 0) == (right > 0)
        elif abs(got) == most and abs(right) > most:
            assert abs(alone) + alone_slack > most
            assert (got > 0) == (right > 0)
        else:
            assert abs(Fraction(got) - right) <= slack


def test_the_mean_of_many_is_what_overflows():
    """A slope of 1e5 among 1000: 100 to the loss, so it is a scale that makes it infinite."""
    p = torch.ones(1000, dtype=torch.float16)
    y = torch.full_like(p, 2.0)
    p[0], y[0] = 0, 1e-5
    for spec in (LossSpec("mape"), LossSpec("smape"), LossSpec("smape", block_denom_grad=False)):
        got = gradient(lambda p, y, spec=spec: 1024 * spec.module()(p, y), p, y)
        assert got.isinf().tolist() == [True] + [False] * 999, spec
        assert gradient(spec.module(), p, y)[0].item() == pytest.approx(-100, rel=0.01)


def tiny_target(dtype):
    """Return a prediction and a target whose slopes overflow, beside ordinary ones."""
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    p, y = torch.tensor([[0.0, 0.5, -tiny], [tiny, 2.0, 2 * tiny]], dtype=dtype)
    return p, y


OVERFLOWING = [LossSpec("mape"), LossSpec("smape")]
each_overflowing = pytest.mark.parametrize("spec", OVERFLOWING, ids=str)


@each_dtype
@each_overflowing
@each_reduction
@pytest.mark.parametrize("factor", [1.5, 2.0, -3.0, 1024.0])
def test_a_factor_leaves_an_overflow_of_the_loss_clamped(dtype, spec, reduction, factor):
    """Twice a loss, one of several terms, sample weights."""
    p, y = tiny_target(dtype)
    loss = module_of(spec, reduction)
    alone = gradient(lambda p, y: loss(p, y).sum(), p, y)
    most = torch.finfo(dtype).max
    assert alone[[0, 2]].tolist() == [-most, -most]
    right = alone * factor
    right[[0, 2]] = -most if factor > 0 else most
    for weight in (factor, torch.full_like(loss(p, y), factor)):
        got = gradient(lambda p, y, weight=weight: (weight * loss(p, y)).sum(), p, y)
        torch.testing.assert_close(got, right, rtol=4 * torch.finfo(dtype).eps, atol=0)
    both = gradient(lambda p, y: MAELoss()(p, y) + (factor * loss(p, y)).sum(), p, y)
    assert both.isfinite().all()


@each_dtype
@each_overflowing
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
def test_factors_under_vmap_and_compile(dtype, spec):
    torch._dynamo.reset()  # it compiles one function at most eight times
    p, y = tiny_target(dtype)
    loss = spec.module()

    def scaled(p, y):
        return 3 * loss(p, y)

    right = gradient(scaled, p, y)
    assert right.isfinite().all()
    rows = torch.stack([p, y * 2]), torch.stack([y, y])
    got = torch.func.vmap(torch.func.grad(scaled))(*rows)
    assert torch.equal(
        got, torch.stack([gradient(scaled, *row) for row in zip(*rows, strict=True)])
    )
    compiled = torch.compile(scaled, fullgraph=True, backend="aot_eager")
    assert torch.equal(gradient(compiled, p, y), right)


@each_overflowing
def test_a_scaler_skips_no_step_for_a_loss_that_overflows(spec):
    p, y = (torch.nn.Parameter(side) for side in tiny_target(torch.float32))
    optimizer = torch.optim.SGD([p], lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    for _ in range(3):
        optimizer.zero_grad()
        scaler.scale(spec.module()(p, y.detach())).backward()
        scaler.unscale_(optimizer)
        assert p.grad.isfinite().all()
        assert p.grad[1] == gradient(spec.module(), p.detach(), y.detach())[1]
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 65536


@each_dtype
@by_spec
@each_reduction
@settings(max_examples=40)
@given(data=st.data())
@example(data=None)
def test_a_gradient_of_one_is_finite(dtype, spec, reduction, data):
    """By the target, too; and where a trainer averages what a module did not reduce."""
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    pairs = [(tiny, -tiny), (-3 * tiny, tiny)] if data is None else data.draw(elements(dtype))
    p, y = (side.clone().requires_grad_() for side in torch.tensor(pairs, dtype=dtype).T)
    module_of(spec, reduction)(p, y).mean().backward()
    assert p.grad.isfinite().all()
    assert y.grad.isfinite().all()


@each_dtype
@by_spec
@pytest.mark.parametrize("incoming", [torch.inf, -torch.inf, torch.nan])
def test_a_gradient_that_comes_in_infinite_stays_so(dtype, spec, incoming):
    p = torch.tensor([2.0, 3.0], dtype=dtype, requires_grad=True)
    loss = spec.module()(p, torch.tensor([1.0, 4.0], dtype=dtype))
    loss.backward(torch.tensor(incoming, dtype=dtype))
    assert not p.grad.isfinite().any()


@by_spec
def test_an_overflow_on_the_way_to_a_narrower_type_stays_infinite(spec):
    """The loss is computed in the wider type of the two, as darts' is."""
    p, y = torch.tensor([0.5, 0.25], dtype=torch.float16), torch.tensor([0.004, 0.25])
    wide = gradient(lambda p, y: spec.module()(p, y) * 65536, p.float(), y)
    narrow = gradient(lambda p, y: spec.module()(p, y) * 65536, p, y)
    assert narrow.dtype == torch.float16
    assert torch.equal(narrow, wide.half())
    assert torch.equal(spec.module()(p, y), spec.module()(p.float(), y))


@by_spec
@pytest.mark.parametrize("target_dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_scaler_takes_only_steps_with_the_right_gradient(spec, target_dtype, reduction):
    """From a scale that overflows, it gets down to one that does not."""
    y = torch.tensor([0.004, 0.5], dtype=target_dtype)
    loss_fn = module_of(spec, reduction)
    weight = torch.nn.Parameter(torch.tensor([0.5]))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    steps = []
    for _ in range(16):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = loss_fn(weight.half() * torch.ones(2, dtype=torch.float16), y).mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        if weight.grad.isfinite().all():  # else the scaler skips the step
            steps.append(weight.grad.item())
        scaler.step(optimizer)
        scaler.update()
    true = sum(float(exact(spec, 0.5, t)[0]) for t in y.tolist()) / 2
    assert steps == pytest.approx([true] * len(steps), rel=0.02)
    assert len(steps) > 4


def test_second_derivatives_are_those_of_autograd():
    y = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    p = torch.tensor([1.5, -1.0, -2.0], dtype=torch.float64, requires_grad=True)
    for loss in (MAELoss(), MapeLoss(), SmapeLoss(block_denom_grad=False)):
        assert torch.autograd.gradgradcheck(lambda x, loss=loss: loss(x, y), p)
