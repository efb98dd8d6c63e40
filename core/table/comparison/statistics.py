"""Statistics of losses that depend on nothing but the losses: exact sums, ranks, the bootstrap.

Losses may be 0, infinite or near the largest double, so callers silence numpy.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LEAST, _MOST = 0.01, 100.0
"""Relative losses are clipped so, as by fev: one series of loss 0 must not decide a geometric
mean."""
_DRAWN_AT_ONCE = 1 << 22
_SUMMED_BITS = 15
"""Of so many values, as a power of two, leading bits are summed at once."""


def exact_sum(values: Floats) -> float:
    """Return the sum, rounded once, so that it is the same in every order.

    Example:
        >>> exact_sum(np.array([1e100, 1.0, -1e100]))
        1.0
    """
    size = 1 << _SUMMED_BITS
    largest = np.abs(values).max(initial=0)
    if len(values) > size >> 5 and largest < 2.0**1000:
        blocks = range(0, len(values), size)
        return math.fsum(part for i in blocks for part in _exact_parts(values[i : i + size]))
    try:
        return math.fsum(values.tolist())
    except (OverflowError, ValueError):  # beyond the largest double; or infinities of both signs
        return float(values.sum())


def _exact_parts(values: Floats) -> Iterator[float]:
    """Yield few numbers with the sum of finite values, by Rump, Ogita and Oishi's ExtractVector.

    Where 2^n values are below 2^-n of a power of two, adding it and taking it away again leaves the
    leading bits of each. Their sum has 53 bits, so it is exact in any order, and so are the rests.
    """
    _, exponent = math.frexp(np.abs(values).max(initial=0))
    power = math.ldexp(1.0, exponent + _SUMMED_BITS)
    while values.any():
        leading = values + power
        leading -= power
        yield float(leading.sum())
        values = values - leading
        power = math.ldexp(power, _SUMMED_BITS - 53)


def means(values: Floats, weights: Floats | None = None) -> Floats:
    """Return the mean of each column; NaN where there is none."""
    if weights is None:
        sums, sizes = map(exact_sum, values.T), [float(len(values))] * values.shape[1]
    else:
        weighted = np.where(weights > 0, values * weights, 0.0)  # also where a loss is infinite
        sums, sizes = map(exact_sum, weighted.T), [*map(exact_sum, weights.T)]
    return np.array(
        [total / size if size else np.nan for total, size in zip(sums, sizes, strict=True)]
    )


def ranks(values: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the rank of each model on each series, from 1; equal losses share the mean of theirs.

    Returns:
        The ranks, and where no model has a lower loss.

    Example:
        >>> ranked, best = ranks(np.array([[0.5, 0.1, 0.5]]))
        >>> ranked.tolist(), best.tolist()
        ([[2.5, 1.0, 2.5]], [[False, True, False]])
    """
    columns = np.ascontiguousarray(values.T)
    ranked, best = np.empty(columns.shape), np.empty(columns.shape, np.bool_)
    count = np.min_scalar_type(len(columns))  # as narrow as a truth value, so none is converted
    for model, own in enumerate(columns):
        lower, equal = np.zeros((2, len(own)), count)
        for column in columns:
            lower += (column < own).view(np.uint8)
            equal += (column == own).view(np.uint8)
        np.equal(lower, 0, out=best[model])
        np.multiply(equal, 0.5, out=ranked[model])
        ranked[model] += lower
    ranked += 0.5
    return ranked.T, best.T


def log_ratios(values: Floats, baseline: Floats) -> Floats:
    """Return the logarithm of each loss in units of another, clipped; that of equal losses is 0."""
    ratios = np.where(values == baseline, 1.0, values / baseline)
    return np.log(np.clip(ratios, _LEAST, _MOST))  # type: ignore[no-any-return]


def resampled_means(columns: Floats, n_resamples: int, seed: int) -> Floats:
    """Return the mean of each column over series that are drawn with replacement.

    All columns of a series are drawn together. A resample is a number of draws for each series, so
    one matrix product gives all means. The draws are those of fev: a row a resample of
    ``default_rng(seed).integers``.

    Args:
        columns: One row a series.
        n_resamples: How many times to draw.
        seed: Of the draws.

    Returns:
        One row a resample; NaN if there are no series.
    """
    series, width = columns.shape
    resampled = np.full((n_resamples, width), np.nan)
    generator = np.random.default_rng(seed)
    step = max(1, _DRAWN_AT_ONCE // max(series, 1))
    for start in range(0, n_resamples if series else 0, step):
        stop = min(start + step, n_resamples)
        drawn = generator.integers(0, series, size=(stop - start, series))
        drawn += series * np.arange(stop - start)[:, None]
        counts = np.bincount(drawn.reshape(-1), minlength=drawn.size).reshape(drawn.shape)
        resampled[start:stop] = counts.astype(np.float64) @ columns / series
    return resampled


def interval(resampled: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Return the bounds that hold a share of the resamples, as much left out below as above."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high
