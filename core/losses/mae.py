"""The mean absolute error."""

from typing import Any

from loss_scoring.core.losses.elementwise import absolute, signed
from loss_scoring.core.losses.loss import Loss


def term(p: Any, y: Any) -> Any:
    return absolute(y - p)


def slope(p: Any, y: Any, g: Any) -> Any:
    return signed(g, p, y)


MAE = Loss(
    "mae",
    "mean absolute error",
    "mean(|y - p|)",
    "sign(p - y) / T",
    source="darts.utils.losses.MAELoss",
    module="MAELoss",
    term=term,
    slope=slope,
    autograd=True,
)
