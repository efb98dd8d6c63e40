"""The contract written twice more, independently of ``core``: formulas in numpy, darts in torch."""

import numpy as np
import torch

from loss_scoring.core import DEFAULT_LOSSES, LossSpec

DEFAULT = tuple(map(LossSpec, DEFAULT_LOSSES))


def score_series(p, y, loss, *, block=True, missing="propagate", zero_division="zero"):
    """Score one series; returns (loss, masked count, gradient), sums in float64 by numpy."""
    dtype = p.dtype.type
    with np.errstate(all="ignore"):
        error = np.abs(y - p)
        if loss == "mae":
            term, usable = error, np.ones(len(p), bool)
        elif loss == "mape":
            term = np.abs((y - p) / y)
            usable = np.isfinite(term)
        else:
            term = error / (np.abs(y) + np.abs(p))
            usable = np.isfinite(term)
        present = np.isfinite(p) & np.isfinite(y) if missing == "skip" else np.ones(len(p), bool)
        counted = present & usable if zero_division == "skip" else present
        t = int(counted.sum())
        terms = np.where(usable, term, 0).astype(np.float64)
        value = terms[counted].sum() / t if t else np.nan
        g = dtype(1) / dtype(t)
        d = np.abs(y) + np.abs(p)
        sign = np.nan_to_num(np.sign(p - y))  # torch: sign(NaN) is 0
        if loss == "mae":
            gradient = sign * g
        elif loss == "mape":
            gradient = -((np.sign((y - p) / y) * g) / y)
        else:
            gradient = sign * np.minimum(g / d, np.finfo(p.dtype).max)
            if not block:
                side = np.nan_to_num(np.sign(p))
                gradient = sign * (g / d) - side * (g * ((error / d) / d))
                joined = (sign - side * (error / d)) * g / d
                gradient = np.where(np.isfinite(gradient), gradient, joined)
        most = np.finfo(p.dtype).max
        gradient = np.clip(gradient, -most, most)
        gradient[~(counted & usable)] = 0
        gradient[gradient == 0] = 0.0
    return value, int((~usable & present).sum()), gradient


def darts_loss(p, y, loss, *, block=True):
    """What darts does: divide, then overwrite a quotient that is NaN or infinite by 0."""

    def divide(a, b):
        quotient = a / b
        quotient[torch.isnan(quotient)] = 0.0
        quotient[torch.isinf(quotient)] = 0.0
        return quotient

    if loss == "mae":
        return torch.mean(torch.abs(y - p))
    if loss == "mape":
        return torch.mean(torch.abs(divide(y - p, y)))
    denominator = torch.abs(y) + torch.abs(p)
    return torch.mean(divide(torch.abs(y - p), denominator.detach() if block else denominator))


def adversarial(dtype, *, finite=True):
    """Return every pair out of a set of awkward values: (prediction, target)."""
    info = np.finfo(dtype)
    tiny = float(info.smallest_subnormal)
    values = [0.0, -0.0, 1.0, -1.0, 1 / 3, 3.0, -7.5, tiny, -3 * tiny, float(info.tiny)]
    values += [float(info.max), -float(info.max), float(info.max) / 3, 1e30, -1e-30]
    values += [1e300, -1e-300] if dtype == np.float64 else [1e-38, 3e38]
    if not finite:
        values += [np.nan, np.inf, -np.inf]
    grid = np.array(values, dtype)
    p, y = np.meshgrid(grid, grid)
    return p.ravel().copy(), y.ravel().copy()
