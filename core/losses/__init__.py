"""The losses, a file each. ``LOSSES`` is the one list of them: whatever knows a loss reads it."""

from collections.abc import Mapping
from types import MappingProxyType

from loss_scoring.core.losses.loss import Loss, Parameter
from loss_scoring.core.losses.mae import MAE
from loss_scoring.core.losses.mape import MAPE
from loss_scoring.core.losses.smape import SMAPE

LOSSES: Mapping[str, Loss] = MappingProxyType({loss.name: loss for loss in (MAE, MAPE, SMAPE)})
DEFAULT_LOSSES = ("mae", "mape", "smape")
"""What a request gets that names none, whatever losses are added."""

__all__ = ["DEFAULT_LOSSES", "LOSSES", "Loss", "Parameter"]
