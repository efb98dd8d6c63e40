"""RemoteLoss at the real service against the local modules.

Gradients are held to be the same bits, but where a factor comes from above. A loss may differ by
rounding: the service sums in float64, torch in the tensors' type. All terms have one sign, so a sum
that adds each term at most ``d`` times is off by at most ``d`` units in the last place. Of n terms
torch adds in 8 lanes or more and in blocks, so ``d`` stays under 16 for the n of up to a few thousand
here; ours is off by less than 1.
"""

import copy
import functools

import httpx
import numpy as np
import pandas as pd
import pytest
import torch
from forecasts import LONG
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from loss_scoring.core import LossSpec, MapeLoss
from lossclient import Client, InvalidInput, InvalidValues
from lossclient.torch import RemoteLoss

ULPS = 16
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
    local = type(spec.module())(**spec.parameters, reduction=reduction)
    return RemoteLoss(client, spec.name, **spec.parameters, reduction=reduction), local


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


def assert_close(found, wanted):
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    np.testing.assert_array_max_ulp(found.numpy(), wanted.numpy(), ULPS, found.numpy().dtype)


@functools.cache
def windows(dtype, length=6, horizon=2):
    """Return real series cut into (past, future), each scaled by its past."""
    actuals = pd.read_parquet(LONG)[["unique_id", "cutoff", "ds", "y"]].dropna()
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


def test_gradients_are_requested_only_where_autograd_needs_them(url):
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
    with pytest.raises(TypeError, match=r"inpt must hold floats or integers, not torch\.bool"):
        loss(p.bool(), y)
    with pytest.raises(TypeError, match=r"tgt must hold floats or integers, not torch\.complex64"):
        loss(p, y.to(torch.complex64))
    with pytest.raises(ValueError, match=r"pass tgt\.detach\(\)"):
        loss(p, y.clone().requires_grad_())
    with pytest.raises(ValueError, match="reduction is one of mean, sum, none, not 'max'"):
        RemoteLoss(remote, reduction="max")
    with pytest.raises(InvalidValues, match="'mad'"):
        RemoteLoss(remote, "mad")(p, y)
    with pytest.raises(InvalidValues, match="block_denom_grad"):
        RemoteLoss(remote, "mae", block_denom_grad=False)(p, y)


HALF = [torch.float16, torch.bfloat16]


@by_spec
@by_reduction
@pytest.mark.parametrize("p_type", HALF)
@pytest.mark.parametrize("y_type", [*HALF, torch.float32, torch.float64])
def test_half_types_are_taken_as_the_local_module_takes_them(
    remote, spec, reduction, p_type, y_type
):
    make = torch.Generator().manual_seed(3)
    p = torch.randn((5, 7), generator=make).to(p_type)
    y = torch.randn((5, 7), generator=make).to(y_type)
    type_ = torch.promote_types(p_type, y_type)
    loss, local = pair(remote, spec, reduction)
    (found,), (gradient,) = both([loss], p, y)
    assert found.dtype == local(p, y).dtype == type_
    wide = torch.promote_types(y_type, torch.float32)
    (wanted,), (wide_gradient,) = both([local], p.float(), y.to(wide))
    torch.testing.assert_close(found, wanted.to(type_), rtol=8 * torch.finfo(type_).eps, atol=0)
    assert torch.equal(gradient, wide_gradient.to(p_type))


def test_half_types_are_rounded_once(remote):
    p, y = torch.tensor([3.0, 1.0]).half().requires_grad_(), torch.tensor([1.0, 3.0]).half()
    RemoteLoss(remote, "smape")(p, y).backward()
    assert p.grad.tolist() == [0.125, -0.125]
    p = torch.full((1 << 12,), 2.0).bfloat16().requires_grad_()
    loss = RemoteLoss(remote, "mae")(p, torch.full_like(p, 3.0, requires_grad=False).detach())
    assert loss.dtype == torch.bfloat16
    assert loss.item() == 1


