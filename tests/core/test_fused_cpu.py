"""The fused CPU kernel against the plain one, and what only it does: threads, pieces, warming up."""

import itertools
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from reference import DEFAULT, adversarial

from loss_scoring.core import LossSpec, ScoreOptions, kernel_for
from loss_scoring.core.kernels import fused_cpu
from loss_scoring.core.kernels.fused_cpu import CHUNK, SHARE, FusedCpuKernel
from loss_scoring.core.kernels.plain import plain_kernel

FULL = (*DEFAULT[:2], LossSpec("smape", block_denom_grad=False))
OPTIONS = [
    *itertools.starmap(
        ScoreOptions,
        itertools.product((DEFAULT, FULL), (True, False), ("propagate", "skip"), ("zero", "skip")),
    ),
    # Loops of fewer losses are made of the same functions.
    *itertools.starmap(ScoreOptions, itertools.product((DEFAULT[:2], FULL[2:]), (True, False))),
]
each_option = pytest.mark.parametrize("options", OPTIONS, ids=str)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])


def run(kernel, p, y, lengths, options):
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    return kernel(torch.from_numpy(p), torch.from_numpy(y), offsets, options)


def columns(scores):
    return [scores.values, scores.masked, scores.gradients]


def assert_same_bits(got, want):
    for ours, theirs in zip(columns(got), columns(want), strict=True):
        assert list(ours) == list(theirs)
        for name in ours:
            assert ours[name].numpy().tobytes() == theirs[name].numpy().tobytes(), name


def assert_as_plain(p, y, lengths, options):
    got = run(FusedCpuKernel(1), p, y, lengths, options)
    want = run(plain_kernel, p, y, lengths, options)
    for ours, theirs in zip(columns(got), columns(want), strict=True):
        assert list(ours) == list(theirs)
        assert all(ours[name].dtype == theirs[name].dtype for name in ours)
    for name, column in want.values.items():
        np.testing.assert_allclose(got.values[name], column, rtol=1e-13, atol=0)
        assert (
            got.masked.get(name, torch.zeros(0)).tolist()
            == want.masked.get(name, torch.zeros(0)).tolist()
        )
        if options.gradients:
            ours, theirs = (one.gradients[name].numpy() for one in (got, want))
            assert ours.tobytes() == theirs.tobytes(), name


