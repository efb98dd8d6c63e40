"""The logarithm of the hyperbolic cosine of the error: half its square near 0, linear far off."""

import math
from typing import Any

from loss_scoring.core.losses.elementwise import (
    absolute,
    constant,
    divide,
    exp,
    expm1,
    log1p,
    select,
    signed,
)
from loss_scoring.core.losses.loss import Loss

LOG_2 = math.log(2)


def term(p: Any, y: Any) -> Any:
    d = absolute(y - p)
    far = d + (log1p(exp(-(d + d))) - constant(LOG_2, d))
    # cosh(d) - 1 without a difference of numbers that are nearly equal
    e = expm1(d)
    near = log1p(divide(e * e, (e + e) + constant(2, d)))
    return select(d < constant(1, d), near, far)


def slope(p: Any, y: Any, g: Any) -> Any:
    d = absolute(y - p)
    tanh = divide(-expm1(-(d + d)), exp(-(d + d)) + constant(1, d))
    return signed(g, p, y) * tanh


LOGCOSH = Loss(
    "logcosh",
    "log-cosh loss",
    "mean(log(cosh(p - y)))",
    "tanh(p - y) / T",
    source="keras.losses.LogCosh",
    module="LogCoshLoss",
    term=term,
    slope=slope,
)
