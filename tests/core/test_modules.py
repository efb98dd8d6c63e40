"""The modules that are made of rows: weights, reductions, and the derivatives of all of them."""

import copy
import dataclasses
import inspect
import pickle

import pytest
import torch
from torch.nn import functional

from loss_scoring import core
from loss_scoring.core import LOSSES, LossSpec, MAELoss, MapeLoss, ScoreOptions, SmapeLoss, losses
from loss_scoring.core.kernels.plain import plain_kernel
from loss_scoring.core.losses.in_torch import in_torch
from loss_scoring.core.modules import LossModule, module_of

ROWS = [row for row in LOSSES.values() if row.module]
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
TERMS = {
    "mae": lambda p, y: functional.l1_loss(p, y, reduction="none"),
    "mape": lambda p, y: (p - y).abs() / y.abs(),
    "smape": lambda p, y: (p - y).abs() / (p.abs() + y.abs()).detach(),
    "mse": lambda p, y: functional.mse_loss(p, y, reduction="none"),
    "rmse": lambda p, y: functional.mse_loss(p, y, reduction="none"),
    "bias": lambda p, y: p - y,
    "huber": lambda p, y: functional.huber_loss(p, y, reduction="none"),
    "logcosh": lambda p, y: torch.log(torch.cosh(p - y)),
    "pinball": lambda p, y: torch.maximum(y - p, p - y) / 2,
    "wape": lambda p, y: (p - y).abs(),
}
"""What torch makes of each loss at its defaults, away from the places where autograd is at a loss."""


def reference(row, p, y, weight):
    terms = TERMS[row.name](p, y)
    base = weight if row.denominator is None else weight * y.abs()
    loss = (weight * terms).sum() / base.sum()
    return loss.sqrt() if row.root else loss


def sides(shape=(6, 5), dtype=torch.float64, seed=0):
    make = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=make, dtype=dtype).requires_grad_() for _ in range(2))


def weights(shape=(6, 5), dtype=torch.float64):
    weight = torch.rand(shape, generator=torch.Generator().manual_seed(9), dtype=dtype)
    weight.view(-1)[::4] = 0
    return weight


@each_row
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_derivatives_are_those_of_autograd(row, weighted):
    """By the prediction, by the target, and by the weights."""
    p, y = sides()
    inputs = [p, y]
    weight = torch.ones_like(p)
    if weighted:
        weight = weights().requires_grad_()
        inputs.append(weight)
    loss = module_of(row)()(*inputs)
    wanted = reference(row, p, y, weight)
    torch.testing.assert_close(loss, wanted, rtol=1e-13, atol=0)
    for got, right in zip(
        torch.autograd.grad(3 * loss, inputs), torch.autograd.grad(3 * wanted, inputs), strict=True
    ):
        torch.testing.assert_close(got, right, rtol=1e-11, atol=1e-15)


@each_row
def test_derivatives_by_finite_differences(row):
    module = module_of(row)(*(False for rule in row.parameters.values() if rule.is_flag))
    assert torch.autograd.gradcheck(module, (*sides(), weights().requires_grad_()))
    assert torch.autograd.gradcheck(module, sides())


@each_row
@each_dtype
def test_gradients_have_the_bits_of_the_plain_kernel(row, dtype):
    p, y = sides((200,), dtype)
    with torch.no_grad():
        y[:20] = p[:20]
        p[20:30] = 0
        y[25:40] = 0
    spec = LossSpec(row.name)
    scores = plain_kernel(
        p.detach(), y.detach(), torch.tensor([0, 200]), ScoreOptions((spec,), gradients=True)
    )
    spec.module()(p, y).backward()
    if row.is_mean:
        assert torch.equal(p.grad, scores.gradients[row.name])
    else:  # the kernel has the loss in float64
        rtol = 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(p.grad, scores.gradients[row.name], rtol=rtol, atol=0)


@pytest.mark.parametrize("row", [row for row in ROWS if row.autograd], ids=lambda row: row.name)
@each_dtype
def test_what_is_left_to_autograd_has_the_bits_of_the_slope(row, dtype):
    elements = in_torch(row)
    p, y = sides((1000,), dtype)
    with torch.no_grad():
        y[:20] = p[:20]
        y[20], p[21], y[22:24], p[23] = torch.nan, torch.nan, torch.inf, torch.inf
    g = torch.randn(1000, dtype=dtype)
    gradients = torch.autograd.grad(elements.term(p, y), (p, y), g)
    for got, function in zip(gradients, (elements.slope, elements.target_slope), strict=True):
        assert torch.equal(got, function(p, y, g))


@pytest.mark.parametrize("row", [row for row in ROWS if row.is_mean], ids=lambda row: row.name)
def test_reductions_with_weights(row):
    p, y = sides()
    weight = weights()
    mean, total, none = (
        module_of(row)(reduction=how)(p, y, weight) for how in ("mean", "sum", "none")
    )
    assert torch.equal(none, weight * module_of(row)(reduction="none")(p, y))
    assert torch.equal(total, none.sum())
    assert torch.equal(mean, none.sum() / weight.sum())


@each_row
def test_a_batch_without_weight_leaves_a_model_as_it_is(row):
    p, y = sides()
    loss = module_of(row)()(p, y, torch.zeros_like(p))
    loss.backward()
    assert loss == 0
    assert not p.grad.any()
    assert not y.grad.any()


def test_sums_of_targets_that_are_zero():
    p = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = core.WAPELoss()(p, torch.zeros(2))
    loss.backward()
    assert loss == 0
    assert p.grad.tolist() == [0, 0]


