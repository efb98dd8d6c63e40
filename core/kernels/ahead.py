"""Compiles the CUDA kernels where there is no GPU, as images are built, and finds them in images.

Triton writes where it reads, so the kernels in an image cannot be its cache as they are. With

    TRITON_CACHE_MANAGER=loss_scoring.core.kernels.ahead:SeededCache
    TRITON_SEED_DIR=/opt/triton     what the image brings
    TRITON_CACHE_DIR=/tmp/triton    what it lacks, say the kernels of a newer GPU

a start compiles nothing that the seed has, and needs a compiler for nothing.

This file leans on what Triton keeps private: how a cache makes paths, which driver is active, what
a driver is asked. Tested with triton 3.7, and by ``tests/test_private_names.py`` with the installed
one.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.driver import CudaUtils
from triton.runtime import driver
from triton.runtime.cache import FileCacheManager

from loss_scoring.core.kernels.fused_cuda import warm_up

CAPABILITIES = (80, 86, 89, 90, 100, 103, 120)
"""Of A100; A10; L4 and L40S; H100 and H200; B200; B300; RTX PRO 6000."""


class SeededCache(FileCacheManager):  # type: ignore[misc]
    """Triton's cache, which reads what the folder ``TRITON_SEED_DIR`` has from there."""

    def _make_path(self, filename: str) -> str:
        seed = Path(os.environ["TRITON_SEED_DIR"], self.key, filename)
        return str(seed) if seed.exists() else super()._make_path(filename)


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


@contextmanager
def absent_gpu(capability: int) -> Iterator[None]:
    """Compile what is called, into Triton's cache (``TRITON_CACHE_DIR``), and launch nothing.

    Args:
        capability: Ten times the compute capability of the GPU: 90 for an H100.
    """
    driver.set_active(_AbsentGpu(capability))
    try:
        yield
    finally:
        driver._active = None  # noqa: SLF001 - reset_active would look for a GPU


def compile_tiles(capability: int) -> None:
    """Put the kernels that requests need on a GPU into Triton's cache: see ``warm_up``.

    Args:
        capability: As ``absent_gpu`` takes it.

    Raises:
        Exception: Of Triton's, if it has no code for such a GPU.
    """
    with absent_gpu(capability):
        warm_up(torch.device("cpu"), rare=True)


def compile_launcher() -> None:
    """Put what launches kernels into Triton's cache, so that a GPU's machine needs no C compiler.

    Raises:
        RuntimeError: No C compiler was found.
        subprocess.CalledProcessError: It failed, for want of Python's headers as a rule.
    """
    flags = sys.getdlopenflags()
    with tempfile.TemporaryDirectory() as folder:
        # The GPU's driver has the real library. No function of this one is called or looked up.
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
