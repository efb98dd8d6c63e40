"""The mean absolute percentage error, without a factor 100.

The absolute value is that of the whole quotient, as in the code of darts. The formula that darts
prints divides by y itself, and would be negative for negative targets.
"""

from typing import Any

from loss_scoring.core.losses.elementwise import absolute, divide, signed
from loss_scoring.core.losses.loss import Loss


def term(p: Any, y: Any) -> Any:
    return absolute(divide(y - p, y))


def slope(p: Any, y: Any, g: Any) -> Any:
    return divide(signed(-g, divide(y - p, y), 0), y)


def target_slope(p: Any, y: Any, g: Any) -> Any:
    quotient = divide(y - p, y)
    g = signed(g, quotient, 0)
    return divide(g, y) - g * divide(quotient, y)


def target_joined(p: Any, y: Any, g: Any) -> Any:
    return divide(divide(p, y) * signed(g, divide(y - p, y), 0), y)


MAPE = Loss(
    "mape",
    "mean absolute percentage error",
    "mean(|(y - p) / y|), a term that is NaN or infinite counting as 0",
    "sign(p - y) / |y| / T, 0 where masked",
    source="darts.utils.losses.MapeLoss",
    module="MapeLoss",
    term=term,
    slope=slope,
    target_slope=target_slope,
    target_joined=target_joined,
    has_quotient=True,
    is_steep=True,
)
