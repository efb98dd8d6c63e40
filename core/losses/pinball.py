"""The pinball (quantile) loss, without a factor 2."""

from types import MappingProxyType
from typing import Any

from loss_scoring.core.losses.elementwise import constant, select
from loss_scoring.core.losses.loss import Loss, Parameter


def term(p: Any, y: Any, q: Any) -> Any:
    d = y - p
    return select(d < constant(0, d), (q - constant(1, d)) * d, q * d)


def slope(p: Any, y: Any, g: Any, q: Any) -> Any:
    return select(p > y, (constant(1, g) - q) * g, select(p < y, -(q * g), constant(0, g)))


PINBALL = Loss(
    "pinball",
    "pinball (quantile) loss",
    "mean(q (y - p) where y >= p, else (1 - q) (p - y))",
    "-q / T where p < y, (1 - q) / T where p > y, 0 where they are equal",
    source="sklearn.metrics.mean_pinball_loss",
    module="PinballLoss",
    term=term,
    slope=slope,
    parameters=MappingProxyType({"q": Parameter(0.5, above=0, below=1)}),
)
