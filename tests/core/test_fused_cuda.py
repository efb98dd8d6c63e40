"""The CUDA kernel without a GPU: how it is chosen, how it cuts series, what it compiles to.

What it computes is tested with the other kernels, on Triton's interpreter (test_kernels.py); here,
that its bits are those of the plain kernel, which adds up in the same order.
"""

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from interpreted import fused_cuda, fused_cuda_kernel
from triton.runtime import driver

from loss_scoring.core import LOSSES, LossSpec, ScoreOptions, kernels
from loss_scoring.core.kernels.plain import plain_kernel

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
WIDEST = fused_cuda.WIDTHS[-1]
ROOT = Path(__file__).resolve().parents[2]
interpreted = pytest.mark.skipif(
    os.environ["TRITON_INTERPRET"] != "1", reason="compared on a GPU by test_kernels.py"
)


@pytest.fixture(autouse=True)
def chosen_anew():
    kernels._cuda_kernel.cache_clear()
    yield
    kernels._cuda_kernel.cache_clear()


def test_it_is_the_kernel_of_cuda(monkeypatch):
    monkeypatch.setattr(driver, "_active", SimpleNamespace(utils=None))
    assert kernels.kernel_for(CUDA) is fused_cuda.fused_cuda_kernel
    assert kernels.kernel_for(torch.device("meta")) is plain_kernel


def test_a_gpu_of_amd_gets_the_plain_kernel(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert kernels.kernel_for(CUDA) is plain_kernel


def test_without_triton_it_warns_and_falls_back(monkeypatch):
    monkeypatch.setitem(sys.modules, "loss_scoring.core.kernels.fused_cuda", None)
    with pytest.warns(RuntimeWarning, match="needs Triton"):
        assert kernels.kernel_for(CUDA) is plain_kernel


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Failed to find C compiler"),
        subprocess.CalledProcessError(1, ["gcc"]),  # Python.h is missing, say
        AssertionError("libcuda.so cannot found"),
        OSError("Read-only file system"),
    ],
)
def test_without_a_launcher_it_warns_and_falls_back(monkeypatch, error):
    class Broken:
        @property
        def utils(self):
            raise error

    monkeypatch.setattr(driver, "_active", Broken())
    with pytest.warns(RuntimeWarning, match=re.escape(str(error))):
        assert kernels.kernel_for(CUDA) is plain_kernel
    kernels.warm_up(CUDA)  # there is nothing to compile then


