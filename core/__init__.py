"""Loss scoring on torch: the loss modules, and a kernel over many ragged series at once."""

from loss_scoring.core.kernels import (
    Kernel,
    Scores,
    compile_for,
    is_compiled,
    kernel_for,
    takes_arrays,
    warm_up,
)
from loss_scoring.core.losses import DEFAULT_LOSSES, LOSSES, Loss, Parameter
from loss_scoring.core.modules import MAELoss, MapeLoss, SmapeLoss
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

__all__ = [
    "DEFAULT_LOSSES",
    "LOSSES",
    "Kernel",
    "Loss",
    "LossSpec",
    "MAELoss",
    "MapeLoss",
    "Missing",
    "MissingElements",
    "MissingValueError",
    "Parameter",
    "Ragged",
    "ScoreOptions",
    "Scores",
    "SmapeLoss",
    "ZeroDivision",
    "compile_for",
    "find_missing",
    "invalid_weights",
    "is_compiled",
    "kernel_for",
    "may_be_missing",
    "score",
    "takes_arrays",
    "warm_up",
]