@each_dtype
@each_option
def test_awkward_values_as_plain(dtype, options):
    p, y = adversarial(dtype, finite=False)
    assert_as_plain(p, y, np.ones(len(p), np.int64), options)
    order = np.random.default_rng(0).permutation(len(p))
    # Infinite sums depend on the order of adding, so values near the maximum stand alone above.
    modest = [i for i in order if max(abs(p[i]), abs(y[i])) < np.sqrt(np.finfo(dtype).max)]
    p, y = p[modest], y[modest]
    for length in (3, 15, 16, 17, 31, 40):
        lengths = [length] * (len(p) // length) + [0, len(p) % length]
        assert_as_plain(p, y, lengths, options)


@each_dtype
@each_option
def test_lengths_as_plain(dtype, options):
    rng = np.random.default_rng(1)
    lengths = [0, 1, *range(2, 50), CHUNK - 1, CHUNK, CHUNK + 1, 0, 3 * CHUNK + 5]
    if options == ScoreOptions():
        lengths.append(10**6)
    p, y = (rng.normal(10, 5, sum(lengths)).astype(dtype) for _ in range(2))
    y[rng.random(len(y)) < 0.1] = 0
    p[rng.random(len(p)) < 0.05] = 0
    p[rng.random(len(p)) < 0.01] = np.nan
    assert_as_plain(p, y, lengths, options)


@each_dtype
@each_option
@pytest.mark.parametrize("length", [1, 5, 16, 100, CHUNK + 7])
def test_constant_series_as_plain(dtype, options, length):
    constants = [0.0, -0.0, 1.0, -2.5, np.nan, np.inf, 5e-324, 1e-45]
    if length > CHUNK:
        constants = [-0.0, -2.5, np.nan]
    p = np.repeat(np.array(constants, dtype), length)
    lengths = [length] * len(constants)
    assert_as_plain(p, p.copy(), lengths, options)
    assert_as_plain(p, np.zeros_like(p), lengths, options)


@each_dtype
@each_option
def test_same_bits_for_any_threads_and_any_batch(dtype, options):
    rng = np.random.default_rng(2)
    lengths = [*rng.integers(0, 4000, 300), 2 * CHUNK + 9, 7, 5 * CHUNK]
    assert sum(lengths) > 3 * SHARE, "too small to be shared"
    p, y = (rng.normal(size=sum(lengths)).astype(dtype) for _ in range(2))
    y[rng.random(len(y)) < 0.1] = 0
    p[rng.random(len(p)) < 0.01] = np.nan
    one = run(FusedCpuKernel(1), p, y, lengths, options)
    for threads in (2, 3):
        assert_same_bits(run(FusedCpuKernel(threads), p, y, lengths, options), one)
    spans = list(itertools.pairwise(np.concatenate([[0], np.cumsum(lengths)])))
    order = rng.permutation(len(lengths))
    sides = [np.concatenate([side[slice(*spans[i])] for i in order]) for side in (p, y)]
    shuffled = run(FusedCpuKernel(2), *sides, [lengths[i] for i in order], options)
    start = 0
    for place, i in enumerate(order):
        a, b = spans[i]
        own = one.slice(slice(i, i + 1), slice(a, b))
        elements = slice(start, start + lengths[i])
        assert_same_bits(shuffled.slice(slice(place, place + 1), elements), own)
        if place % 10 == 0 or lengths[i] > CHUNK:
            alone = run(FusedCpuKernel(1), p[a:b], y[a:b], [lengths[i]], options)
            assert_same_bits(alone, own)
        start += lengths[i]


@each_dtype
def test_a_loss_has_the_same_bits_whatever_else_is_asked_for(dtype):
    rng = np.random.default_rng(3)
    lengths = list(range(60))
    p, y = (rng.normal(size=sum(lengths)).astype(dtype) for _ in range(2))
    together = run(FusedCpuKernel(), p, y, lengths, ScoreOptions(gradients=True))
    for spec in DEFAULT:
        for gradients, missing in itertools.product((True, False), ("propagate", "skip")):
            options = ScoreOptions((spec,), gradients, missing)
            alone = run(FusedCpuKernel(), p, y, lengths, options).values[spec.name]
            assert alone.numpy().tobytes() == together.values[spec.name].numpy().tobytes()


@each_dtype
@pytest.mark.parametrize("length", [17, 1000, CHUNK + 7, 10**6])
@pytest.mark.parametrize("constant", [True, False])
def test_sums_are_within_1e_13_of_exact(dtype, length, constant):
    p = np.full(length, 0.1, dtype)
    if not constant:
        p = np.random.default_rng(4).lognormal(0, 3, length).astype(dtype)
    scores = run(FusedCpuKernel(), p, np.zeros(length, dtype), [length], ScoreOptions())
    exact = math.fsum(p.astype(float)) / length
    assert float(scores.values["mae"][0]) == pytest.approx(exact, rel=1e-13, abs=0)


@pytest.mark.parametrize("losses", [*itertools.permutations(DEFAULT)][1:], ids=str)
def test_losses_are_returned_in_the_order_asked_for(losses):
    rng = np.random.default_rng(6)
    p, y = rng.normal(size=(2, 50))
    for missing in ("propagate", "skip"):
        usual = run(
            FusedCpuKernel(),
            p,
            y,
            [20, 30],
            ScoreOptions(DEFAULT, gradients=True, missing=missing),
        )
        for asked in (losses, losses[:2]):
            got = run(
                FusedCpuKernel(),
                p,
                y,
                [20, 30],
                ScoreOptions(asked, gradients=True, missing=missing),
            )
            for ours, theirs in zip(columns(got), columns(usual), strict=True):
                assert list(ours) == [spec.name for spec in asked if spec.name in theirs]
                for name, column in ours.items():
                    assert column.numpy().tobytes() == theirs[name].numpy().tobytes()


def test_threads_that_score_at_once_share_no_sums():
    rng = np.random.default_rng(5)
    kernel, options, lengths = FusedCpuKernel(1), ScoreOptions(gradients=True), [997] * 20
    sides = [rng.normal(size=(2, sum(lengths))) for _ in range(4)]
    alone = [run(kernel, *side, lengths, options) for side in sides]
    with ThreadPoolExecutor(len(sides)) as pool:
        for _ in range(50):
            calls = [pool.submit(run, kernel, *side, lengths, options) for side in sides]
            for call, want in zip(calls, alone, strict=True):
                assert_same_bits(call.result(), want)


def test_unaligned_buffers_are_taken():
    raw = np.zeros(8 * 21 + 1, np.uint8)
    p = raw[1:].view(np.float64)
    p[:] = np.arange(21)
    y = np.ones(21)
    assert_same_bits(
        run(FusedCpuKernel(), p, y, [21], ScoreOptions()),
        run(FusedCpuKernel(), p.copy(), y, [21], ScoreOptions()),
    )


def test_threads_are_checked():
    with pytest.raises(ValueError, match="at least 1"):
        FusedCpuKernel(0)


def test_the_cpu_gets_the_fused_kernel():
    assert isinstance(kernel_for(torch.device("cpu")), FusedCpuKernel)


def test_without_numba_the_plain_kernel_and_a_warning(monkeypatch):
    from loss_scoring.core import kernels

    monkeypatch.setitem(sys.modules, "loss_scoring.core.kernels.fused_cpu", None)
    kernels._cpu_kernel.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="numba"):
            assert kernel_for(torch.device("cpu")) is plain_kernel
    finally:
        kernels._cpu_kernel.cache_clear()


