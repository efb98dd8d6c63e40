"""The CUDA kernel without a GPU: how it is chosen, how it cuts series, what it compiles to.

What it computes is tested with the other kernels, on Triton's interpreter (test_kernels.py).
"""

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from interpreted import fused_cuda
from triton.runtime import driver

from loss_scoring.core import ScoreOptions, kernels
from loss_scoring.core.kernels import plain_kernel

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
WIDEST = fused_cuda.WIDTHS[-1]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def chosen_anew():
    kernels._cuda_kernel.cache_clear()
    yield
    kernels._cuda_kernel.cache_clear()


def test_it_is_the_kernel_of_cuda(monkeypatch):
    monkeypatch.setattr(driver, "_active", SimpleNamespace(utils=None))
    assert kernels.kernel_for(CUDA) is fused_cuda.fused_cuda_kernel
    assert kernels.kernel_for(torch.device("meta")) is plain_kernel


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
    pieces = fused_cuda.pieces_of(offsets)
    for series, length in enumerate(lengths):
        first, count = int(pieces.firsts[series]), int(pieces.counts[series])
        own = slice(first, first + count)
        assert pieces.owners[own].tolist() == [series] * count
        sizes = pieces.sizes[own].tolist()
        assert sizes == [min(WIDEST, length - WIDEST * k) for k in range(count)]
        assert pieces.starts[own].tolist() == [offsets[series] + WIDEST * k for k in range(count)]
        for width, (start, stop) in pieces.spans.items():
            if start <= first < stop and count:
                assert first + count <= stop
                narrower = [w for w in fused_cuda.WIDTHS if w < width]
                assert length <= width or width == fused_cuda.WIDTHS[-1]
                assert all(length > w for w in narrower)
    assert sum(stop - start for start, stop in pieces.spans.values()) == len(pieces.owners)


def compile_ahead(**environment):
    done = subprocess.run(
        [sys.executable, ROOT / "tests/core/compile_tiles.py"],
        env=os.environ | {"TRITON_INTERPRET": "0"} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_it_compiles_to_for_sm_80_and_sm_90(tmp_path):
    reports = compile_ahead(TRITON_CACHE_DIR=str(tmp_path / "image"))
    found = compile_ahead(  # as in a container: what the image brings is read, nothing is written
        TRITON_CACHE_MANAGER="loss_scoring.core.kernels.ahead:SeededCache",
        TRITON_SEED_DIR=str(tmp_path / "image"),
        TRITON_CACHE_DIR=str(tmp_path / "container"),
    )
    assert found == reports
    assert not [path for path in (tmp_path / "container").rglob("*") if path.is_file()]
    assert [report["arch"] for report in reports] == [80] * 12 + [90] * 12
    for report in reports:
        vector = {"float32": "v4.b32", "float64": "v2.b64"}[report["dtype"]]
        assert (f"ld.global.{vector}" in report["loads"]) is report["aligned"], report
        assert (f"st.global.{vector}" in report["stores"]) is report["aligned"], report
        assert report["local"] == report["fused"] == 0, report
        assert report["spilled"] <= 8, report  # one number, on sm_80
        assert report["registers"] <= 128, report  # so that four blocks of a kind share a processor
        assert report["divisions"] == [f"div.rn.f{report['dtype'][-2:]}"], report


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
    assert len(launched) == (24 if warm else 3)
    assert all(devices == [CPU] for devices in launched)
