"""The CUDA kernel, on Triton's interpreter unless TRITON_INTERPRET=0 (``make test-gpu``).

The interpreter must be chosen before Triton is imported.
"""

import os
import sys

import numpy as np

assert "triton" not in sys.modules
os.environ.setdefault("TRITON_INTERPRET", "1")

from triton import language as tl  # noqa: E402
from triton.runtime.interpreter import TensorHandle  # noqa: E402

from loss_scoring.core.kernels import fused_cuda, fused_tiles  # noqa: E402


def fused_cuda_kernel(*arguments):
    with np.errstate(all="ignore"):  # on a GPU a division by zero warns nobody
        return fused_cuda.fused_cuda_kernel(*arguments)


class _Untraced:
    """A kernel that runs without coverage's tracer, which has nothing to see in Triton's interpreter.

    It makes the interpreter half as fast. The files of kernels are left out of the report.
    """

    def __init__(self, kernel):
        self._kernel = kernel

    def __getitem__(self, grid):
        launch = self._kernel[grid]

        def untraced(*arguments, **options):
            tracer = sys.gettrace()
            sys.settrace(None)
            try:
                return launch(*arguments, **options)
            finally:
                sys.settrace(tracer)

        return untraced


def _by_numpy(function):
    """Stand in for a function of CUDA's library, which the interpreter does not have."""

    def operation(x):
        return tl.tensor(TensorHandle(function(x.handle.data), x.handle.dtype), x.type)

    return operation


if os.environ["TRITON_INTERPRET"] == "1":
    fused_tiles.OPERATIONS.update(
        {name: _by_numpy(getattr(np, name)) for name in ("exp", "expm1", "log1p")}
    )
    fused_cuda.score_tiles = _Untraced(fused_cuda.score_tiles)
    fused_cuda.join_pieces = _Untraced(fused_cuda.join_pieces)