def test_warm_up_compiles_once(tmp_path):
    script = (
        "from loss_scoring.core import ScoreOptions\n"
        "from loss_scoring.core.kernels.fused_cpu import Plan, warm_up\n"
        "warm_up(); loop = Plan(ScoreOptions(), weighted=False).loops[0]\n"
        "sweeps = [loop.sweep(size, slopes, False) for size in (4, 8) for slopes in (False, True)]\n"
        "print(sum(sum(sweep.stats.cache_misses.values()) for sweep in sweeps))\n"
    )
    environment = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", script], env=environment, check=True, capture_output=True
        ).stdout
        for _ in range(2)
    )
    assert int(first) == 4
    assert int(second) == 0


def test_what_is_compiled_ahead_is_all_that_a_start_needs(monkeypatch):
    asked = set()

    def note(options, size, *, weighted, large):
        asked.add((options, size, weighted, large))

    monkeypatch.setattr(fused_cpu, "compile_here", note)
    fused_cpu.warm_up()
    needed = set(asked)
    asked.clear()
    for size in fused_cpu.SIZES:
        fused_cpu.compile_usual(size)
    assert needed
    assert needed <= asked


def test_no_other_process_compiles_a_loss_that_it_does_not_know(monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: started.append(1))
    monkeypatch.setattr(fused_cpu, "_is_cached", lambda *_, **__: False)
    options = ScoreOptions()
    fused_cpu.fused_cpu_kernel.compile_for(options, 8, 1, weighted=False)
    assert started == [1]
    monkeypatch.setattr(fused_cpu, "BUILT_IN", frozenset({"mae"}))
    fused_cpu.fused_cpu_kernel.compile_for(options, 8, 1, weighted=False)
    assert started == [1]


def test_another_process_compiles_what_a_request_needs(tmp_path):
    script = (
        "from loss_scoring.core import LossSpec, ScoreOptions\n"
        "from loss_scoring.core.kernels.fused_cpu import Plan, fused_cpu_kernel as kernel\n"
        "asked = ScoreOptions((LossSpec('bias'),)), 8, 10\n"
        "kernel.load_for(*asked, weighted=False)\n"
        "assert not kernel.is_compiled(*asked, weighted=False), 'the cache is empty'\n"
        "kernel.compile_for(*asked, weighted=False)\n"
        "assert kernel.is_compiled(*asked, weighted=False)\n"
        "stats = Plan(asked[0], weighted=False).loops[0].sweep(8, False, False).stats\n"
        "print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))\n"
    )
    environment = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["1", "0"]
