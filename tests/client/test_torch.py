"""RemoteLoss at the real service against the local modules.

Gradients are held to be the same bits, but where a factor comes from above. A loss may differ by
rounding: the service sums in float64, torch in the tensors' type. All terms have one sign, so a sum
that adds each term at most ``d`` times is off by at most ``d`` units in the last place. Of n terms
torch adds in 8 lanes or more and in blocks, so ``d`` stays under 16 for the n of up to a few thousand
here; ours is off by less than 1.
"""

import functools

import httpx
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from core import LossSpec
from lossclient import Client, InvalidValues
from lossclient.torch import RemoteLoss

ULPS = 16
LONG = SHARED / "forecasts_long.parquet"
FILE = LONG if LONG.exists() else ROOT / "examples/data/forecasts.parquet"
SPECS = [
    LossSpec("mae"),
    LossSpec("mape"),
    LossSpec("smape"),
    LossSpec("smape", block_denom_grad=False),
]
by_spec = pytest.mark.parametrize("spec", SPECS, ids=str)
by_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
by_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


@pytest.fixture(scope="module")
def remote(url):
    with Client(url) as client:
        yield client


def pair(client, spec, reduction="mean"):
    """Return the remote module and the local one."""
    block = {} if spec.block_denom_grad else {"block_denom_grad": False}
    local = type(spec.module())(**block, reduction=reduction)
    return RemoteLoss(client, spec.name, **block, reduction=reduction), local


def both(modules, p, y):
    """Return what each module makes of it: loss and gradient, in pairs."""
    losses, gradients = [], []
    for module in modules:
        leaf = p.clone().requires_grad_()
        loss = module(leaf, y)
        loss.sum().backward()
        losses.append(loss.detach())
        gradients.append(leaf.grad)
    return losses, gradients


def assert_close(one, other):
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    np.testing.assert_array_max_ulp(one.numpy(), other.numpy(), ULPS, one.numpy().dtype)


@functools.cache
def windows(dtype, length=6, horizon=2):
    """Return real series cut into (past, future), each scaled by its past."""
    actuals = pd.read_parquet(FILE)[["unique_id", "cutoff", "ds", "y"]].dropna()
    rows = [
        part["y"].to_numpy()[: length + horizon]
        for _, part in actuals.sort_values("ds").groupby(["unique_id", "cutoff"])
        if len(part) >= length + horizon
    ]
    values = torch.tensor(np.array(rows[:400]), dtype=dtype)
    past, future = values.split([length, horizon], dim=1)
    scale = past.abs().mean(dim=1, keepdim=True) + 1
    return past / scale, (future / scale)[..., None]  # B x T, B x T x C


def train(loss, dtype, steps=30):
    """Return the loss at each step, and the weights at the end."""
    torch.manual_seed(0)
    past, future = windows(dtype)
    model = torch.nn.Linear(past.shape[1], future.shape[1], dtype=dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    curve = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(model(past)[..., None], future)
        value.backward()
        optimizer.step()
        curve.append(value.detach())
    return torch.stack(curve), torch.nn.utils.parameters_to_vector(model.parameters()).detach()


@by_spec
@by_dtype
def test_training_is_the_same(remote, spec, dtype):
    (curve, weights), (local_curve, local_weights) = (
        train(loss, dtype) for loss in pair(remote, spec)
    )
    assert torch.equal(weights, local_weights)
    assert_close(curve, local_curve)
    assert curve.unique().numel() > 25  # it does move
    assert curve[-1] < 0.8 * curve[0] or spec.name != "mae"  # the others are no descent


@by_spec
@by_reduction
@settings(max_examples=30)
@given(st.data())
def test_losses_and_gradients_are_those_of_the_local_module(remote, spec, reduction, data):
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6))
    width = np.dtype(dtype).itemsize * 8
    values = st.floats(-(2.0**99), 2.0**99, width=width) | st.sampled_from([0.0, -0.0, 1.0, -2.5])
    if data.draw(st.booleans()):
        values |= st.sampled_from([np.nan, np.inf, -np.inf])
    p, y = (
        torch.from_numpy(data.draw(hnp.arrays(dtype, shape, elements=values)).copy())
        for _ in range(2)
    )
    losses, gradients = both(pair(remote, spec, reduction), p, y)
    if losses[0].isfinite().all() and not losses[1].isfinite().all():
        assert reduction != "none"  # torch's sum ran over, the one in float64 did not
    else:
        assert_close(*losses)
    assert torch.equal(gradients[0], gradients[1].nan_to_num(0.0))
    assert gradients[0].dtype == p.dtype


