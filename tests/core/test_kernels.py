"""Every kernel against the contract, over dtypes, options and awkward values."""

import itertools
import os
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted import fused_cuda_kernel
from reference import adversarial, score_series

from loss_scoring.core import Kernel, LossSpec, ScoreOptions
from loss_scoring.core.kernels.fused_cpu import FusedCpuKernel
from loss_scoring.core.kernels.plain import plain_kernel


class On(NamedTuple):
    kernel: Kernel
    device: str


INTERPRETED = "fused-cuda-interpreted"
KERNELS = {
    "plain": On(plain_kernel, "cpu"),
    "fused-cpu": On(FusedCpuKernel(), "cpu"),
    INTERPRETED: On(fused_cuda_kernel, "cpu"),
}
"""A new kernel is added here, and every test below covers it."""
ON_GPU = {"plain-cuda": On(plain_kernel, "cuda")}
if os.environ.get("TRITON_INTERPRET") == "0":  # make test-gpu
    del KERNELS[INTERPRETED]
    ON_GPU["fused-cuda"] = On(fused_cuda_kernel, "cuda")
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
KERNEL_PARAMETERS = [
    *KERNELS,
    *(pytest.param(name, marks=[pytest.mark.gpu, NO_GPU]) for name in ON_GPU),
]
KERNELS |= ON_GPU

SPECS = [
    LossSpec("mae"),
    LossSpec("mape"),
    LossSpec("smape"),
    LossSpec("smape", block_denom_grad=False),
]
each_kernel = pytest.mark.parametrize("kernel", KERNEL_PARAMETERS)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def run(kernel, p, y, lengths, options):
    on = KERNELS[kernel]
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    sides = (torch.from_numpy(np.ascontiguousarray(side)).to(on.device) for side in (p, y))
    return on.kernel(*sides, offsets, options).to("cpu")


def bits(tensor):
    return tensor.numpy().tobytes()


def check(kernel, p, y, lengths, options):
    """Hold one batch of one loss against the reference, series by series."""
    (spec,) = options.losses
    scores = run(kernel, p, y, lengths, options)
    values = scores.values[spec.name].numpy()
    assert values.dtype == np.float64
    spans = itertools.pairwise(np.concatenate([[0], np.cumsum(lengths)]))
    for i, (a, b) in enumerate(spans):
        value, masked, gradient = score_series(
            p[a:b], y[a:b], spec.name,
            block=spec.parameters.get("block_denom_grad", True),
            missing=options.missing,
            zero_division=options.zero_division,
        )  # fmt: skip
        with np.errstate(all="ignore"):
            assert np.isclose(values[i], value, rtol=1e-12, atol=0, equal_nan=True), (i, value)
        if spec.name in scores.masked:
            assert scores.masked[spec.name][i] == masked
        if not options.gradients:
            continue
        got = scores.gradients[spec.name][a:b].numpy()
        assert got.dtype == p.dtype
        assert got.tobytes() == gradient.tobytes()
        assert np.isfinite(got[np.isfinite(p[a:b]) & np.isfinite(y[a:b])]).all()
        assert not (np.signbit(got) & (got == 0)).any(), "-0.0"
    assert set(scores.masked) == ({spec.name} if spec.name != "mae" else set())
    assert set(scores.gradients) == ({spec.name} if options.gradients else set())


@each_kernel
@each_dtype
@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("missing", ["skip", "propagate"])
@pytest.mark.parametrize("zero_division", ["zero", "skip"])
def test_awkward_values(kernel, dtype, spec, missing, zero_division):
    p, y = adversarial(dtype, finite=False)
    options = ScoreOptions((spec,), gradients=True, missing=missing, zero_division=zero_division)
    lengths = np.ones(len(p), np.int64)
    check(kernel, p, y, lengths, options)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(p))
    cuts = np.sort(rng.integers(0, len(p), 40))
    lengths = np.diff(np.concatenate([[0], cuts, [len(p)]]))  # some are empty
    check(kernel, p[order], y[order], lengths, options)


@each_kernel
@each_dtype
@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("lengths", [[1], [1, 2, 3, 1000], [10**6], [0], [], [0, 5, 0]], ids=str)
def test_lengths(kernel, dtype, spec, lengths):
    if lengths == [10**6]:  # the interpreter needs 20 ms a tile
        lengths = [{INTERPRETED: 10**4, "plain": 10**5}.get(kernel, 10**6)]
    rng = np.random.default_rng(1)
    p, y = (rng.normal(10, 5, sum(lengths)).astype(dtype) for _ in range(2))
    check(kernel, p, y, lengths, ScoreOptions((spec,), gradients=True))
    check(kernel, p, y, lengths, ScoreOptions((spec,), gradients=False))


