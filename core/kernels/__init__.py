"""The kernels and the choice among them."""

import warnings
from functools import cache

import torch

from loss_scoring.core.kernels.interface import Kernel, Scores, takes_arrays
from loss_scoring.core.kernels.plain import plain_kernel


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


def warm_up(device: torch.device) -> None:
    """Compile all that a request on ``device`` may need; from the caches it takes a second."""
    if kernel_for(device) is plain_kernel:
        return
    if device.type == "cuda":
        from loss_scoring.core.kernels.fused_cuda import warm_up as compile_tiles  # noqa: PLC0415 - as above

        compile_tiles(device)
        return
    from loss_scoring.core.kernels.fused_cpu import warm_up as compile_all  # noqa: PLC0415 - numba may be absent

    compile_all(rare=True)


__all__ = ["Kernel", "Scores", "kernel_for", "plain_kernel", "takes_arrays", "warm_up"]
