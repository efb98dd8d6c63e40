"""Loss scoring on torch: the loss modules, and a kernel over many ragged series at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loss_scoring.core.kernels import (
    Kernel,
    Scores,
    is_compiled_kernel,
    kernel_for,
    takes_arrays,
    warm_up,
)
from loss_scoring.core.losses import DEFAULT_LOSSES, LOSSES, Loss, Parameter
from loss_scoring.core.options import LossSpec, Missing, ScoreOptions, ZeroDivision
from loss_scoring.core.ragged import Ragged
from loss_scoring.core.scoring import (
    MissingElements,
    MissingValueError,
    find_missing,
    invalid_weights,
    may_be_missing,
    score,
)

if TYPE_CHECKING:
    from loss_scoring.core.modules import LossModule

__all__ = [  # noqa: PLE0604 - with texts of the table
    "DEFAULT_LOSSES",
    "LOSSES",
    "Kernel",
    "Loss",
    "LossModule",
    "LossSpec",
    "Missing",
    "MissingElements",
    "MissingValueError",
    "Parameter",
    "Ragged",
    "ScoreOptions",
    "Scores",
    "ZeroDivision",
    "find_missing",
    "invalid_weights",
    "is_compiled_kernel",
    "kernel_for",
    "may_be_missing",
    "score",
    "takes_arrays",
    "warm_up",
    *(loss.module for loss in LOSSES.values() if loss.module),
]


def __getattr__(name: str) -> type[LossModule]:
    """Return the module of a loss; not imported before, since it takes torch."""
    if name != "LossModule" and all(loss.module != name for loss in LOSSES.values()):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from loss_scoring.core import modules  # noqa: PLC0415

    found: type[LossModule] = getattr(modules, name)
    return found
