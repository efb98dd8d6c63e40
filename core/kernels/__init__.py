"""The kernels and the choice among them."""

import torch

from core.kernels.interface import Kernel, Scores
from core.kernels.plain import plain_kernel


def kernel_for(device: torch.device) -> Kernel:  # noqa: ARG001 - fused kernels choose by device
    """Return the fastest kernel that works on ``device``."""
    return plain_kernel


__all__ = ["Kernel", "Scores", "kernel_for", "plain_kernel"]
