"""The kernels and the choice among them, each imported when it is chosen."""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

from loss_scoring.core.kernels.interface import (
    Kernel,
    Scores,
    is_compiled_kernel,
    takes_arrays,
)

if TYPE_CHECKING:
    import torch

    from loss_scoring.core.kernels.plain import plain_kernel


def __getattr__(name: str) -> Any:
    if name == "plain_kernel":
        return _plain_kernel()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _plain_kernel() -> Kernel:
    from loss_scoring.core.kernels.plain import plain_kernel  # noqa: PLC0415 - imports torch

    return plain_kernel


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
        return _plain_kernel()
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
        return _plain_kernel()
    return fused_cuda_kernel


def kernel_for(device: torch.device | str) -> Kernel:
    """Return the fastest kernel that works on a device, given by itself or by name."""
    choices = {"cpu": _cpu_kernel, "cuda": _cuda_kernel}
    return choices.get(_type_of(device), _plain_kernel)()


def _type_of(device: torch.device | str) -> str:
    return str(device).partition(":")[0]


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


__all__ = [
    "Kernel",
    "Scores",
    "is_compiled_kernel",
    "kernel_for",
    "plain_kernel",
    "takes_arrays",
    "warm_up",
]
