"""The kernels and the choice among them, each imported when it is chosen."""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING

from loss_scoring.core.kernels.interface import Kernel, Scores, is_compiled_kernel, takes_arrays

if TYPE_CHECKING:
    import torch


@cache
def _plain_kernel() -> Kernel:
    from loss_scoring.core.kernels.plain import plain_kernel  # noqa: PLC0415 - imports torch

    return plain_kernel


@cache
def _cpu_kernel() -> Kernel:
    try:
        from loss_scoring.core.kernels.fused_cpu import fused_cpu_kernel  # noqa: PLC0415 - numba may be absent
    except ImportError as error:
        return _plain_instead("CPU kernel needs numba", error)
    return fused_cpu_kernel


@cache
def _cuda_kernel() -> Kernel:
    import torch  # noqa: PLC0415 - there is one, as there is a device of it

    if torch.version.hip:
        return _plain_kernel()  # the tiles are bounded in registers as only CUDA's compiler can
    try:
        from loss_scoring.core.kernels import fused_cuda  # noqa: PLC0415 - Triton may be absent

        fused_cuda.build_launcher()
    except (ImportError, RuntimeError) as error:
        return _plain_instead("CUDA kernel needs Triton and its launcher", error)
    return fused_cuda.fused_cuda_kernel


def _plain_instead(need: str, error: Exception) -> Kernel:
    text = f"the fused {need} ({error}); using the plain kernel, which is slower"
    warnings.warn(text, RuntimeWarning, stacklevel=4)
    return _plain_kernel()


def kernel_for(device: torch.device | str) -> Kernel:
    """Return the fastest kernel that works on a device, given by itself or by name."""
    choices = {"cpu": _cpu_kernel, "cuda": _cuda_kernel}
    return choices.get(str(device).partition(":")[0], _plain_kernel)()


def warm_up(device: torch.device | str, *, everything: bool = False) -> None:
    """Compile what a request on ``device`` needs that names no losses, or load it from the cache.

    Args:
        device: Where to score.
        everything: Compile what most requests need, for the cache of an image.
    """
    kernel = kernel_for(device)
    if is_compiled_kernel(kernel):
        from loss_scoring.core.kernels import fused_cpu  # noqa: PLC0415 - numba may be absent

        fused_cpu.compile_all() if everything else fused_cpu.warm_up()
    elif kernel is not _plain_kernel():
        from loss_scoring.core.kernels import fused_cuda  # noqa: PLC0415 - Triton may be absent

        fused_cuda.warm_up(device)


__all__ = ["Kernel", "Scores", "is_compiled_kernel", "kernel_for", "takes_arrays", "warm_up"]
