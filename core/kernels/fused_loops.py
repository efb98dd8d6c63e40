"""The loops of the fused CPU kernel, compiled by numba: one pass for all losses and gradients.

No loss is named here. ``sweep_of`` composes a loop out of the functions of the losses that are asked
for, so that an element is loaded once and what they have in common is computed once. What is absent
is ``None``; numba compiles a specialisation for each set of types and prunes the branches.

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
- Clamping what overflows in a loop of its own, which hardly ever runs, is up to 1.4 times as fast as
  selects in this one.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# ruff: noqa: ANN001, ANN202 - numba infers types, and annotations it cannot read would mislead
# ruff: noqa: PLR0913, PLR0917, C901, ARG001 - calls are inlined, arrays not bundled

import inspect
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import uint64

from loss_scoring.core.compiled import Restrict, compiled, inlined
from loss_scoring.core.losses import elementwise
from loss_scoring.core.losses.loss import Loss

LANES = 16
GROUP = 8 * LANES
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


@_inlined
def _push(lanes, waiting, group):
    """Fold a group, and add its sum to those that wait for their pair, as a counter carries."""
    total = _fold(lanes)
    _clear(lanes)
    level = 0
    while group & 1:
        total = waiting[level] + total
        level += 1
        group >>= 1
    waiting[level] = total


@_inlined
def _total(lanes, waiting, groups):
    """Return the sum of the groups that were pushed and of what is in the lanes."""
    total = _fold(lanes)
    level = 0
    while groups > 0:
        if groups & 1:
            total = waiting[level] + total
        level += 1
        groups >>= 1
    return total


class State(NamedTuple):
    """What the loop has of one loss, in the order of its arguments; None where it is not wanted."""

    numbers: tuple[Any, ...]
    """The values of its parameters that are numbers, in the type of the elements."""
    factors: Any = None
    """What a slope of each series is multiplied by; None for 1 / n."""
    sums: Any = None
    """Lanes of terms."""
    waiting: Any = None
    """Their sums of groups."""
    masks: Any = None
    """Lanes that count masked elements."""
    bases: Any = None
    """Lanes of what the sum is divided by, where that is no count."""
    waiting_bases: Any = None
    values: Any = None
    """For each series its loss, or the sum of its terms."""
    masked: Any = None
    divisors: Any = None
    """For each series the sum of its bases."""
    slopes: Any = None


class _Steps(NamedTuple):
    """The inlined functions that a loop is made of: those of one loss, or of several in turn."""

    begin: Any
    element: Any
    mend: Any
    push: Any
    end: Any


def _steps_of(loss: Loss, flags: tuple[bool, ...]) -> _Steps:
    """Return the steps of one loss."""

    def inline(function):
        return function and _inlined(elementwise.bind(function, _OPERATIONS))

    term, slope, joined = map(inline, (loss.term, loss.slope, loss.joined))
    denominator = inline(loss.denominator)
    quotient, steep = loss.has_quotient or None, loss.is_steep or None

    @_inlined
    def start(
        s, one, n,
        numbers, factors, sums, waiting, masks, bases, waiting_bases, values, masked, divisors,
        slopes,
    ):  # fmt: skip
        if sums is not None:
            _clear(sums)
        if masks is not None:
            _clear(masks)
        if bases is not None:
            _clear(bases)
        if factors is not None:
            return factors[s]
        return one / type(one)(n)

    @_inlined
    def add(
        x, t, weight, i, k, counted, valid, skip_zero, g, overflowed,
        numbers, factors, sums, waiting, masks, bases, waiting_bases, values, masked, divisors,
        slopes,
    ):  # fmt: skip
        kind = type(x)
        largest = kind(np.finfo(kind).max)
        value = term(x, t, *flags, *numbers)
        usable = True
        if quotient is not None:
            usable = value <= largest
            if masks is not None:
                masks[k] += (not usable) & counted
        if sums is not None:
            wide = np.float64(value)
            if weight is not None:
                wide = weight * wide
            sums[k] += wide if usable & counted else 0.0
        if bases is not None:
            base = 1.0
            if denominator is not None:
                base = np.float64(denominator(x, t, *flags, *numbers))
            if weight is not None:
                base = weight * base
            bases[k] += base if counted & (usable | (not skip_zero)) else 0.0
        if slopes is not None:
            factor = g
            if weight is not None:
                factor = kind(weight * g)
            steepness = slope(x, t, factor, *flags, *numbers)
            if steep is not None:
                overflowed |= usable & (not (abs(steepness) <= largest))
            slopes[i] = (steepness if usable & valid else kind(0)) + kind(0)
        return overflowed

    @_inlined
    def clamp(
        p, y, w, base, width, skips, g,
        numbers, factors, sums, waiting, masks, bases, waiting_bases, values, masked, divisors,
        slopes,
    ):  # fmt: skip
        if slopes is not None:
            if steep is not None:
                kind = p.dtype.type
                largest = kind(np.finfo(p.dtype).max)
                for k in range(width):
                    i = base + uint64(k)
                    x = p[i]
                    t = y[i]
                    factor = g
                    if w is not None:
                        factor = kind(w[i] * g)
                    valid = True
                    if skips is not None:
                        valid = (abs(x) <= largest) & (abs(t) <= largest)
                    if quotient is not None:
                        valid = valid & (term(x, t, *flags, *numbers) <= largest)
                    steepness = slope(x, t, factor, *flags, *numbers)
                    if valid & (not (abs(steepness) <= largest)):
                        if joined is not None:
                            steepness = joined(x, t, factor, *flags, *numbers)
                        steepness = largest if steepness > largest else steepness
                        steepness = -largest if steepness < -largest else steepness
                        slopes[i] = steepness + kind(0)

    @_inlined
    def carry(
        group,
        numbers, factors, sums, waiting, masks, bases, waiting_bases, values, masked, divisors,
        slopes,
    ):  # fmt: skip
        if sums is not None:
            _push(sums, waiting, group)
        if bases is not None:
            _push(bases, waiting_bases, group)

    @_inlined
    def finish(
        s, groups, count, skip_zero, divide,
        numbers, factors, sums, waiting, masks, bases, waiting_bases, values, masked, divisors,
        slopes,
    ):  # fmt: skip
        if masks is not None:
            lost = np.int64(_fold(masks))
            masked[s] = lost
            if skip_zero:
                count -= lost
        if sums is not None:
            total = _total(sums, waiting, groups)
            values[s] = total / np.float64(count) if divide else total
        if bases is not None:
            divisors[s] = _total(bases, waiting_bases, groups)

    # numba prunes what is None only where it is an argument of its own.
    @_inlined
    def begin(s, one, n, state):
        return start(s, one, n, *state)

    @_inlined
    def element(x, t, weight, i, k, counted, valid, skip_zero, g, overflowed, state):
        return add(x, t, weight, i, k, counted, valid, skip_zero, g, overflowed, *state)

    @_inlined
    def mend(p, y, w, base, width, skips, g, state):
        clamp(p, y, w, base, width, skips, g, *state)

    @_inlined
    def push(group, state):
        carry(group, *state)

    @_inlined
    def end(s, groups, count, skip_zero, divide, state):
        finish(s, groups, count, skip_zero, divide, *state)

    return _Steps(begin, element, mend, push, end)


def _in_turn(first: _Steps, rest: _Steps) -> _Steps:
    """Return the steps of several losses, whose states are a pair: of the first, and of the rest."""
    begin_first, add_first, mend_first, push_first, end_first = first
    begin_rest, add_rest, mend_rest, push_rest, end_rest = rest

    @_inlined
    def begin(s, one, n, state):
        return begin_first(s, one, n, state[0]), begin_rest(s, one, n, state[1])

    @_inlined
    def element(x, t, weight, i, k, counted, valid, skip_zero, g, overflowed, state):
        overflowed = add_first(
            x, t, weight, i, k, counted, valid, skip_zero, g[0], overflowed, state[0]
        )
        return add_rest(x, t, weight, i, k, counted, valid, skip_zero, g[1], overflowed, state[1])

    @_inlined
    def mend(p, y, w, base, width, skips, g, state):
        mend_first(p, y, w, base, width, skips, g[0], state[0])
        mend_rest(p, y, w, base, width, skips, g[1], state[1])

    @_inlined
    def push(group, state):
        push_first(group, state[0])
        push_rest(group, state[1])

    @_inlined
    def end(s, groups, count, skip_zero, divide, state):
        end_first(s, groups, count, skip_zero, divide, state[0])
        end_rest(s, groups, count, skip_zero, divide, state[1])

    return _Steps(begin, element, mend, push, end)


@cache
def sweep_of(losses: tuple[tuple[Loss, tuple[bool, ...]], ...]) -> Any:
    """Return the loop over series for some losses, each with the values of its flags.

    It is compiled for each set of types that it is called with. Its arguments are: prediction,
    target, weights or None, offsets, the first series and the one after the last, ``LANES``, whether
    masked elements leave the mean, whether to divide sums by counts, lanes that count the elements
    that are not missing (None unless missing elements leave the mean), that count of each series,
    and the states of the losses: ``(first, (second, third))``.
    """
    steps = _steps_of(*losses[-1])
    for loss, flags in losses[-2::-1]:
        steps = _in_turn(_steps_of(loss, flags), steps)
    begin, element, mend, push, end = steps
    steep = any(loss.is_steep for loss, _ in losses) or None
    constant = any(loss.has_quotient for loss, _ in losses) or None

    @_inlined
    def block(p, y, w, base, first, width, skip_zero, lanes_present, g, states):
        largest = p.dtype.type(np.finfo(p.dtype).max)
        overflowed = False
        for k in range(width):
            i = base + uint64(k)
            x = p[i]
            t = y[i]
            counted = k >= first
            valid = True
            if lanes_present is not None:
                valid = (abs(x) <= largest) & (abs(t) <= largest)
                counted = counted & valid
                lanes_present[k] += counted
            weight = None if w is None else w[i]
            overflowed = element(
                x, t, weight, i, k, counted, valid, skip_zero, g, overflowed, states
            )
        if steep is not None:
            if overflowed:
                mend(p, y, w, base, width, lanes_present, g, states)

    def sweep(
        p, y, w, offsets, start, stop, lanes, skip_zero, divide, lanes_present, present, states
    ):
        one = p.dtype.type(1)
        width = lanes
        if constant is not None:
            width = LANES
        for s in range(start, stop):
            a = offsets[s]
            n = offsets[s + 1] - a
            g = begin(s, one, n, states)
            if lanes_present is not None:
                _clear(lanes_present)
            groups = 0
            if n >= LANES:
                groups = (n - 1) // GROUP
                for group in range(groups):
                    for j in range(group * GROUP, group * GROUP + GROUP, LANES):
                        block(
                            p, y, w, uint64(a + j), 0, width, skip_zero, lanes_present, g, states
                        )
                    push(group, states)
                for j in range(groups * GROUP, n - LANES + 1, LANES):
                    block(p, y, w, uint64(a + j), 0, width, skip_zero, lanes_present, g, states)
                rest = n % LANES
                if rest > 0:
                    block(
                        p, y, w, uint64(a + n - LANES), LANES - rest, width, skip_zero,
                        lanes_present, g, states,
                    )  # fmt: skip
            else:
                block(p, y, w, uint64(a), 0, n, skip_zero, lanes_present, g, states)
            count = n
            if lanes_present is not None:
                count = np.int64(_fold(lanes_present))
                present[s] = count
            end(s, groups, count, skip_zero, divide, states)

    sweep.__qualname__ = "sweep_" + "_".join(
        loss.name + "".join(map(str, map(int, flags))) for loss, flags in losses
    )
    functions = [f for loss, _ in losses for f in (loss.term, loss.slope, loss.joined, loss.denominator)]
    sources = {Path(inspect.getfile(function)) for function in functions if function}
    return compiled(sweep, sorted({*sources, Path(elementwise.__file__)}), pipeline_class=Restrict)
