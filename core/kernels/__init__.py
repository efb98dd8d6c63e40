"""The kernels and the choice among them."""

import warnings
from functools import cache

import torch

from loss_scoring.core.kernels.interface import Kernel, Scores, takes_arrays
from loss_scoring.core.kernels.plain import plain_kernel
from loss_scoring.core.options import ScoreOptions


@cache
def _cpu_kernel() -> Kernel:
    try:
        from loss_scoring.core.kernels.fused_cpu import fused_cpu_kernel  # noqa: PLC0415 - numba may be absent
    except ImportError as error:
        warnings.warn(
            f"the fused CPU kernel needs numba ({error}); using the plain kernel, which is slower",
            RuntimeWarning,
            stacklevel=3,
        )
        return plain_kernel
    return fused_cpu_kernel


@cache
def _cuda_kernel() -> Kernel:
    try:
        from loss_scoring.core.kernels.fused_cuda import (  # noqa: PLC0415 - Triton may be absent
            build_launcher,
            fused_cuda_kernel,
        )

        build_launcher()
    except (ImportError, RuntimeError) as error:
        warnings.warn(
            f"the fused CUDA kernel needs Triton and its launcher ({error}); using the plain "
            "kernel, which is slower",
            RuntimeWarning,
            stacklevel=3,
        )
        return plain_kernel
    return fused_cuda_kernel


def kernel_for(device: torch.device) -> Kernel:
    """Return the fastest kernel that works on ``device``."""
    choices = {"cpu": _cpu_kernel, "cuda": _cuda_kernel}
    return choices[device.type]() if device.type in choices else plain_kernel


def is_compiled(
    device: torch.device,
    options: ScoreOptions,
    dtype: torch.dtype,
    elements: int,
    *,
    weighted: bool = False,
) -> bool:
    """Tell whether scoring so many elements on ``device`` waits for no compiler in this process."""
    if device.type != "cpu" or kernel_for(device) is plain_kernel:
        return True
    from loss_scoring.core.kernels import fused_cpu  # noqa: PLC0415 - numba may be absent

    large = elements > fused_cpu.CHUNK
    return fused_cpu.is_compiled(options, dtype.itemsize, weighted=weighted, large=large)


def compile_for(
    options: ScoreOptions, dtype: torch.dtype, elements: int, *, weighted: bool = False
) -> None:
    """Compile what ``is_compiled`` misses: seconds, or milliseconds from the cache."""
    from loss_scoring.core.kernels import fused_cpu  # noqa: PLC0415 - as above

    large = elements > fused_cpu.CHUNK
    fused_cpu.compile_for(options, dtype.itemsize, weighted=weighted, large=large)


def warm_up(device: torch.device, *, everything: bool = False) -> None:
    """Compile what a request on ``device`` needs that names no losses, or load it from the cache.

    Args:
        device: Where to score.
        everything: Compile what most requests need, for the cache of an image.
    """
    if kernel_for(device) is plain_kernel:
        return
    if device.type == "cuda":
        from loss_scoring.core.kernels import fused_cuda  # noqa: PLC0415 - Triton may be absent

        fused_cuda.warm_up(device)
        return
    from loss_scoring.core.kernels import fused_cpu  # noqa: PLC0415 - numba may be absent

    fused_cpu.compile_all() if everything else fused_cpu.warm_up()


__all__ = [
    "Kernel",
    "Scores",
    "compile_for",
    "is_compiled",
    "kernel_for",
    "plain_kernel",
    "takes_arrays",
    "warm_up",
]
