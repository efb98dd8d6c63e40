"""Compiles the CUDA kernels where there is no GPU, as images are built."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.driver import CudaUtils
from triton.runtime import driver

from loss_scoring.core.kernels.fused_cuda import warm_up

CAPABILITIES = (80, 86, 89, 90, 100, 103, 120)
"""Of A100; A10; L4 and L40S; H100 and H200; B200; B300; RTX PRO 6000."""


class _AbsentGpu:
    """Stands in for Triton's driver: its kernels are compiled and looked up, but never launched."""

    launcher_cls = staticmethod(lambda *_: lambda *_: None)
    utils = SimpleNamespace(
        load_binary=lambda *_: (None, None, 0, 0, 1024),
        get_device_properties=lambda _: {"max_shared_mem": 1 << 20},
    )

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_device(self) -> int:
        return self._capability  # a number of its own, as Triton remembers kernels by device

    def get_current_stream(self, _device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        return GPUTarget("cuda", self._capability, 32)


def compile_tiles(capability: int) -> None:
    """Put all kernels that a request may need on a GPU into Triton's cache (``TRITON_CACHE_DIR``).

    Args:
        capability: Ten times the compute capability of the GPU: 90 for an H100.

    Raises:
        Exception: Of Triton's, if it has no code for such a GPU.
    """
    driver.set_active(_AbsentGpu(capability))
    try:
        warm_up(torch.device("cpu"))
    finally:
        driver._active = None  # noqa: SLF001 - reset_active would look for a GPU


def compile_launcher() -> None:
    """Put what launches kernels into Triton's cache, so that a GPU's machine needs no C compiler.

    Raises:
        RuntimeError: No C compiler was found.
        subprocess.CalledProcessError: It failed, for want of Python's headers as a rule.
    """
    flags = sys.getdlopenflags()
    with tempfile.TemporaryDirectory() as folder:
        # The GPU's driver has the real one. Nothing in it is called here, nor looked for by name.
        library = Path(folder, "libcuda.so.1")
        command = [os.environ.get("CC", "cc"), "-shared", "-Wl,-soname,libcuda.so.1"]
        subprocess.run([*command, "-o", library, "-x", "c", os.devnull], check=True)  # noqa: S603 - what Triton does
        with knobs.nvidia.scope():
            knobs.nvidia.libcuda_path = folder
            sys.setdlopenflags(os.RTLD_LAZY)
            try:
                CudaUtils()
            finally:
                sys.setdlopenflags(flags)
