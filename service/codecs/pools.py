"""The memory in which large requests lie, used again from request to request.

All pools are listed here as a front end makes them of memory that the worker sees, and as each has
its metric.
"""

from loss_scoring.core.buffers import BufferPool

BODIES = BufferPool(retain_bytes=128 << 20)
"""Bodies as they arrive."""
NUMBERS = BufferPool(retain_bytes=256 << 20)
"""Predictions and targets, where they are not read in place."""
POOLS = {"bodies": BODIES, "numbers": NUMBERS}
