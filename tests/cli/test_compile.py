"""Compiling ahead. What it leaves in the caches is tested in tests/core and by make image-test."""

import os
import subprocess
import sys

import pytest

import loss_scoring.core.kernels
from loss_scoring.service.cli import compile as compiling
from loss_scoring.service.cli import main
from loss_scoring.service.codecs import json


@pytest.fixture
def ahead(monkeypatch):
    """Record what is compiled for CUDA instead of compiling it; Triton is only there elsewhere."""
    done = []

    class Ahead:
        CAPABILITIES = (80, 90)
        compile_tiles = staticmethod(done.append)
        compile_launcher = staticmethod(lambda: done.append("launcher"))

    monkeypatch.setitem(sys.modules, "loss_scoring.core.kernels.ahead", Ahead)
    monkeypatch.setattr(loss_scoring.core.kernels, "ahead", Ahead, raising=False)
    monkeypatch.setattr(
        compiling, "warm_up", lambda device, *, everything: done.append((str(device), everything))
    )
    monkeypatch.setattr(json, "warm_up", lambda: done.append("json"))
    return Ahead, done


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["loss-scoring", "compile", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


@pytest.mark.parametrize(
    ("arguments", "gpus"),
    [
        ((), []),
        (("--gpu", "90"), ["launcher", 90]),
        (("--gpu", "90", "--gpu", "120"), ["launcher", 90, 120]),
        (("--gpu", "0"), ["launcher", 80, 90]),
    ],
)
def test_it_compiles_for_the_cpu_and_the_gpus_that_are_named(monkeypatch, ahead, arguments, gpus):
    assert run(monkeypatch, *arguments) == 0
    assert ahead[1] == [("cpu", True), "json", *gpus]


@pytest.mark.parametrize("error", [OSError("no cc"), subprocess.CalledProcessError(1, ["cc"])])
def test_without_a_compiler_it_says_so(monkeypatch, ahead, capsys, error):
    def fails():
        raise error

    ahead[0].compile_launcher = staticmethod(fails)
    assert run(monkeypatch, "--gpu", "90") == 2
    assert "no launcher" in capsys.readouterr().err


def test_the_launcher_is_compiled_once_and_needs_no_compiler_after(tmp_path):
    script = (
        "import os, sys; sys.setdlopenflags(os.RTLD_LAZY)\n"  # as no driver has its functions
        "from loss_scoring.core.kernels import ahead\n"
        "ahead.compile_launcher()\n"
        "os.environ['CC'] = 'no-such-compiler'\n"
        "from triton import knobs\n"
        "from triton.backends.nvidia.driver import CudaUtils\n"
        "del CudaUtils.instance\n"
        "CudaUtils()\n"
    )
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.rglob("cuda_utils*.so"))) == 1
