"""From the sums of a series to its loss: the one step that is not a sum, for every kernel."""

import sys
from typing import Any, NamedTuple

from loss_scoring.core.losses.loss import Loss


class Finished(NamedTuple):
    """What the sums of some series come to; arrays, or tensors, as the sums are."""

    values: Any
    """The loss of each series; NaN where there is nothing to divide by."""
    factors: Any
    """What the slope of an element is multiplied by, in float64; 0 where the loss is NaN or 0."""
    is_void: Any
    """Where the loss is null: the reciprocal of the divisor is infinite, as that of 0 or below
    6e-309, or the divisor overflowed and the dividend did not, or the scale is no positive finite
    number, or the quotient by it overflows."""


def finish(xp: Any, loss: Loss, totals: Any, divisors: Any, scales: Any = None) -> Finished:
    """Divide, take the root, and scale, as the loss says.

    Args:
        xp: The module of the arrays, ``numpy`` or ``torch``.
        loss: Its row.
        totals: The sum of the terms of each series, float64.
        divisors: What it is divided by: a count, or a sum of weights or denominators.
        scales: For a loss that is ``scaled``, a number a series.
    """
    values = totals / divisors
    steepness = xp.ones_like(totals) / divisors  # torch divides integers in float32
    is_void = xp.isinf(steepness) | (steepness == 0) & xp.isfinite(totals)
    if loss.root:
        values = xp.sqrt(values)
        steepness = xp.where(values > 0, steepness / (2 * values), 0)
    if loss.scaled:
        overflows = xp.isfinite(values) & xp.isinf(values / scales)
        is_void = is_void | overflows | ~(xp.isfinite(scales) & (scales > 0))
        values, steepness = values / scales, steepness / scales
    values = xp.where(is_void, xp.nan, values)
    # An infinite factor times a weight of 0 would be NaN.
    steepness = steepness.clip(-sys.float_info.max, sys.float_info.max)
    return Finished(values, xp.where(is_void, 0, steepness), is_void)
