"""The mean squared error."""

from typing import Any

from loss_scoring.core.losses.loss import Loss


def term(p: Any, y: Any) -> Any:
    return (y - p) * (y - p)


def slope(p: Any, y: Any, g: Any) -> Any:
    return (p - y) * (g + g)


MSE = Loss(
    "mse",
    "mean squared error",
    "mean((y - p)^2)",
    "2 (p - y) / T",
    source="torch.nn.MSELoss",
    module="MSELoss",
    term=term,
    slope=slope,
    is_steep=True,
)