@by_reduction
def test_the_gradient_from_above_is_multiplied_in(remote, reduction):
    make = torch.Generator().manual_seed(1)
    p, y, weight = (torch.randn((5, 4), generator=make, dtype=torch.float64) for _ in range(3))
    leaves = [p.clone().requires_grad_() for _ in range(2)]
    for leaf, module in zip(leaves, pair(remote, LossSpec("smape"), reduction), strict=True):
        loss = module(2 * leaf, y)
        (loss * weight).sum().backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-14, atol=0)


def test_the_gradient_is_that_of_finite_differences(remote):
    make = torch.Generator().manual_seed(2)
    p, y = (torch.rand((3, 4), generator=make, dtype=torch.float64) + 0.5 for _ in range(2))
    p.requires_grad_()
    for loss in (
        RemoteLoss(remote, "mape"),
        RemoteLoss(remote, "smape", block_denom_grad=False, reduction="none"),
    ):
        assert torch.autograd.gradcheck(loss, (p, y))


@by_reduction
def test_views_and_mixed_types_are_taken(remote, reduction):
    base = torch.arange(1.0, 13.0).reshape(3, 4)
    targets = [torch.tensor(2.0).expand(4, 3), base.flip(0).T, base.T.to(torch.float64)]
    for y in targets:
        losses, gradients = both(pair(remote, LossSpec("mape"), reduction), base.T, y)
        assert_close(*losses)
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=0)
        assert gradients[0].dtype == torch.float32


def test_gradients_are_asked_for_only_where_they_are_wanted(url):
    asked = []

    class Watched(httpx.HTTPTransport):
        def handle_request(self, request):
            asked.append(request.url.params["gradients"])
            return super().handle_request(request)

    p, y = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([2.0, 2.0])
    with Client(url, transport=Watched()) as client:
        loss = RemoteLoss(client, "mae").eval()
        with torch.no_grad():
            assert not loss(p, y.clone().requires_grad_()).requires_grad
        with torch.inference_mode():
            loss(p, y)
        assert not loss(p.detach(), y).requires_grad
        assert asked == ["false"] * 3
        value = loss(p, y)
        value.backward(retain_graph=True)
        value.backward()
    assert asked == ["false"] * 3 + ["true"]
    assert torch.equal(p.grad, torch.tensor([-1.0, 0.0]))


def test_a_second_derivative_is_refused_and_never_silently_zero(remote):
    p = torch.tensor([1.0, 3.0], dtype=torch.float64, requires_grad=True)
    loss = RemoteLoss(remote)(p, torch.tensor([2.0, 2.0], dtype=torch.float64))
    (first,) = torch.autograd.grad(loss, p, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        (first.square().sum() + p.sum()).backward()


def test_what_cannot_be_scored_is_refused(remote):
    p, y = torch.zeros(3), torch.zeros(3)
    loss = RemoteLoss(remote)
    with pytest.raises(ValueError, match=r"not \(3,\) and \(1, 3\)"):
        loss(p, y[None])
    with pytest.raises(TypeError, match="inpt must be float32 or float64"):
        loss(p.half(), y)
    with pytest.raises(TypeError, match="tgt must be float32 or float64"):
        loss(p, y.long())
    with pytest.raises(ValueError, match=r"pass tgt\.detach\(\)"):
        loss(p, y.clone().requires_grad_())
    with pytest.raises(ValueError, match="reduction is one of mean, sum, none, not 'max'"):
        RemoteLoss(remote, reduction="max")
    with pytest.raises(InvalidValues, match="mse"):
        RemoteLoss(remote, "mse")(p, y)
    with pytest.raises(InvalidValues, match="block_denom_grad"):
        RemoteLoss(remote, "mae", block_denom_grad=False)(p, y)


def test_it_shows_what_it_computes(remote):
    assert repr(RemoteLoss(remote)) == "RemoteLoss('smape')"
    full = RemoteLoss(remote, "smape", block_denom_grad=False, reduction="sum")
    assert repr(full) == "RemoteLoss('smape', block_denom_grad=False, reduction='sum')"


@pytest.mark.gpu
@by_reduction
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tensors_on_a_device_stay_there(remote, reduction):
    p, y = (torch.rand(3, 4, device="cuda") for _ in range(2))
    modules = pair(remote, LossSpec("smape"), reduction)
    losses, gradients = both(modules, p, y)
    assert losses[0].device == p.device
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients)
