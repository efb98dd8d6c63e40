"""The losses, a file each. ``LOSSES`` is the one list of them: whatever knows a loss reads it."""

from collections.abc import Mapping
from types import MappingProxyType

from loss_scoring.core.losses.bias import BIAS
from loss_scoring.core.losses.huber import HUBER
from loss_scoring.core.losses.logcosh import LOGCOSH
from loss_scoring.core.losses.loss import Loss, Parameter
from loss_scoring.core.losses.mae import MAE
from loss_scoring.core.losses.mape import MAPE
from loss_scoring.core.losses.mase import MASE
from loss_scoring.core.losses.mse import MSE
from loss_scoring.core.losses.pinball import PINBALL
from loss_scoring.core.losses.rmse import RMSE
from loss_scoring.core.losses.rmsse import RMSSE
from loss_scoring.core.losses.smape import SMAPE
from loss_scoring.core.losses.wape import WAPE

_ROWS = [MAE, MAPE, SMAPE, MSE, RMSE, BIAS, HUBER, LOGCOSH, PINBALL, WAPE, MASE, RMSSE]
_LOSSES = {loss.name: loss for loss in _ROWS}
LOSSES: Mapping[str, Loss] = MappingProxyType(_LOSSES)
BUILT_IN = frozenset(_LOSSES)
"""The losses that every process knows."""
DEFAULT_LOSSES = ("mae", "mape", "smape")
"""What a request gets that names none, whatever losses are added."""


def register(loss: Loss) -> None:
    """Add a loss to the table of this process.

    Call it before the service is imported, which reads the table once, and in every other process
    that is to know the loss: workers of Ray and Spark. Front ends and workers of the service, which
    ``--frontends`` starts, know the losses above. In the long run a loss has a line there.

    Raises:
        ValueError: If there is one of that name.
    """
    if loss.name in LOSSES:
        raise ValueError(f"there is a loss {loss.name!r} already")
    _LOSSES[loss.name] = loss


__all__ = ["DEFAULT_LOSSES", "LOSSES", "Loss", "Parameter", "register"]
