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
    return signed(divide(g, y), 0, divide(y - p, y))


MAPE = Loss(
    "mape",
    "mean absolute percentage error",
    "mean(|(y - p) / y|), a term that is NaN or infinite counting as 0",
    "sign(p - y) / |y| / T, 0 where masked",
    source="darts.utils.losses.MapeLoss",
    module="MapeLoss",
    term=term,
    slope=slope,
    has_quotient=True,
    is_steep=True,
)
