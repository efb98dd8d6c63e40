"""Huber's loss, scaled as in torch: half the square up to delta, then linear with slope delta."""

from types import MappingProxyType
from typing import Any

from loss_scoring.core.losses.elementwise import absolute, constant, select
from loss_scoring.core.losses.loss import Loss, Parameter


def term(p: Any, y: Any, delta: Any) -> Any:
    d = absolute(y - p)
    half = constant(0.5, d)
    return select(d < delta, half * d * d, delta * (d - half * delta))


def slope(p: Any, y: Any, g: Any, delta: Any) -> Any:
    d = p - y
    return select(d > delta, g * delta, select(d < -delta, -(g * delta), g * d))


HUBER = Loss(
    "huber",
    "Huber loss",
    "mean((y - p)^2 / 2 where |y - p| < delta, else delta (|y - p| - delta / 2))",
    "max(-delta, min(delta, p - y)) / T",
    source="torch.nn.HuberLoss",
    module="HuberLoss",
    term=term,
    slope=slope,
    parameters=MappingProxyType({"delta": Parameter(1.0, above=0)}),
)
