"""The mean of prediction minus target: above 0 for forecasts that are too high."""

from typing import Any

from loss_scoring.core.losses.loss import Loss


def term(p: Any, y: Any) -> Any:
    return p - y


def slope(p: Any, y: Any, g: Any) -> Any:
    return g


BIAS = Loss(
    "bias",
    "bias (mean error)",
    "mean(p - y)",
    "1 / T",
    source="utilsforecast.losses.bias",
    module="BiasLoss",
    term=term,
    slope=slope,
    autograd=True,
)