def test_under_autocast_a_training_step_is_that_of_the_local_module(remote):
    make = torch.Generator().manual_seed(4)
    past, future = torch.randn((8, 6), generator=make), torch.randn((8, 2), generator=make)
    gradients = []
    for loss in pair(remote, LossSpec("smape")):
        torch.manual_seed(0)
        model = torch.nn.Linear(6, 2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            prediction = model(past)
            assert prediction.dtype == torch.bfloat16
            value = loss(prediction, future)
        assert value.dtype == torch.float32
        value.backward()
        gradients.append(model.weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-3)


def test_a_gradient_scaler_sees_an_overflow_and_no_gradient_is_lost_below_its_scale(remote):
    p = torch.tensor([3.0], dtype=torch.float16, requires_grad=True)
    y = torch.tensor([2.0**-10], dtype=torch.float32)  # the slope of mape is 1024
    (RemoteLoss(remote, "mape")(p, y) * 2.0**16).backward()
    assert p.grad.tolist() == [np.inf]
    p = torch.full((1 << 10,), 2.0**15, dtype=torch.float16, requires_grad=True)
    y = torch.zeros_like(p, dtype=torch.float32)
    (RemoteLoss(remote, "smape")(p, y) * 2.0**16).backward()  # 2**-25 would be 0 in half
    assert p.grad.unique().tolist() == [2.0**-9]
    tiny = torch.tensor([2.0**-20], dtype=torch.float16)  # the loss itself overflows, not a scale
    p = torch.tensor([0.0], dtype=torch.float16, requires_grad=True)
    RemoteLoss(remote, "mape")(p, tiny).backward()
    assert p.grad.tolist() == [-torch.finfo(torch.float16).max]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@by_reduction
@pytest.mark.parametrize("name", ["mape", "smape"])
def test_a_factor_leaves_an_overflow_of_the_loss_clamped(remote, dtype, reduction, name):
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    p, y = torch.tensor([[0.0, 0.5], [tiny, 2.0]], dtype=dtype)
    for factor in (2, -1024):
        scaled = [
            lambda p, y, loss=loss: factor * loss(p, y)  # noqa: B023 - called at once
            for loss in pair(remote, LossSpec(name), reduction)
        ]
        _, gradients = both(scaled, p, y)
        assert torch.equal(*gradients)
        most = torch.finfo(dtype).max
        assert gradients[0][0] == (-most if factor > 0 else most)


@by_spec
@pytest.mark.parametrize("type_", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_counts_are_taken(remote, spec, type_):
    p, y = torch.tensor([1.5, 4.0, 7.0]), torch.tensor([2, 0, 100], dtype=type_)
    losses, gradients = both(pair(remote, spec), p, y)
    assert_close(*losses)
    assert torch.equal(*gradients)
    for q, x in ((y, p), (y, y + 1)):  # no gradient, a metric
        assert_close(RemoteLoss(remote, "mape")(q, x), MapeLoss()(q.float(), x.float()))


@pytest.mark.filterwarnings("default::UserWarning")  # compiled code looks at .grad of no leaves
def test_compiled_code_breaks_its_graph(remote):
    model, loss = torch.nn.Linear(3, 2), RemoteLoss(remote, "mae")
    x, y = torch.ones(4, 3), torch.ones(4, 2)

    def step(x, y):
        return 2 * loss(model(x), y) + model.weight.sum()

    gradients = []
    for run in (step, torch.compile(step, backend="aot_eager")):
        model.zero_grad()
        run(x, y).backward()
        gradients.append(model.weight.grad.clone())
    assert torch.equal(*gradients)
    assert torch.equal(torch.compile(loss, backend="aot_eager")(x, x + 1), torch.tensor(1.0))
    torch.compiler.reset()
    with pytest.raises(RuntimeError, match="RemoteLoss sends a request"):
        torch.compile(step, backend="aot_eager", fullgraph=True)(x, y)


def test_functional_transforms(remote):
    p, y = torch.tensor([1.0, 4.0]), torch.tensor([2.0, 2.0])
    loss = RemoteLoss(remote, "mae")
    gradient = torch.func.grad(loss)(p, y)
    assert torch.equal(gradient, torch.tensor([-0.5, 0.5]))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.func.grad(lambda p: torch.func.grad(loss)(p, y).sum())(p)
    with pytest.raises(RuntimeError, match=r"does not run under torch\.func\.vmap"):
        torch.func.vmap(loss)(p[:, None], y[:, None])
    with pytest.raises(RuntimeError, match=r"does not run under torch\.func\.vmap"):
        torch.func.vmap(torch.func.grad(loss))(p[:, None], y[:, None])


def test_copies_share_the_client_and_pickles_connect_again(url, tmp_path):
    p, y = torch.tensor([1.0, 4.0]), torch.tensor([2.0, 2.0])
    with Client(url, api_key="k3y") as client:
        loss = RemoteLoss(client, "smape", block_denom_grad=False, reduction="sum")
        network = torch.nn.Sequential(torch.nn.Linear(2, 2), loss)
        for other in (copy.copy(loss), copy.deepcopy(loss), copy.deepcopy(network)[1]):
            assert other.client is client
        torch.save(network, tmp_path / "network.pt")
        wanted = loss(p, y)
    assert b"k3y" not in (tmp_path / "network.pt").read_bytes()
    other = torch.load(tmp_path / "network.pt", weights_only=False)[1]
    assert repr(other) == repr(loss)
    with pytest.raises(InvalidInput, match="LOSSCLIENT_API_KEY"):
        other(p, y)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOSSCLIENT_API_KEY", "k3y")
        with other.client:
            assert torch.equal(other(p, y), wanted)


class Batches(torch.utils.data.Dataset):
    """Scores in the workers of a DataLoader."""

    def __init__(self, loss):
        self.loss = loss

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return self.loss(torch.tensor([float(i)]), torch.tensor([0.0]))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_data_loader_use_it(remote, method):
    loss = RemoteLoss(remote, "mae")
    loss(torch.ones(1), torch.ones(1))
    loader = torch.utils.data.DataLoader(
        Batches(loss), num_workers=2, multiprocessing_context=method
    )
    assert torch.cat(list(loader)).tolist() == [0, 1, 2, 3]


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
