"""The kernels and the choice among them, each imported when it is chosen."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

from loss_scoring.core.kernels.interface import Kernel, Scores, takes_arrays
from loss_scoring.core.options import ScoreOptions

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
    """Return the fastest kernel that works on a device, given by itself or as its type."""
    kind = device if isinstance(device, str) else device.type
    choices = {"cpu": _cpu_kernel, "cuda": _cuda_kernel}
    return choices.get(kind, _plain_kernel)()


_APART = """
import pickle, sys
from loss_scoring.core.kernels import fused_cpu
options, size, weighted, large = pickle.load(sys.stdin.buffer)
fused_cpu.compile_for(options, size, weighted=weighted, large=large)
"""


def is_compiled(
    device: torch.device,
    options: ScoreOptions,
    dtype: torch.dtype,
    elements: int,
    *,
    weighted: bool = False,
) -> bool:
    """Tell whether scoring so many elements on ``device`` waits for no compiler in this process."""
    if device.type != "cpu" or kernel_for(device) is _plain_kernel():
        return True
    from loss_scoring.core.kernels import fused_cpu  # noqa: PLC0415 - numba may be absent

    large = elements > fused_cpu.CHUNK
    return fused_cpu.is_compiled(options, dtype.itemsize, weighted=weighted, large=large)


def compile_for(
    options: ScoreOptions, dtype: torch.dtype, elements: int, *, weighted: bool = False
) -> None:
    """Compile what ``is_compiled`` misses, or load it from the cache, which takes milliseconds.

    Another process compiles, as far as the cache can be written: the compiler would hold up the
    threads of this one for seconds, and leave 15 MB behind for each loop.
    """
    from loss_scoring.core.kernels import fused_cpu  # noqa: PLC0415 - as above

    size, large = dtype.itemsize, elements > fused_cpu.CHUNK
    if not fused_cpu.is_cached(options, size, weighted=weighted, large=large):
        arguments = pickle.dumps((options, size, weighted, large))
        subprocess.run([sys.executable, "-c", _APART], input=arguments, check=False)  # noqa: S603 - ours
    fused_cpu.compile_for(options, size, weighted=weighted, large=large)


def warm_up(device: torch.device | str, *, everything: bool = False) -> None:
    """Compile what a request on ``device`` needs that names no losses, or load it from the cache.

    Args:
        device: Where to score.
        everything: Compile what most requests need, for the cache of an image.
    """
    if kernel_for(device) is _plain_kernel():
        return
    if not isinstance(device, str) and device.type == "cuda":
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
