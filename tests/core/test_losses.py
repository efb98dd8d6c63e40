"""The modules: darts' values and gradients, and finite gradients where darts' are not."""

import copy
import doctest
import importlib
import pickle

import numpy as np
import pytest
import torch
from reference import adversarial, darts_loss

from loss_scoring.core import LossSpec, MAELoss, MapeLoss, SmapeLoss

SPECS = [
    LossSpec("mae"),
    LossSpec("mape"),
    LossSpec("smape"),
    LossSpec("smape", block_denom_grad=False),
]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
by_spec = pytest.mark.parametrize("spec", SPECS, ids=str)


def gradient(loss, p, y):
    p = p.clone().requires_grad_()
    loss(p, y).backward()
    return p.grad


def assert_same_bits_where_finite(got, darts):
    finite = darts.isfinite()
    assert torch.equal(got[finite], darts[finite])
    assert got.isfinite().all()


@by_spec
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (7,), (4, 5), (2, 3, 4), (1000,)])
def test_values_and_gradients_are_those_of_darts(spec, dtype, shape):
    make = torch.Generator().manual_seed(5)
    p, y = (torch.randn(shape, generator=make).to(dtype) for _ in range(2))
    if shape:
        y.view(-1)[0] = 0
        p.view(-1)[-1] = y.view(-1)[-1] = 0

    def darts(p, y):
        return darts_loss(p, y, spec.name, block=spec.parameters.get("block_denom_grad", True))

    module = spec.module()
    assert torch.equal(module(p, y), darts(p, y))
    assert module(p, y).dtype == dtype
    assert_same_bits_where_finite(gradient(module, p, y), gradient(darts, p, y))


@by_spec
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_adversarial_gradients_are_finite_and_those_of_darts(spec, dtype):
    p, y = map(torch.from_numpy, adversarial(dtype))
    darts = gradient(
        lambda p, y: darts_loss(
            p, y, spec.name, block=spec.parameters.get("block_denom_grad", True)
        ),
        p,
        y,
    )
    assert_same_bits_where_finite(gradient(spec.module(), p, y), darts)
    if spec.name != "mae":
        assert not darts.isfinite().all(), "the table holds nothing awkward"


def test_masked_elements_have_gradient_zero():
    p, y = torch.tensor([0.0, 5.0, 1.0]), torch.tensor([0.0, 0.0, 2.0])
    assert gradient(MapeLoss(), p, y).tolist() == pytest.approx([0, 0, -1 / 6])
    assert gradient(SmapeLoss(), p, y).tolist() == pytest.approx([0, 1 / 15, -1 / 9])


def test_non_finite_inputs_as_darts():
    p, y = torch.tensor([torch.nan, torch.inf, 1.0]), torch.tensor([1.0, 1.0, torch.inf])
    assert MAELoss()(p, y).isnan()
    for spec in SPECS[1:]:
        assert spec.module()(p, y) == darts_loss(p, y, spec.name)


def test_negative_targets_do_not_make_mape_negative():
    assert MapeLoss()(torch.tensor([-1.0]), torch.tensor([-2.0])) == 0.5


@by_spec
def test_reductions(spec):
    p, y = torch.randn(3, 4), torch.randn(3, 4)
    parameters = (
        {}
        if spec.name != "smape"
        else {"block_denom_grad": spec.parameters.get("block_denom_grad", True)}
    )
    mean, total, none = (
        type(spec.module())(**parameters, reduction=how)(p, y) for how in ("mean", "sum", "none")
    )
    assert none.shape == p.shape
    assert torch.equal(mean, none.mean())
    assert torch.equal(total, none.sum())
    with pytest.raises(ValueError, match="mean, sum, none"):
        type(spec.module())(**parameters, reduction="max")


@by_spec
def test_shapes_are_never_broadcast(spec):
    with pytest.raises(ValueError, match="same shape"):
        spec.module()(torch.ones(3), torch.ones(3, 1))


@by_spec
def test_vmap_and_functional_gradients(spec):
    p, y = torch.randn(5, 8), torch.randn(5, 8)
    y[2, 3] = 0
    module = spec.module()
    assert torch.equal(
        torch.func.vmap(module)(p, y),
        torch.stack([module(a, b) for a, b in zip(p, y, strict=True)]),
    )
    per_series = torch.func.vmap(torch.func.grad(module))(p, y)
    assert torch.equal(
        per_series, torch.stack([gradient(module, a, b) for a, b in zip(p, y, strict=True)])
    )


@by_spec
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
def test_compiles_without_a_graph_break(spec):
    torch._dynamo.reset()  # it compiles one function at most eight times
    p, y = torch.randn(50), torch.randn(50)
    p[0] = y[0] = 0
    module = spec.module()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(p, y), module(p, y))
    assert torch.equal(gradient(compiled, p, y), gradient(module, p, y))


def test_gradients_by_finite_differences():
    y = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    p = torch.tensor([1.5, -1.0, -2.0, 4.0], dtype=torch.float64, requires_grad=True)
    for loss in (MAELoss(), MapeLoss(), SmapeLoss(block_denom_grad=False)):
        assert torch.autograd.gradcheck(lambda x, loss=loss: loss(x, y), p)
    target = y.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: MapeLoss()(p.detach(), x), target)


@by_spec
def test_a_module_can_be_copied_and_shown(spec):
    module = spec.module()
    p, y = torch.randn(5), torch.randn(5)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):  # noqa: S301
        assert torch.equal(twin(p, y), module(p, y))
        assert repr(twin) == repr(module)
    assert list(module.state_dict()) == []


def test_repr_shows_what_differs_from_the_default():
    assert repr(SmapeLoss()) == "SmapeLoss()"
    shown = repr(SmapeLoss(block_denom_grad=False, reduction="sum"))
    assert shown == "SmapeLoss(block_denom_grad=False, reduction='sum')"


@pytest.mark.parametrize(
    "name",
    [
        "loss_scoring.core.modules", "loss_scoring.core.options", "loss_scoring.core.ragged", "loss_scoring.core.scoring", "loss_scoring.core.table.joining.groups",
        "loss_scoring.core.table.columns", "loss_scoring.core.table.score", "loss_scoring.service.engine.policy",
    ],
)  # fmt: skip
def test_examples_in_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