def test_a_root_of_zero_has_gradient_zero():
    p = torch.tensor([1.0, 2.0], requires_grad=True)
    core.RMSELoss()(p, p.detach()).backward()
    assert p.grad.tolist() == [0, 0]


@pytest.mark.parametrize("row", [row for row in ROWS if not row.is_mean], ids=lambda row: row.name)
def test_what_is_no_mean_of_terms_has_no_other_reduction(row):
    with pytest.raises(ValueError, match=f"reduction of {row.name} is mean, not 'none'"):
        module_of(row)(reduction="none")
    module = module_of(row)()
    module.reduction = "none"  # as darts does for sample weights
    with pytest.raises(ValueError, match="weights are an argument of forward"):
        module(*sides())


@each_row
def test_weights_are_never_broadcast(row):
    p, y = sides((3, 2))
    with pytest.raises(ValueError, match=r"shape of inpt, \(3, 2\), not \(3, 1\)"):
        module_of(row)()(p, y, torch.ones(3, 1))


@each_row
@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.int64, torch.bool], ids=str)
def test_weights_may_be_of_another_type(row, kind):
    p, y = sides(dtype=torch.float32)
    weight = (4 * weights()).to(kind)
    loss = module_of(row)()(p, y, weight)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, module_of(row)()(p, y, weight.float()))


def test_half_precision_is_summed_in_float32():
    p = torch.full((100_000,), 2.0, dtype=torch.float16, requires_grad=True)
    loss = MAELoss()(p, torch.ones_like(p), torch.full_like(p, 3.0))
    assert loss.dtype == torch.float16
    assert loss == 1
    ratio = core.WAPELoss()(p, torch.ones_like(p))
    ratio.backward()
    assert ratio == 1
    assert p.grad[0] == torch.tensor(1e-5, dtype=torch.float16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_under_weights_the_loss_alone_is_clamped(dtype, reduction):
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    y = torch.tensor([tiny, 1.0], dtype=dtype)
    weight = torch.tensor([2.0, 1.0], dtype=dtype)
    for incoming, is_finite in ((1.0, True), (-8.0, True), (torch.inf, False)):
        p = torch.zeros_like(y).requires_grad_()
        loss = MapeLoss(reduction=reduction)(p, y, weight)
        loss.backward(torch.full_like(loss, incoming))
        assert p.grad.isfinite().all() == is_finite
        if is_finite:
            assert p.grad[0].abs() == torch.finfo(dtype).max


@each_row
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
def test_vmap_and_compile(row, weighted):
    torch._dynamo.reset()  # it compiles one function at most eight times
    p, y = sides()
    rows = (p.detach(), y.detach(), *([weights()] if weighted else []))
    module = module_of(row)()
    one_by_one = [torch.func.grad_and_value(module)(*series) for series in zip(*rows, strict=True)]
    gradients, values = torch.func.vmap(torch.func.grad_and_value(module))(*rows)
    # torch sums a batch of rows in another order
    torch.testing.assert_close(values, torch.stack([value for _, value in one_by_one]))
    torch.testing.assert_close(gradients, torch.stack([gradient for gradient, _ in one_by_one]))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    values = [loss(p, y, *rows[2:]) for loss in (module, compiled)]
    assert torch.equal(*values)
    assert torch.equal(*(torch.autograd.grad(value, p)[0] for value in values))


@each_row
def test_a_class_is_made_of_its_row(row):
    cls = module_of(row)
    assert cls is getattr(core, row.module)
    assert issubclass(cls, LossModule)
    assert row.formula.split()[0] in cls.__doc__
    *parameters, reduction = inspect.signature(cls).parameters.values()
    assert [parameter.name for parameter in parameters] == list(row.parameters)
    assert all(f"    {name}: " in cls.__doc__ for name in row.parameters)
    assert reduction.kind is reduction.KEYWORD_ONLY
    defaults = [rule.default for rule in row.parameters.values()]
    module = cls(*defaults)
    assert repr(module) == f"{row.module}()"
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):  # noqa: S301
        assert type(twin) is cls
        assert torch.equal(twin(*sides()), module(*sides()))


def test_a_registered_loss_has_a_module(monkeypatch):
    row = dataclasses.replace(LOSSES["mse"], name="mse_too", module="MSETooLoss")
    monkeypatch.setitem(losses._LOSSES, row.name, row)
    p, y = sides()
    assert torch.equal(core.MSETooLoss()(p, y), core.MSELoss()(p, y))
    assert torch.equal(LossSpec(row.name).module()(p, y), core.MSELoss()(p, y))


def test_parameters_are_checked():
    assert core.HuberLoss(2).delta == 2
    assert repr(core.PinballLoss(q=0.9, reduction="sum")) == "PinballLoss(q=0.9, reduction='sum')"
    with pytest.raises(ValueError, match="delta of huber must be greater than 0, not -1"):
        core.HuberLoss(-1)
    with pytest.raises(TypeError, match="too many positional arguments"):
        SmapeLoss(True, "mean")  # noqa: FBT003 - that of darts takes one
    with pytest.raises(TypeError, match="delta"):
        MAELoss(delta=1)


def test_a_loss_over_a_scale_has_no_module():
    for row in LOSSES.values():
        assert bool(row.module) == (not row.scaled)
    with pytest.raises(ValueError, match="mase has no module"):
        LossSpec("mase").module()
    with pytest.raises(AttributeError, match="no attribute 'MASELoss'"):
        core.MASELoss  # noqa: B018
