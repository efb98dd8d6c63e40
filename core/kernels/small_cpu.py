"""The first small batches of a process, by numpy: they would wait for numba longer than for this.

The bits are those of the compiled loops. All that is done to a term are operations that IEEE 754
rounds correctly, so losses with an exponential or a logarithm are left to the loops, and the order
of additions is that of ``core.kernels.fused_loops``, for all series of one length at once.
"""

import sys
from functools import cache
from importlib.util import find_spec
from types import FunctionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_scoring.core.kernels.interface import GROUP, LANES, Scores
from loss_scoring.core.losses.loss import Loss
from loss_scoring.core.options import ScoreOptions

_MOST = 1 << 16
"""Elements of a batch, of which the loops cut no series; and of all batches, four times as many."""
_CALL = 1 << 12
"""As how many elements a call counts."""
_ROUNDED = {"exp", "expm1", "log1p"}
"""Operations of which libraries give one bit or another."""
_HAS_NUMBA = find_spec("numba") is not None
Floats = NDArray[np.float64]


class _Work:
    """What was done so far in this process."""

    elements = 0


def takes(options: ScoreOptions, elements: int) -> bool:
    """Tell whether to score a batch without weights by numpy, and count it if so."""
    if elements > _MOST or "loss_scoring.core.kernels.fused_loops" in sys.modules:
        return False
    if not _HAS_NUMBA:  # the plain kernel adds in another order
        return False
    if options.gradients or not all(_is_exact(spec.loss) for spec in options.losses):
        return False
    _Work.elements += elements + _CALL
    return _Work.elements <= 4 * _MOST


@cache
def _is_exact(loss: Loss) -> bool:
    return loss.is_mean and not _ROUNDED & _names(loss.term)


def _names(function: Any) -> set[str]:
    """Return what a function uses, and the functions beside it that it calls."""
    names = {*function.__code__.co_names}
    for name in names.copy():
        called = function.__globals__.get(name)
        if isinstance(called, FunctionType) and called.__module__ == function.__module__:
            names |= _names(called)
    return names


def small_cpu_kernel(
    prediction: NDArray[Any],
    target: NDArray[Any],
    offsets: NDArray[np.int64],
    options: ScoreOptions,
) -> Scores:
    """Score every series; see ``core.kernels.interface.Kernel``."""
    kind, largest = prediction.dtype.type, np.finfo(prediction.dtype).max
    present = np.ones(len(prediction), np.bool_)
    if options.missing == "skip":
        present = (np.abs(prediction) <= largest) & (np.abs(target) <= largest)
    rows = len(options.losses)
    terms, usable = np.empty((rows, len(prediction))), np.tile(present, (rows, 1))
    with np.errstate(all="ignore"):
        for row, spec in enumerate(options.losses):
            term = spec.loss.term(prediction, target, *spec.flags, *map(kind, spec.numbers))
            if spec.loss.has_quotient:
                usable[row] &= term <= largest
            terms[row] = np.where(usable[row], term, 0)
        totals = _sums(terms, offsets)
        counts = _sums(np.vstack([usable, present]).astype(np.float64), offsets).astype(np.int64)
        masked = counts[-1] - counts[:-1]
        left = counts[:-1] if options.zero_division == "skip" else counts[[-1] * rows]
        values = np.where(left > 0, totals / left, np.nan)
    names = [spec.name for spec in options.losses]
    quotients = [spec.loss.has_quotient for spec in options.losses]
    return Scores(
        dict(zip(names, values, strict=True)),
        {name: row for name, row, is_ in zip(names, masked, quotients, strict=True) if is_},
        {},
    )


def _sums(terms: Floats, offsets: NDArray[np.int64]) -> Floats:
    """Sum each series in each row of terms."""
    lengths = np.diff(offsets)
    sums = np.zeros((len(terms), len(lengths)))
    for length in np.unique(lengths[lengths > 0]).tolist():
        series = np.flatnonzero(lengths == length)
        own = np.take(terms, offsets[series, None] + np.arange(length), axis=1)
        sums[:, series] = _sum(own)
    return sums


def _sum(terms: Floats) -> Floats:
    """Sum the last axis: groups as trees, their sums in pairs, as the bits of a counter carry."""
    length = terms.shape[-1]
    groups = (length - 1) // GROUP
    waiting: dict[int, Floats] = {}
    for group in range(groups):
        total, level = _fold(terms[..., group * GROUP : (group + 1) * GROUP], length), 0
        while group >> level & 1:
            total = waiting[level] + total
            level += 1
        waiting[level] = total
    total = _fold(terms[..., groups * GROUP :], length)
    for level in range(groups.bit_length()):
        if groups >> level & 1:
            total = waiting[level] + total
    return total


def _fold(terms: Floats, length: int) -> Floats:
    """Sum a group of a series: element j in lane j, those left over in the last lanes."""
    lanes = np.zeros((*terms.shape[:-1], LANES))
    full = terms.shape[-1] // LANES * LANES
    for start in range(0, full, LANES):
        lanes += terms[..., start : start + LANES]
    if rest := terms.shape[-1] - full:
        first = LANES - rest if length >= LANES else 0
        lanes[..., first : first + rest] += terms[..., full:]
    lanes = lanes[..., :8] + lanes[..., 8:]
    lanes = lanes[..., :4] + lanes[..., 4:]
    total: Floats = (lanes[..., 0] + lanes[..., 2]) + (lanes[..., 1] + lanes[..., 3])
    return total
