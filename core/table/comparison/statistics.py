"""Statistics of losses that depend on nothing but the losses: exact sums, ranks, the bootstrap.

Losses may be 0, infinite or near the largest double, so callers silence numpy.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LEAST, _MOST = 0.01, 100.0
"""Relative losses are clipped so, as by fev: one series of loss 0 must not decide a geometric
mean."""
_DRAWN_AT_ONCE = 1 << 22


def exact_sum(values: Floats) -> float:
    """Return the sum, rounded once, so that it is the same in every order.

    Example:
        >>> exact_sum(np.array([1e100, 1.0, -1e100]))
        1.0
    """
    try:
        return math.fsum(values.tolist())
    except (OverflowError, ValueError):  # beyond the largest double; or infinities of both signs
        return float(values.sum())


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
    """Return the place of each model on each series, from 1; equal losses share the mean of theirs.

    Returns:
        The places, and where no model has a lower loss.

    Example:
        >>> places, best = ranks(np.array([[0.5, 0.1, 0.5]]))
        >>> places.tolist(), best.tolist()
        ([[2.5, 1.0, 2.5]], [[False, True, False]])
    """
    places, best = np.empty(values.shape), np.empty(values.shape, np.bool_)
    columns = np.ascontiguousarray(values.T)
    for model, own in enumerate(columns):
        lower = sum((column < own).astype(np.int64) for column in columns)
        equal = sum((column == own).astype(np.int64) for column in columns)
        places[:, model], best[:, model] = lower + (equal + 1) / 2, lower == 0
    return places, best


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
