"""The symmetric mean absolute percentage error, between 0 and 1: without a factor 2, 100 or 200."""

from types import MappingProxyType
from typing import Any

from loss_scoring.core.losses.elementwise import absolute, divide, signed
from loss_scoring.core.losses.loss import Loss, Parameter


def term(p: Any, y: Any, block_denom_grad: bool) -> Any:
    return divide(absolute(y - p), absolute(y) + absolute(p))


def slope(p: Any, y: Any, g: Any, block_denom_grad: bool) -> Any:
    d = absolute(y) + absolute(p)
    steep = divide(signed(g, p, y), d)
    if block_denom_grad:
        return steep
    return steep - signed(g * divide(divide(absolute(y - p), d), d), p, 0)


def joined(p: Any, y: Any, g: Any, block_denom_grad: bool) -> Any:
    """Take the difference of the two terms, of which a subnormal d overflows, before dividing."""
    d = absolute(y) + absolute(p)
    if block_denom_grad:
        return divide(signed(g, p, y), d)
    one = divide(d, d)
    return divide((signed(one, p, y) - signed(divide(absolute(y - p), d), p, 0)) * g, d)


def target_slope(p: Any, y: Any, g: Any, block_denom_grad: bool) -> Any:
    return slope(y, p, g, block_denom_grad)


def target_joined(p: Any, y: Any, g: Any, block_denom_grad: bool) -> Any:
    return joined(y, p, g, block_denom_grad)


SMAPE = Loss(
    "smape",
    "symmetric mean absolute percentage error",
    "mean(|y - p| / (|y| + |p|)), a term that is NaN or infinite counting as 0",
    "sign(p - y) / d / T with d = |y| + |p|, 0 where masked; with block_denom_grad=false "
    "(sign(p - y) / d - |y - p| * sign(p) / d^2) / T",
    source="darts.utils.losses.SmapeLoss",
    module="SmapeLoss",
    term=term,
    slope=slope,
    joined=joined,
    joined_unless="block_denom_grad",
    target_slope=target_slope,
    target_joined=target_joined,
    parameters=MappingProxyType({"block_denom_grad": Parameter(default=True)}),
    has_quotient=True,
    is_steep=True,
)
