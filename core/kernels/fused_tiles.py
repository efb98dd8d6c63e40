"""The device code of the fused CUDA kernel, in Triton.

A program scores a tile: ``ROWS`` pieces of series, each of at most ``WIDTH`` elements. Element k of
a piece is always in column k, wherever the series lies in the batch, and a row is summed by
``_fold``: neighbours in pairs, then the sums in pairs. Each step is one addition of two numbers, so
the order is fixed and depends neither on how the compiler lays a tile out over threads nor
on the rows beside it. That is what makes a loss the same bits in every batch.

Divisions are correctly rounded and nothing may be fused into a multiply-add (see the launch in
``core.kernels.fused_cuda``), so element terms and gradients are those of the plain kernel.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: ANN001, ANN201, ANN202 - Triton infers types
# ruff: noqa: N803 - Triton writes compile-time constants in capitals
# ruff: noqa: D417 - arguments that belong together are described together
# ruff: noqa: PLR0913, PLR0915, PLR0917, C901 - one kernel, no objects on the device

import triton
import triton.language as tl

COLUMNS = 6
"""Sums of mae, mape and smape; masked of mape and smape; present."""


@triton.jit
def _divide(a, b):
    if a.dtype == tl.float32:
        return tl.div_rn(a, b)
    return a / b


@triton.jit
def _sign(high, low):
    """Return the sign of ``high - low``, 0 where either is NaN."""
    return tl.where(high > low, 1.0, tl.where(high < low, -1.0, 0.0)).to(high.dtype)


@triton.jit
def _within(x, largest):
    """Clamp to the largest finite numbers; NaN becomes one of them, and is masked later."""
    x = tl.where(x < largest, x, largest)
    return tl.where(x > -largest, x, -largest)


@triton.jit
def _fold(x, ROWS: tl.constexpr, WIDTH: tl.constexpr, STEPS: tl.constexpr):
    """Sum each row in pairs of neighbours.

    A sum of two has one order. (``tl.split`` wants both in one thread; where they lie in different
    ones, the compiler then gives every thread the whole row.)
    """
    x = x.to(tl.float64)
    for step in tl.static_range(STEPS):
        x = tl.sum(tl.reshape(x, [ROWS, WIDTH >> (step + 1), 2]), axis=2)
    return tl.reshape(x, [ROWS])


_NUMBERS = (
    *("first", "stop", "pieces", "series"),
    *("mae", "mape", "smape", "full", "skip", "add", "slope"),
)


@triton.jit(do_not_specialize=_NUMBERS)
def score_tiles(
    prediction,
    target,
    starts,
    sizes,
    owners,
    divisors,
    sums,
    slopes_mae,
    slopes_mape,
    slopes_smape,
    first,
    stop,
    pieces,
    series,
    mae,
    mape,
    smape,
    full,
    skip,
    add,
    slope,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    STEPS: tl.constexpr,
    ALIGNED: tl.constexpr,
    MOST: tl.constexpr,
):
    """Score one tile of pieces.

    Args:
        prediction, target: All elements of the batch.
        starts, sizes, owners: Where a piece starts, its length, its series; int64.
        divisors: ``[3, series]`` int64, what a series' loss is divided by; read for ``slope``.
        sums: ``[COLUMNS, pieces]`` float64, written for ``add``.
        slopes_mae, slopes_mape, slopes_smape: Gradients, flat, written for ``slope``.
        first, stop: The pieces that this launch scores.
        pieces, series: How many there are in the batch.
        mae, mape, smape: Which losses, as 0 or 1. Choices of a request are arguments and not
            constants, since a branch that all threads take together costs nothing, and a
            specialisation for each combination would cost a request a compilation.
        full: Whether sMAPE's denominator has a gradient as well.
        skip: Whether missing elements leave the mean.
        add, slope: Whether sums and gradients are wanted.
        ALIGNED: The elements that every start and size is a multiple of: 4 or 1.
        MOST: The largest finite number of the dtype.
    """
    row = first + tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = row < stop
    start = tl.multiple_of(tl.load(starts + row, mask=real, other=0), ALIGNED)
    size = tl.multiple_of(tl.load(sizes + row, mask=real, other=0), ALIGNED)
    column = tl.arange(0, WIDTH)[None, :]
    index = start[:, None] + column
    inside = column < size[:, None]
    x = tl.load(prediction + index, mask=inside, other=0.0)
    t = tl.load(target + index, mask=inside, other=0.0)
    largest = tl.full([ROWS, WIDTH], MOST, x.dtype)
    one = tl.full([ROWS, WIDTH], 1.0, x.dtype)
    zero = tl.full([ROWS, WIDTH], 0.0, x.dtype)
    finite = (tl.abs(x) <= largest) & (tl.abs(t) <= largest)
    counted = inside & (finite | (skip == 0))
    if skip * add:
        present = _fold(counted, ROWS, WIDTH, STEPS)
        tl.store(sums + 5 * pieces + row, present, mask=real)
    owner = tl.load(owners + row, mask=real, other=0)
    if mae:
        if add:
            total = _fold(tl.where(counted, tl.abs(t - x), zero), ROWS, WIDTH, STEPS)
            tl.store(sums + row, total, mask=real)
        if slope:
            divisor = tl.load(divisors + owner, mask=real, other=1)[:, None]
            g = _divide(one, tl.broadcast_to(divisor, [ROWS, WIDTH]).to(x.dtype))
            derivative = tl.where(x > t, g, tl.where(x < t, -g, zero))
            derivative = tl.where(counted, derivative, zero)
            tl.store(slopes_mae + index, derivative, mask=inside)
    if mape:
        quotient = _divide(t - x, t)
        usable = (tl.abs(quotient) <= largest) & counted
        if add:
            total = _fold(tl.where(usable, tl.abs(quotient), zero), ROWS, WIDTH, STEPS)
            tl.store(sums + pieces + row, total, mask=real)
            masked = _fold(counted & ~(tl.abs(quotient) <= largest), ROWS, WIDTH, STEPS)
            tl.store(sums + 3 * pieces + row, masked, mask=real)
        if slope:
            divisor = tl.load(divisors + series + owner, mask=real, other=1)[:, None]
            g = _divide(one, tl.broadcast_to(divisor, [ROWS, WIDTH]).to(x.dtype))
            derivative = _within(-_divide(_sign(quotient, zero) * g, t), largest)
            tl.store(slopes_mape + index, tl.where(usable, derivative, zero) + zero, mask=inside)
    if smape:
        bottom = tl.abs(t) + tl.abs(x)
        quotient = _divide(tl.abs(t - x), bottom)
        usable = (quotient <= largest) & counted
        if add:
            total = _fold(tl.where(usable, quotient, zero), ROWS, WIDTH, STEPS)
            tl.store(sums + 2 * pieces + row, total, mask=real)
            masked = _fold(counted & ~(quotient <= largest), ROWS, WIDTH, STEPS)
            tl.store(sums + 4 * pieces + row, masked, mask=real)
        if slope:
            divisor = tl.load(divisors + 2 * series + owner, mask=real, other=1)[:, None]
            g = _divide(one, tl.broadcast_to(divisor, [ROWS, WIDTH]).to(x.dtype))
            steep = _divide(g, bottom)
            sign = _sign(x, t)
            derivative = sign * tl.where(steep < largest, steep, largest)
            if full:
                side = _sign(x, zero)
                joined = sign - side * quotient  # not later, as registers would spill
                derivative = sign * steep - side * (g * _divide(quotient, bottom))
                joined = _divide(joined * g, bottom)
                derivative = tl.where(tl.abs(derivative) <= largest, derivative, joined)
            derivative = _within(derivative, largest)
            tl.store(slopes_smape + index, tl.where(usable, derivative, zero) + zero, mask=inside)


@triton.jit(do_not_specialize=["pieces", "series"])
def join_pieces(sums, firsts, counts, totals, pieces, series, ROWS: tl.constexpr):
    """Add up the pieces of ``ROWS`` series in order; the second axis of the grid is the column."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1).to(tl.int64)
    real = row < series
    first = tl.load(firsts + row, mask=real, other=0)
    count = tl.load(counts + row, mask=real, other=0)
    total = tl.zeros([ROWS], tl.float64)
    for k in range(tl.max(count, axis=0)):
        total += tl.load(sums + column * pieces + first + k, mask=k < count, other=0.0)
    tl.store(totals + column * series + row, total, mask=real)