@each_kernel
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_nothing_left_is_nan(kernel, spec):
    zeros, nans = np.zeros(3), np.full(3, np.nan)
    skip = ScoreOptions((spec,), gradients=True, missing="skip")
    scores = run(kernel, nans, zeros, [3], skip)
    assert scores.values[spec.name].isnan().all()
    assert scores.gradients[spec.name].tolist() == [0, 0, 0]
    if spec.name != "mae":
        skip = ScoreOptions((spec,), gradients=True, zero_division="skip")
        scores = run(kernel, zeros, zeros, [3], skip)
        assert scores.values[spec.name].isnan().all()
        assert scores.masked[spec.name].tolist() == [3]


@each_kernel
@each_dtype
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_gradients_are_those_of_the_modules(kernel, dtype, spec):
    rng = np.random.default_rng(2)
    lengths = rng.integers(1, 60, 50)
    p, y = (rng.normal(size=lengths.sum()).astype(dtype) for _ in range(2))
    y[rng.integers(0, len(y), 200)] = 0
    p[y == 0] *= rng.integers(0, 2, (y == 0).sum())
    scores = run(kernel, p, y, lengths, ScoreOptions((spec,), gradients=True))
    sides = [torch.from_numpy(side).split(lengths.tolist()) for side in (p, y)]
    got = scores.gradients[spec.name].split(lengths.tolist())
    for i, (one, other) in enumerate(zip(*sides, strict=True)):
        leaf = one.clone().requires_grad_()
        loss = spec.module()(leaf, other)
        loss.backward()
        assert torch.equal(got[i], leaf.grad)
        close = {"rtol": 1e-5 if dtype == np.float32 else 1e-13, "atol": 0}
        assert torch.isclose(scores.values[spec.name][i], loss.double(), **close)


@each_kernel
@each_dtype
def test_all_losses_together_equal_each_alone(kernel, dtype):
    rng = np.random.default_rng(3)
    lengths = [5, 1, 300, 17]
    p, y = (rng.normal(size=sum(lengths)).astype(dtype) for _ in range(2))
    specs = (LossSpec("smape", block_denom_grad=False), LossSpec("mae"), LossSpec("mape"))
    together = run(kernel, p, y, lengths, ScoreOptions(specs, gradients=True))
    assert list(together.values) == ["smape", "mae", "mape"]
    for spec in specs:
        alone = run(kernel, p, y, lengths, ScoreOptions((spec,), gradients=True))
        assert bits(alone.values[spec.name]) == bits(together.values[spec.name])
        assert bits(alone.gradients[spec.name]) == bits(together.gradients[spec.name])


@each_kernel
@each_dtype
@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 700), min_size=1, max_size=12),
    seed=st.integers(0, 2**32 - 1),
    missing=st.sampled_from(["skip", "propagate"]),
    zero_division=st.sampled_from(["zero", "skip"]),
)
def test_a_series_never_depends_on_its_neighbours(
    kernel, dtype, lengths, seed, missing, zero_division
):
    if kernel == INTERPRETED:
        lengths = lengths[:3]
    rng = np.random.default_rng(seed)
    p, y = (rng.normal(size=sum(lengths)).astype(dtype) for _ in range(2))
    p[rng.random(len(p)) < 0.05] = np.nan
    y[rng.random(len(y)) < 0.1] = 0
    options = ScoreOptions(gradients=True, missing=missing, zero_division=zero_division)
    whole = run(kernel, p, y, lengths, options)
    spans = list(itertools.pairwise(np.concatenate([[0], np.cumsum(lengths)])))
    order = rng.permutation(len(lengths))
    shuffled = run(
        kernel,
        *(np.concatenate([side[slice(*spans[i])] for i in order]) for side in (p, y)),
        [lengths[i] for i in order],
        options,
    )
    starts = np.concatenate([[0], np.cumsum([lengths[i] for i in order])])
    for place, i in list(enumerate(order))[: 1 if kernel == INTERPRETED else None]:
        a, b = spans[i]
        alone = run(kernel, p[a:b], y[a:b], [lengths[i]], options)
        for name in ("mae", "mape", "smape"):
            want = bits(alone.values[name])
            assert bits(whole.values[name][i : i + 1]) == want
            assert bits(shuffled.values[name][place : place + 1]) == want
            want = bits(alone.gradients[name])
            assert bits(whole.gradients[name][a:b]) == want
            assert bits(shuffled.gradients[name][starts[place] : starts[place + 1]]) == want


@each_kernel
def test_float32_terms_are_summed_in_float64(kernel):
    n = 10**4 if kernel == INTERPRETED else 10**6
    p, y = np.full(n, 0.1, np.float32), np.zeros(n, np.float32)
    scores = run(kernel, p, y, [n], ScoreOptions((LossSpec("mae"),)))
    assert scores.values["mae"][0] == pytest.approx(float(np.float32(0.1)), rel=1e-12)
