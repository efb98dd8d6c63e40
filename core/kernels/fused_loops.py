"""The loops of the fused CPU kernel, compiled by numba: one pass for all losses and gradients.

No loss is named here. ``sweep_of`` composes a loop out of the functions of the losses that are
asked for, so that an element is loaded once and what they have in common is computed once. What is
not wanted is ``None``, whose branches numba prunes.

How to read it. A series is walked in blocks of ``LANES`` elements. Element j of a block is added to
accumulator j, in float64. After ``GROUP`` elements the accumulators are folded as a tree, and the
sums of groups are added in pairs, then pairs of pairs, as the bits of a counter carry. So a term
passes through at most 4 + log2(n) roundings on its way into the sum of n. The order of additions is
written in the source and depends on the length of the series alone: no ``fastmath`` is needed to
vectorise the loop over the lanes, so strict IEEE holds (subnormals, -0.0 + 0.0 = 0.0, NaN tests),
and the bits are the same in every specialisation, whichever width of vector LLVM picks.

The elements left over after the last full block are not walked one by one: the last block is the
last ``LANES`` elements, and those already added are left out of the sums (their gradients are
written twice, with the same bits). Only a series shorter than one block runs element by element.

What was measured (one thread, million elements/s; see bench/kernel.py):

- ``noalias`` on the arguments is worth 1.2 to 1.9 times with gradients: without it LLVM compares
  every pair of buffers per series before it dares to vectorise. numba has no option for it, so
  ``Restrict`` sets the flag. That holds: outputs and lanes are always fresh arrays.
- Indices are unsigned, else each is tested for being negative (Python's wraparound).
- A loop over a constant 16 lanes with a body as small as MAE's is unrolled before the vectorizer
  sees it, and may stay scalar (float64 with gradient: 0.1 of the floor), so there the width is an
  argument. With a division in the body the constant is up to 1.3 times as fast.
- Clamping what overflows in a loop of its own, which hardly ever runs, is up to 1.4 times as fast
  as selects in this one.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# ruff: noqa: ANN001, ANN202 - numba infers types, and annotations it cannot read would mislead
# ruff: noqa: C901, PLR0912, PLR0915, SIM102 - calls are inlined, branches pruned

import inspect
from functools import cache, reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import uint64

from loss_scoring.core.compiled import Restrict, compiled, inlined
from loss_scoring.core.kernels.interface import GROUP, LANES
from loss_scoring.core.losses import elementwise
from loss_scoring.core.losses.loss import Loss

LEVELS = 16
"""Sums of groups that wait for their pair; enough for 2^16 groups."""


def _inlined(function):
    return inlined(function, pipeline_class=Restrict)


@_inlined
def _divide(dividend, divisor):
    return dividend / divisor


@_inlined
def _select(condition, chosen, other):
    return chosen if condition else type(chosen)(other)


@_inlined
def _signed(x, high, low):
    return x if high > low else (-x if high < low else type(x)(0))


@_inlined
def _absolute(x):
    return abs(x)


@_inlined
def _constant(value, x):
    return type(x)(value)


_OPERATIONS = {
    "absolute": _absolute,
    "constant": _constant,
    "divide": _divide,
    "exp": np.exp,
    "expm1": np.expm1,
    "log1p": np.log1p,
    "select": _select,
    "signed": _signed,
}


@_inlined
def _fold(lanes, row):
    for k in range(8):
        lanes[row, k] += lanes[row, k + 8]
    for k in range(4):
        lanes[row, k] += lanes[row, k + 4]
    return (lanes[row, 0] + lanes[row, 2]) + (lanes[row, 1] + lanes[row, 3])


@_inlined
def _clear(lanes, row):
    for k in range(LANES):
        lanes[row, k] = 0


@_inlined
def _push(lanes, row, group):
    """Fold a group, and add its sum to those that wait for their pair, as a counter carries."""
    total = _fold(lanes, row)
    _clear(lanes, row)
    level = LANES
    while group & 1:
        total = lanes[row, level] + total
        level += 1
        group >>= 1
    lanes[row, level] = total


@_inlined
def _total(lanes, row, groups):
    """Return the sum of the groups that were pushed and of what is in the lanes."""
    total = _fold(lanes, row)
    level = LANES
    while groups > 0:
        if groups & 1:
            total = lanes[row, level] + total
        level += 1
        groups >>= 1
    return total


class Lanes(NamedTuple):
    """The accumulators of one thread, a row a loss."""

    present: Any
    """Count elements that are not missing; one row."""
    sums: Any
    """Of terms, and behind them the sums of groups that wait for their pair."""
    masks: Any
    """Count masked elements."""
    bases: Any
    """Like ``sums``, of what a sum is divided by."""


class Outputs(NamedTuple):
    """What a pass writes, a row a loss; what it does not write may be of any size."""

    present: Any
    """How many elements of each series are not missing; one row."""
    values: Any
    """The loss of each series, or the sum of its terms."""
    masked: Any
    divisors: Any
    """The sum of the bases of each series."""


class Variant(NamedTuple):
    """What a loop computes.

    Attributes:
        sums: Losses, and what is counted for them.
        slopes: Gradients.
        known: What slopes are multiplied by is given for each series; else it is 1 / n.
        weighted: Elements have weights.
        skips: Missing elements leave the mean.
        bases: Sums of what is divided by are wanted, for it is no count.
    """

    sums: bool
    slopes: bool
    known: bool
    weighted: bool
    skips: bool
    bases: bool

    @property
    def wanted(self) -> list[bool | None]:
        """The same with None for False, whose branches numba prunes."""
        return [value or None for value in self]


Flagged = tuple[Loss, tuple[bool, ...]]
"""A loss, with the values of its flags."""


def _functions_of(loss: Loss) -> list[Any]:
    """Return term, slope, joined slope and denominator, inlined; None for one that it lacks."""
    functions = loss.term, loss.slope, loss.joined, loss.denominator
    return [
        function and _inlined(elementwise.bind(function, _OPERATIONS)) for function in functions
    ]


def _element_of(row: int, flagged: Flagged, variant: Variant) -> Any:
    """Return the function that adds an element to one loss, and writes its slope."""
    loss, flags = flagged
    term, slope, _, denominator = _functions_of(loss)
    sums, slopes, known, weighted, _, bases = variant.wanted
    quotient, steep = loss.has_quotient or None, (loss.is_steep or weighted) or None

    @_inlined
    def element(
        x, t, i, k, counted, valid, weight, skip_zero, s, g, factors, overflowed,
        lanes, numbers, gradients,
    ):  # fmt: skip
        kind = type(x)
        largest = kind(np.finfo(kind).max)
        value = term(x, t, *flags, *numbers[row])
        usable = True
        if quotient is not None:
            usable = value <= largest
        if sums is not None:
            if quotient is not None:
                lanes.masks[row, k] += (not usable) & counted
            wide = np.float64(value)
            if weighted is not None:
                wide = weight * wide
            lanes.sums[row, k] += wide if usable & counted else 0.0
            if bases is not None:
                base = 1.0
                if denominator is not None:
                    base = np.float64(denominator(x, t, *flags, *numbers[row]))
                if weighted is not None:
                    base = weight * base
                lanes.bases[row, k] += base if counted & (usable | (not skip_zero)) else 0.0
        if slopes is not None:
            factor = g
            if known is not None:
                factor = factors[row, s]
            if weighted is not None:
                factor = kind(weight * factor)
            steepness = slope(x, t, factor, *flags, *numbers[row])
            if steep is not None:
                overflowed |= usable & (not (abs(steepness) <= largest))
            gradients[row][i] = (steepness if usable & valid else kind(0)) + kind(0)
        return overflowed

    return element


def _mend_of(row: int, flagged: Flagged, variant: Variant) -> Any:
    """Return the function that clamps the slopes of one loss where they overflowed."""
    loss, flags = flagged
    term, slope, joined, _ = _functions_of(loss)
    quotient = loss.has_quotient or None
    _, _, known, weighted, skips, _ = variant.wanted

    @_inlined
    def mend(p, y, w, base, width, s, g, factors, numbers, gradients):
        kind = p.dtype.type
        largest = kind(np.finfo(p.dtype).max)
        for k in range(width):
            i = base + uint64(k)
            x = p[i]
            t = y[i]
            factor = g
            if known is not None:
                factor = factors[row, s]
            if weighted is not None:
                factor = kind(w[i] * factor)
            valid = True
            if skips is not None:
                valid = (abs(x) <= largest) & (abs(t) <= largest)
            if quotient is not None:
                valid = valid & (term(x, t, *flags, *numbers[row]) <= largest)
            steepness = slope(x, t, factor, *flags, *numbers[row])
            if valid & (not (abs(steepness) <= largest)):
                if joined is not None:
                    steepness = joined(x, t, factor, *flags, *numbers[row])
                steepness = min(steepness, largest)
                steepness = max(steepness, -largest)
                gradients[row][i] = steepness + kind(0)

    return mend


def _elements_in_turn(first: Any, rest: Any) -> Any:
    @_inlined
    def element(
        x, t, i, k, counted, valid, weight, skip_zero, s, g, factors, overflowed,
        lanes, numbers, gradients,
    ):  # fmt: skip
        overflowed = first(
            x, t, i, k, counted, valid, weight, skip_zero, s, g, factors, overflowed,
            lanes, numbers, gradients,
        )  # fmt: skip
        return rest(
            x, t, i, k, counted, valid, weight, skip_zero, s, g, factors, overflowed,
            lanes, numbers, gradients,
        )  # fmt: skip

    return element


def _mends_in_turn(first: Any, rest: Any) -> Any:
    @_inlined
    def mend(p, y, w, base, width, s, g, factors, numbers, gradients):
        first(p, y, w, base, width, s, g, factors, numbers, gradients)
        rest(p, y, w, base, width, s, g, factors, numbers, gradients)

    return mend


@cache
def sweep_of(losses: tuple[Flagged, ...], variant: tuple[bool, ...], size: int) -> Any:
    """Return the loop over series for some losses, to be called with elements of so many bytes.

    Its arguments are: prediction, target, weights, offsets, the first series and the one after the
    last, ``LANES``, whether masked elements leave the mean, whether to divide sums by counts, those
    of ``Lanes`` and of ``Outputs``, what slopes are multiplied by (a row a loss), and for each loss
    the values of its parameters that are numbers, in the type of the elements, and its gradients.
    """
    variant = Variant(*variant)
    element = reduce(
        _elements_in_turn,
        [_element_of(row, flagged, variant) for row, flagged in enumerate(losses)],
    )
    mends = [
        _mend_of(row, flagged, variant)
        for row, flagged in enumerate(losses)
        if variant.slopes and (flagged[0].is_steep or variant.weighted)
    ]
    mend = reduce(_mends_in_turn, mends) if mends else None
    constant = any(loss.has_quotient for loss, _ in losses) or None
    rows = len(losses)
    quotients = tuple(loss.has_quotient for loss, _ in losses)
    sums, _, _, weighted, skips, bases = variant.wanted

    @_inlined
    def block(p, y, w, base, first, width, skip_zero, s, g, factors, lanes, numbers, gradients):
        largest = p.dtype.type(np.finfo(p.dtype).max)
        overflowed = False
        weight = 1.0
        for k in range(width):
            i = base + uint64(k)
            x = p[i]
            t = y[i]
            counted = k >= first
            valid = True
            if skips is not None:
                valid = (abs(x) <= largest) & (abs(t) <= largest)
                counted = counted & valid
                lanes.present[0, k] += counted
            if weighted is not None:
                weight = w[i]
            overflowed = element(
                x, t, i, k, counted, valid, weight, skip_zero, s, g, factors, overflowed,
                lanes, numbers, gradients,
            )  # fmt: skip
        if mend is not None:
            if overflowed:
                mend(p, y, w, base, width, s, g, factors, numbers, gradients)

    def sweep(
        p, y, w, offsets, start, stop, width, skip_zero, divide, present_lanes, sums_lanes,
        masks_lanes, bases_lanes, present, values, masked, divisors, factors, numbers, gradients,
    ):  # fmt: skip
        # numba takes named tuples apart a microsecond slower than arguments.
        lanes = Lanes(present_lanes, sums_lanes, masks_lanes, bases_lanes)
        outputs = Outputs(present, values, masked, divisors)
        one = p.dtype.type(1)
        if constant is not None:
            width = LANES
        for s in range(start, stop):
            a = offsets[s]
            n = offsets[s + 1] - a
            g = one / p.dtype.type(n)
            if skips is not None:
                _clear(lanes.present, 0)
            if sums is not None:
                for row in range(rows):
                    _clear(lanes.sums, row)
                    if quotients[row]:
                        _clear(lanes.masks, row)
                    if bases is not None:
                        _clear(lanes.bases, row)
            groups = 0
            if n >= LANES:
                groups = (n - 1) // GROUP
                for group in range(groups):
                    for j in range(group * GROUP, group * GROUP + GROUP, LANES):
                        block(
                            p, y, w, uint64(a + j), 0, width, skip_zero, s, g, factors, lanes,
                            numbers, gradients,
                        )  # fmt: skip
                    if sums is not None:
                        for row in range(rows):
                            _push(lanes.sums, row, group)
                            if bases is not None:
                                _push(lanes.bases, row, group)
                for j in range(groups * GROUP, n - LANES + 1, LANES):
                    block(
                        p, y, w, uint64(a + j), 0, width, skip_zero, s, g, factors, lanes,
                        numbers, gradients,
                    )  # fmt: skip
                rest = n % LANES
                if rest > 0:
                    block(
                        p, y, w, uint64(a + n - LANES), LANES - rest, width, skip_zero, s, g,
                        factors, lanes, numbers, gradients,
                    )  # fmt: skip
            else:
                block(p, y, w, uint64(a), 0, n, skip_zero, s, g, factors, lanes, numbers, gradients)
            if sums is not None:
                count = n
                if skips is not None:
                    count = np.int64(_fold(lanes.present, 0))
                    outputs.present[0, s] = count
                for row in range(rows):
                    left = count
                    if quotients[row]:
                        lost = np.int64(_fold(lanes.masks, row))
                        outputs.masked[row, s] = lost
                        if skip_zero:
                            left -= lost
                    total = _total(lanes.sums, row, groups)
                    if divide:  # NaN has a sign, which 0 / 0 would set
                        total = total / np.float64(left) if left > 0 else np.nan
                    outputs.values[row, s] = total
                    if bases is not None:
                        outputs.divisors[row, s] = _total(lanes.bases, row, groups)

    named = [loss.name + "".join(map(str, map(int, flags))) for loss, flags in losses]
    wanted = [name for name, value in variant._asdict().items() if value]
    sweep.__qualname__ = "_".join([f"sweep{8 * size}", *named, *wanted])
    functions = [
        f for loss, _ in losses for f in (loss.term, loss.slope, loss.joined, loss.denominator)
    ]
    sources = {Path(inspect.getfile(function)) for function in functions if function}
    return compiled(sweep, sorted({*sources, Path(elementwise.__file__)}), pipeline_class=Restrict)