@given(st.lists(st.integers(0, 5 * WIDEST), max_size=20))
def test_pieces_cover_every_series_in_order(lengths):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    pieces, spans = fused_cuda.pieces_of(offsets)
    for series, length in enumerate(lengths):
        first, count = int(pieces.firsts[series]), int(pieces.counts[series])
        own = slice(first, first + count)
        assert count == max(-(-length // WIDEST), 1)
        assert pieces.owners[own].tolist() == [series] * count
        sizes = pieces.sizes[own].tolist()
        assert sizes == [min(WIDEST, length - WIDEST * k) for k in range(count)]
        assert pieces.starts[own].tolist() == [offsets[series] + WIDEST * k for k in range(count)]
        for width, (start, stop) in spans.items():
            if start <= first < stop:
                assert first + count <= stop
                narrower = [w for w in fused_cuda.WIDTHS if w < width]
                assert length <= width or width == fused_cuda.WIDTHS[-1]
                assert all(length > w for w in narrower)
    assert sum(stop - start for start, stop in spans.values()) == len(pieces.owners)


EVERY = tuple(map(LossSpec, LOSSES))
INEXACT = {"logcosh"}
"""Losses with functions of which each library rounds the last bit as it likes."""


def assert_same_bits(found, expected, dtype=torch.float64):
    for columns, others in zip(found.columns, expected.columns, strict=True):
        assert list(columns) == list(others)
        for name, column in columns.items():
            ours, theirs = column.numpy(), others[name].numpy()
            assert ours.dtype == theirs.dtype
            if name in INEXACT:
                bound = 8 * torch.finfo(dtype).eps
                np.testing.assert_allclose(ours, theirs, rtol=bound, atol=0)
            else:
                np.testing.assert_array_equal(ours, theirs)
                assert (np.signbit(ours) == np.signbit(theirs))[~np.isnan(ours)].all()


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("skip", [False, True])
def test_every_bit_is_that_of_the_plain_kernel(dtype, weighted, skip):
    """All losses in one launch, an empty series and a scale of 0 among them."""
    rng = np.random.default_rng(5)
    lengths = np.array([5, 0, 40, 1, 30, 600])
    n = int(lengths.sum())
    p, y = (torch.from_numpy(rng.normal(size=n)).to(dtype) for _ in range(2))
    y[rng.integers(0, n, n // 10)] = 0
    p[rng.integers(0, n, n // 20)] = np.nan
    weights = torch.from_numpy(rng.random(n) * rng.integers(0, 3, n)) if weighted else None
    missing, zero = ("skip", "skip") if skip else ("propagate", "zero")
    arguments = (
        *(p, y, np.concatenate([[0], np.cumsum(lengths)])),
        ScoreOptions(EVERY, gradients=True, missing=missing, zero_division=zero),
        *(weights, torch.tensor([1.5, 2.0, 0.0, np.inf, -1.0, 0.25], dtype=torch.float64)),
    )
    assert_same_bits(fused_cuda_kernel(*arguments), plain_kernel(*arguments), dtype)


@interpreted
def test_pieces_are_joined_in_pairs_level_by_level(monkeypatch):
    """One value that swallows the others, unless these are added up among themselves first."""
    monkeypatch.setattr(fused_cuda, "JOINED", 4)
    lengths = [3, 20 * WIDEST + 7, 5 * WIDEST]  # 1, 21 and 5 pieces: up to three levels
    p = torch.full((sum(lengths),), 1e-3, dtype=torch.float64)
    p[3] = 1e8
    y, offsets = torch.zeros_like(p), np.concatenate([[0], np.cumsum(lengths)])
    options = ScoreOptions((LossSpec("mae"), LossSpec("bias")))
    assert_same_bits(
        fused_cuda_kernel(p, y, offsets, options), plain_kernel(p, y, offsets, options)
    )


KEYS = """
import dataclasses, sys
from importlib.util import module_from_spec, spec_from_file_location
from loss_scoring.core.kernels.fused_tiles import TileLosses
from loss_scoring.core.losses import LOSSES

for path in sys.argv[1:]:
    spec = spec_from_file_location("fixture", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    loss = dataclasses.replace(LOSSES["mae"], term=module.term)
    print(TileLosses(((loss, ()),), weighted=False).cache_key)
"""


def test_triton_compiles_again_when_a_formula_changes(tmp_path):
    text = "from typing import Any\n\nHALF = 0.5\n\n\ndef term(p: Any, y: Any) -> Any:\n    return HALF * (y - p)\n"
    versions = [text, text, text.replace("y - p", "p - y"), text.replace("0.5", "0.25")]
    paths = [tmp_path / f"{i}.py" for i in range(len(versions))]
    for path, version in zip(paths, versions, strict=True):
        path.write_text(version)
    keys = run_compiled("-c", KEYS, *paths).split()
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def run_compiled(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"TRITON_INTERPRET": "0"} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def compile_ahead(**environment):
    printed = run_compiled(ROOT / "tests/core/compile_tiles.py", **environment)
    return [json.loads(line) for line in printed.splitlines()]


def test_what_it_compiles_to_for_sm_80_and_sm_90(tmp_path):
    reports = compile_ahead(TRITON_CACHE_DIR=str(tmp_path / "image"))
    found = compile_ahead(  # as in a container: what the image brings is read, nothing is written
        TRITON_CACHE_MANAGER="loss_scoring.core.kernels.ahead:SeededCache",
        TRITON_SEED_DIR=str(tmp_path / "image"),
        TRITON_CACHE_DIR=str(tmp_path / "container"),
    )
    assert found == reports
    assert not [path for path in (tmp_path / "container").rglob("*") if path.is_file()]
    assert [report["arch"] for report in reports] == [80] * 12 + [90] * 24
    for report in reports:
        vector = {"float32": "v4.b32", "float64": "v2.b64"}[report["dtype"]]
        assert (f"ld.global.{vector}" in report["loads"]) is report["aligned"], report
        assert (f"st.global.{vector}" in report["stores"]) is report["aligned"], report
        assert report["local"] == report["spilled"] == 0, report
        if report["losses"] != "every":  # there, what CUDA brings for logcosh has its own
            assert report["fused"] == 0, report
        assert report["registers"] <= 128, report  # so that four blocks of a kind share a processor
        assert report["divisions"] == [f"div.rn.f{report['dtype'][-2:]}"], report


def test_the_page_of_a_gpu_is_written_from_its_parts(tmp_path):
    """On the CPU: each command runs. No GPU was at hand to run more."""
    page = tmp_path / "gpu.md"
    done = subprocess.run(
        [ROOT / "bench/gpu.sh", "--dry-run"],
        env=os.environ | {"PYTHON": sys.executable, "PAGE": str(page)},
        capture_output=True,
        text=True,
        check=False,
    )
    text = page.read_text()
    assert done.returncode == 0, text
    assert re.findall("^## (.*)", text, re.MULTILINE) == ["kernel", "staging", "tests"]
    assert "Memory of the host" in text
    assert "no CUDA device" in text
    assert re.search(r"test_kernels\.py: \d", text)


@interpreted
def test_what_is_timed_is_the_launch_of_the_kernel():
    spec = spec_from_file_location("gpu", ROOT / "bench/gpu.py")
    gpu = module_from_spec(spec)
    spec.loader.exec_module(gpu)
    batch = gpu.sides(np.array([3, 600]), torch.float32, CPU)
    scales = torch.ones(2, dtype=torch.float64)
    options = ScoreOptions(gradients=True)
    with np.errstate(all="ignore"):
        sums, slopes = gpu.launch_of(fused_cuda_kernel, batch, options, scales)()
    assert sums.shape == (5, 3)  # a piece and two; three totals, two of masked elements
    assert all(len(slope) == 603 for slope in slopes)


class Recorded:
    """In place of a Triton kernel: notes on which device it was launched."""

    def __init__(self, current, launched):
        self.current, self.launched = current, launched

    def __getitem__(self, grid):
        return lambda *_, **__: self.launched.append(list(self.current))


@pytest.mark.parametrize("warm", [False, True])
def test_each_launch_is_on_the_device_of_the_batch(monkeypatch, warm):
    current, launched = [], []

    @contextmanager
    def device_of(tensor):  # Triton launches on the current device, wherever the pointers lead
        current.append(tensor.device)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    for name in ("score_tiles", "join_pieces"):
        monkeypatch.setattr(fused_cuda, name, Recorded(current, launched))
    if warm:
        fused_cuda.warm_up(CPU)
    else:
        ones, options = torch.ones(3), ScoreOptions(gradients=True, missing="skip")
        fused_cuda.fused_cuda_kernel(ones, ones, torch.tensor([0, 3]), options)
    # Twelve specialisations, and for either dtype a series of two pieces, which are joined.
    assert len(launched) == (12 + 2 * 2 if warm else 2)
    assert all(devices == [CPU] for devices in launched)
