"""The weighted absolute percentage error: the sum of errors over the sum of targets."""

from typing import Any

from loss_scoring.core.losses import mae
from loss_scoring.core.losses.elementwise import absolute
from loss_scoring.core.losses.loss import Loss


def denominator(p: Any, y: Any) -> Any:
    return absolute(y)


WAPE = Loss(
    "wape",
    "weighted absolute percentage error",
    "sum(|y - p|) / sum(|y|), null where all targets are 0",
    "sign(p - y) / sum(|y|)",
    source="utilsforecast.losses.nd",
    module="WAPELoss",
    term=mae.term,
    slope=mae.slope,
    denominator=denominator,
)
