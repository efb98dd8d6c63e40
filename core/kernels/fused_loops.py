"""The loops of the fused CPU kernel, compiled by numba: one pass, every loss and gradient.

How to read it. A series is walked in blocks of ``LANES`` elements. Element j of a block is added
to accumulator j, in float64, and the accumulators are folded as a tree at the end. The order of
additions is thus written in the source and depends on the length of the series alone: no
``fastmath`` is needed to vectorise the loop over the lanes, so strict IEEE holds (subnormals,
-0.0 + 0.0 = 0.0, NaN tests), and the bits are the same in every specialisation, whichever width
of vector LLVM picks. ``reassoc`` would let the optimizer choose an order per specialisation:
a loss asked for alone would then differ from the same loss asked for with others.

The elements left over after the last full block are not walked one by one: the last block is the
last ``LANES`` elements, and those already added are left out of the sums (their gradients are
written twice, with the same bits). Only a series shorter than one block runs element by element.

What was measured (one thread, million elements/s; see bench/kernel.py):

- ``noalias`` on the arguments is worth 1.2 to 1.9 times with gradients: without it LLVM compares
  every pair of buffers per series before it dares to vectorise. numba has no option for it, so
  ``Restrict`` sets the flag. That holds: outputs and lanes are always fresh arrays.
- Indices are unsigned, else each is tested for being negative (Python's wraparound).
- A loop over a constant 16 lanes with a body as small as MAE's is unrolled before the vectorizer
  sees it, and may stay scalar (float64 with gradient: 0.1 of the floor): for MAE alone the width
  is an argument. Not for float32 with gradient, where the constant is twice as fast (0.53 of the
  floor against 0.24, 10k x 96, same buffers).

What is absent is ``None``; numba compiles a specialisation per set of types and prunes the
branches, so a loss that is not asked for costs nothing. ``zero_division`` is a run-time flag: it
only decides what a series is divided by.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# ruff: noqa: ANN001, ANN202 - numba infers types, and annotations it cannot read would mislead
# ruff: noqa: FURB136, SIM102 - selects, since min and max treat NaN otherwise; pruned branches
# ruff: noqa: PLR0912, PLR0913, PLR0915, PLR0917, C901 - calls are inlined, arrays not bundled

import numpy as np
from numba import uint64

from loss_scoring.core.compiled import Restrict, compiled, inlined

LANES = 16


def _inlined(function):
    return inlined(function, pipeline_class=Restrict)


@_inlined
def _block(
    p, y, base, first, width, full, g_mae, g_mape, g_smape, counts_present,
    sums_mae, sums_mape, sums_smape, counts_mape, counts_smape,
    slopes_mae, slopes_mape, slopes_smape,
):  # fmt: skip
    kind = p.dtype.type
    largest = kind(np.finfo(p.dtype).max)
    zero = kind(0)
    one = kind(1)
    overflowed = False
    for k in range(width):
        i = base + uint64(k)
        x = p[i]
        t = y[i]
        counted = k >= first
        valid = True
        if counts_present is not None:
            valid = (abs(x) <= largest) & (abs(t) <= largest)
            counted = counted & valid
            counts_present[k] += counted
        if sums_mae is not None:
            sums_mae[k] += np.float64(abs(t - x)) if counted else 0.0
            if slopes_mae is not None:
                slope = g_mae if x > t else (-g_mae if x < t else zero)
                if counts_present is not None:
                    slope = slope if valid else zero
                slopes_mae[i] = slope
        if sums_mape is not None:
            q = (t - x) / t
            usable = abs(q) <= largest
            sums_mape[k] += np.float64(abs(q)) if usable & counted else 0.0
            counts_mape[k] += (not usable) & counted
            if slopes_mape is not None:
                slope = g_mape / t
                slope = slope if slope < largest else largest
                slope = slope if slope > -largest else -largest
                slope = -slope if q > 0 else (slope if q < 0 else zero)
                slopes_mape[i] = (slope if usable & valid else zero) + zero
        if sums_smape is not None:
            d = abs(t) + abs(x)
            q = abs(t - x) / d
            usable = q <= largest
            sums_smape[k] += np.float64(q) if usable & counted else 0.0
            counts_smape[k] += (not usable) & counted
            if slopes_smape is not None:
                steep = g_smape / d
                if full is None:
                    steep = steep if steep < largest else largest
                slope = steep if x > t else (-steep if x < t else zero)
                if full is not None:
                    side = one if x > zero else (-one if x < zero else zero)
                    slope = slope - side * (g_smape * (q / d))
                    overflowed |= usable & (not (abs(slope) <= largest))
                slopes_smape[i] = (slope if usable & valid else zero) + zero
    if full is not None:
        if overflowed:
            _join(p, y, base, width, g_smape, slopes_smape)


@_inlined
def _join(p, y, base, width, g, slopes):
    """Write sMAPE's gradient, of which a term overflowed, as one term; see the plain kernel.

    It happens where the denominator is subnormal, so hardly ever; a loop of its own keeps this out
    of the other, which is up to 1.4 times as fast as with a select (float64 1.07).
    """
    kind = p.dtype.type
    largest = kind(np.finfo(p.dtype).max)
    zero = kind(0)
    one = kind(1)
    for k in range(width):
        i = base + uint64(k)
        x = p[i]
        t = y[i]
        d = abs(t) + abs(x)
        q = abs(t - x) / d
        sign = one if x > t else (-one if x < t else zero)
        side = one if x > zero else (-one if x < zero else zero)
        slope = sign * (g / d) - side * (g * (q / d))
        if (q <= largest) & (not (abs(slope) <= largest)):
            slope = ((sign - side * q) * g) / d
            slope = slope if slope < largest else largest
            slope = slope if slope > -largest else -largest
            slopes[i] = slope + zero


@_inlined
def _fold(lanes):
    for k in range(8):
        lanes[k] += lanes[k + 8]
    for k in range(4):
        lanes[k] += lanes[k + 4]
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])


@_inlined
def _clear(lanes):
    for k in range(LANES):
        lanes[k] = 0


def _sweep(
    p, y, offsets, start, stop, lanes, known, skip_zero, full, counts_present,
    sums_mae, sums_mape, sums_smape, counts_mape, counts_smape, present,
    value_mae, value_mape, value_smape, masked_mape, masked_smape,
    slopes_mae, slopes_mape, slopes_smape,
):  # fmt: skip
    kind = p.dtype.type
    largest = kind(np.finfo(p.dtype).max)
    one = kind(1)
    for s in range(start, stop):
        a = offsets[s]
        n = offsets[s + 1] - a
        divisor_mae = divisor_mape = divisor_smape = n
        if len(known) > 0:
            divisor_mae = known[s, 0]
            divisor_mape = known[s, 1]
            divisor_smape = known[s, 2]
        elif (counts_present is not None) | skip_zero:
            if (slopes_mae is not None) or (slopes_mape is not None) or (slopes_smape is not None):
                lost = 0
                lost_mape = 0
                lost_smape = 0
                for i in range(uint64(a), uint64(a + n)):
                    x = p[i]
                    t = y[i]
                    counted = True
                    if counts_present is not None:
                        counted = (abs(x) <= largest) & (abs(t) <= largest)
                        lost += not counted
                    if sums_mape is not None:
                        lost_mape += counted & (not (abs((t - x) / t) <= largest))
                    if sums_smape is not None:
                        lost_smape += counted & (not (abs(t - x) / (abs(t) + abs(x)) <= largest))
                divisor_mae -= lost
                divisor_mape -= lost + (lost_mape if skip_zero else 0)
                divisor_smape -= lost + (lost_smape if skip_zero else 0)
        g_mae = one / kind(divisor_mae)
        g_mape = one / kind(divisor_mape)
        g_smape = one / kind(divisor_smape)
        if counts_present is not None:
            _clear(counts_present)
        if sums_mae is not None:
            _clear(sums_mae)
        if sums_mape is not None:
            _clear(sums_mape)
            _clear(counts_mape)
        if sums_smape is not None:
            _clear(sums_smape)
            _clear(counts_smape)
        if n >= LANES:
            width = LANES
            if (sums_mape is None) & (sums_smape is None):
                if (slopes_mae is None) | (p.itemsize == 8):
                    width = lanes
            for j in range(0, n - LANES + 1, LANES):
                _block(
                    p, y, uint64(a + j), 0, width,
                    full, g_mae, g_mape, g_smape, counts_present,
                    sums_mae, sums_mape, sums_smape, counts_mape, counts_smape,
                    slopes_mae, slopes_mape, slopes_smape,
                )  # fmt: skip
            rest = n % LANES
            if rest > 0:
                _block(
                    p, y, uint64(a + n - LANES), LANES - rest, width,
                    full, g_mae, g_mape, g_smape, counts_present,
                    sums_mae, sums_mape, sums_smape, counts_mape, counts_smape,
                    slopes_mae, slopes_mape, slopes_smape,
                )  # fmt: skip
        else:
            _block(
                p, y, uint64(a), 0, n, full, g_mae, g_mape, g_smape, counts_present,
                sums_mae, sums_mape, sums_smape, counts_mape, counts_smape,
                slopes_mae, slopes_mape, slopes_smape,
            )  # fmt: skip
        count = n
        if counts_present is not None:
            count = np.int64(_fold(counts_present))
            present[s] = count
        whole = len(known) == 0
        if sums_mae is not None:
            total = _fold(sums_mae)
            value_mae[s] = total / np.float64(count) if whole else total
        if sums_mape is not None:
            total = _fold(sums_mape)
            masked = np.int64(_fold(counts_mape))
            masked_mape[s] = masked
            left = count - masked if skip_zero else count
            value_mape[s] = total / np.float64(left) if whole else total
        if sums_smape is not None:
            total = _fold(sums_smape)
            masked = np.int64(_fold(counts_smape))
            masked_smape[s] = masked
            left = count - masked if skip_zero else count
            value_smape[s] = total / np.float64(left) if whole else total


sweep = compiled(_sweep, pipeline_class=Restrict)
"""Score series ``start`` to ``stop``."""
