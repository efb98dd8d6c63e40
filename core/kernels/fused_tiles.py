"""The device code of the fused CUDA kernel, in Triton.

A program scores a tile: ``ROWS`` pieces of series, each of at most ``WIDTH`` elements. Element k of
a piece is always in column k, wherever the series lies in the batch, and a row is summed by
``_fold``: neighbours in pairs, then the sums in pairs. Each step is one addition of two numbers, so
the order is fixed and depends neither on how the compiler lays a tile out over threads nor
on the rows beside it. That is what makes a loss the same bits in every batch. It is the order of
the plain kernel as well: the pieces of a long series are a power of two wide.

No loss is named here. The functions of those that are asked for are a compile-time constant
(``TileLosses``), bound to the operations below, so an element is loaded once for all of them.

Divisions are correctly rounded and nothing may be fused into a multiply-add (see the launch in
``core.kernels.fused_cuda``), so element terms and gradients are those of the plain kernel.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, assignment"
# ruff: noqa: ANN001, ANN201, ANN202 - Triton infers types
# ruff: noqa: N803 - Triton writes compile-time constants in capitals
# ruff: noqa: D417 - arguments that belong together are described together
# ruff: noqa: C901 - one kernel, no objects on the device

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

import triton
import triton.language as tl
from triton.language.extra import libdevice

from loss_scoring.core.losses.elementwise import bind
from loss_scoring.core.losses.loss import Element, Loss


@triton.jit
def _absolute(x):
    return tl.abs(x)


@triton.jit
def _constant(value, x):
    return tl.full([], value, x.dtype)


@triton.jit
def _divide(dividend, divisor):
    if dividend.dtype == tl.float32:
        return tl.div_rn(dividend, divisor)
    return dividend / divisor


@triton.jit
def _select(condition, chosen, other):
    return tl.where(condition, chosen, other)


@triton.jit
def _signed(x, high, low):
    return tl.where(high > low, x, tl.where(high < low, -x, 0))


OPERATIONS: dict[str, Any] = {
    "absolute": _absolute,
    "constant": _constant,
    "divide": _divide,
    "exp": libdevice.exp,
    "expm1": libdevice.expm1,
    "log1p": libdevice.log1p,
    "select": _select,
    "signed": _signed,
}


@cache
def _in_triton(function: Element) -> Any:
    """Return a function of a loss for Triton, which reads annotations and refuses plain numbers."""
    names: dict[str, Any] = getattr(function, "__globals__")  # noqa: B009 - mypy knows a callable only
    numbers = {name: tl.constexpr(value) for name, value in names.items() if type(value) is float}
    annotations = {"Any": tl.constexpr, "bool": tl.constexpr}
    return triton.jit(bind(function, {**annotations, "tl": tl, **numbers, **OPERATIONS}))


@dataclass(frozen=True)
class TileLoss:
    """A loss as the tile computes it.

    Attributes:
        place: Its place among the losses of the tile.
        term, slope, joined, denominator: ``core.losses.Loss``'s functions of the same names.
        flags: The values of its parameters that are flags.
        first, stop: Where those of the others are among the numbers of all losses.
        has_quotient: As in ``core.losses.Loss``.
        total, masked, base: The rows of its sums; None where there is no such sum. ``base`` is what
            the total is divided by, where that is no count.
    """

    place: int
    term: Any
    slope: Any
    joined: Any
    denominator: Any
    flags: Any
    first: Any
    stop: Any
    has_quotient: bool
    total: int
    masked: int | None
    base: int | None

    def __repr__(self) -> str:
        return str(self.place)  # a part of the names of functions

    @property
    def key(self) -> tuple[object, ...]:
        """All of it, as what prints the same in every process."""
        functions = self.term, self.slope, self.joined, self.denominator
        # The interpreter's have none.
        hashes = [getattr(function, "cache_key", None) for function in functions]
        flags = [flag.value for flag in self.flags]
        numbers = self.first.value, self.stop.value
        return *hashes, *flags, *numbers, self.has_quotient, self.total, self.masked, self.base


class TileLosses:
    """A set of losses: one compile-time constant, compared by identity.

    Attributes:
        rows: How many sums a piece has, without the count of elements that are present.
        cache_key: What Triton's caches know it by: another one when a formula changes, and the same
            for losses that differ only in what becomes of their sums.
    """

    def __init__(
        self, losses: tuple[tuple[Loss, tuple[bool, ...]], ...], *, weighted: bool
    ) -> None:
        rows, stop, members = count(), 0, []
        for place, (loss, flags) in enumerate(losses):
            first, stop = stop, stop + len(loss.parameters) - len(flags)
            member = TileLoss(
                place=place,
                term=_in_triton(loss.term),
                slope=_in_triton(loss.slope),
                joined=loss.joined and _in_triton(loss.joined),
                denominator=loss.denominator and _in_triton(loss.denominator),
                flags=tl.tuple([tl.constexpr(flag) for flag in flags]),
                first=tl.constexpr(first),
                stop=tl.constexpr(stop),
                has_quotient=loss.has_quotient,
                total=next(rows),
                masked=next(rows) if loss.has_quotient else None,
                base=next(rows) if weighted or loss.denominator else None,
            )
            members.append(member)
        self._members = tuple(members)
        self.rows = next(rows)
        keys = repr([member.key for member in members])
        self.cache_key = hashlib.sha256(keys.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[TileLoss]:
        return iter(self._members)

    def __getitem__(self, place: int) -> TileLoss:
        return self._members[place]

    def __repr__(self) -> str:
        return self.cache_key


tile_losses = cache(TileLosses)
"""Losses, each with the values of its flags, as a constant of ``score_tiles``: an object a set."""


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


@triton.jit
def _score(
    loss: tl.constexpr, x, t, weight, present, inside, row, real, index, owner, factors,
    numbers, sums, slopes, pieces, skip_zero, add, slope, ROWS: tl.constexpr,
    WIDTH: tl.constexpr, STEPS: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    """Score one tile by one loss."""
    values = ()
    for k in tl.static_range(loss.first, loss.stop):
        values += (tl.load(numbers + k).to(x.dtype),)
    largest = tl.full([ROWS, WIDTH], MOST, x.dtype)
    zero = tl.full([ROWS, WIDTH], 0.0, x.dtype)
    value = loss.term(x, t, *loss.flags, *values)
    usable = present
    counted = present
    if loss.has_quotient:
        usable = (tl.abs(value) <= largest) & present
        counted = usable | (present & (skip_zero == 0))
    if add:
        term = tl.where(usable, value, zero).to(tl.float64)
        if weight is not None:
            term = weight * term
        tl.store(sums + loss.total * pieces + row, _fold(term, ROWS, WIDTH, STEPS), mask=real)
        if loss.has_quotient:
            masked = _fold(present & ~(tl.abs(value) <= largest), ROWS, WIDTH, STEPS)
            tl.store(sums + loss.masked * pieces + row, masked, mask=real)
        if loss.base is not None:
            base = weight
            if loss.denominator is not None:
                base = loss.denominator(x, t, *loss.flags, *values).to(tl.float64)
                if weight is not None:
                    base = weight * base
            base = _fold(tl.where(counted, base, 0.0), ROWS, WIDTH, STEPS)
            tl.store(sums + loss.base * pieces + row, base, mask=real)
    if slope:
        factor = tl.load(factors + owner, mask=real, other=0.0)[:, None]
        if weight is not None:
            factor = weight * factor
        g = tl.broadcast_to(factor.to(x.dtype), [ROWS, WIDTH])
        derivative = loss.slope(x, t, g, *loss.flags, *values)
        if loss.joined is not None:
            joined = loss.joined(x, t, g, *loss.flags, *values)
            derivative = tl.where(tl.abs(derivative) <= largest, derivative, joined)
        derivative = tl.where(derivative > largest, largest, derivative)  # NaN stays NaN
        derivative = tl.where(derivative < -largest, -largest, derivative)
        tl.store(slopes + index, tl.where(usable, derivative, zero) + zero, mask=inside)


_NUMBERS = ("first", "stop", "pieces", "stride", "skip_missing", "skip_zero", "add", "slope")


@triton.jit(do_not_specialize=_NUMBERS)
def score_tiles(
    prediction, target, weights, starts, sizes, owners, factors, numbers, sums, slopes, first,
    stop, pieces, stride, skip_missing, skip_zero, add, slope, losses: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, STEPS: tl.constexpr, ALIGNED: tl.constexpr,
    MOST: tl.constexpr,
):  # fmt: skip
    """Score one tile of pieces.

    Args:
        prediction, target: All elements of the batch.
        weights: float64, for each element; or None.
        starts, sizes, owners: Where a piece starts, its length, its series; int64.
        factors: float64, what the slopes of a series are multiplied by, for each loss ``stride``
            after those of the one before; read for ``slope``.
        numbers: float64, the parameters of all losses that are numbers.
        sums: ``[rows, pieces]`` float64, written for ``add``: the rows of the losses, then, with
            ``skip_missing``, how many elements are present.
        slopes: For each loss its gradient, flat, written for ``slope``.
        first, stop: The pieces that this launch scores.
        pieces: How many there are in the batch.
        skip_missing, skip_zero: Whether missing and masked elements leave the mean, as 0 or 1.
            Choices of a request are arguments and not constants, since a branch that all threads
            take together costs nothing, and a specialisation for each combination would cost a
            request a compilation.
        add, slope: Whether sums and gradients are wanted.
        losses: Of type ``TileLosses``.
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
    weight = None
    if weights is not None:
        weight = tl.load(weights + index, mask=inside, other=0.0)
    largest = tl.full([ROWS, WIDTH], MOST, x.dtype)
    finite = (tl.abs(x) <= largest) & (tl.abs(t) <= largest)
    present = inside & (finite | (skip_missing == 0))
    if skip_missing * add:
        counts = _fold(present, ROWS, WIDTH, STEPS)
        tl.store(sums + losses.rows * pieces + row, counts, mask=real)
    owner = tl.load(owners + row, mask=real, other=0)
    for k in tl.static_range(len(losses)):
        _score(
            losses[k], x, t, weight, present, inside, row, real, index, owner,
            factors + k * stride, numbers, sums, slopes[k], pieces, skip_zero, add, slope,
            ROWS, WIDTH, STEPS, MOST,
        )  # fmt: skip


@triton.jit(do_not_specialize=["pieces", "groups"])
def join_pieces(
    sums, starts, sizes, joined, pieces, groups, ROWS: tl.constexpr, WIDTH: tl.constexpr,
    STEPS: tl.constexpr,
):  # fmt: skip
    """Add up groups of at most ``WIDTH`` neighbouring pieces, a row of a tile each.

    Args:
        sums: ``[rows, pieces]`` float64; the second axis of the grid is the row.
        starts, sizes: The first piece of a group, and how many it has; int64.
        joined: ``[rows, groups]``.
    """
    group = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    line = tl.program_id(1).to(tl.int64)
    real = group < groups
    start = tl.load(starts + group, mask=real, other=0)
    size = tl.load(sizes + group, mask=real, other=0)
    column = tl.arange(0, WIDTH)[None, :]
    inside = column < size[:, None]
    x = tl.load(sums + line * pieces + start[:, None] + column, mask=inside, other=0.0)
    tl.store(joined + line * groups + group, _fold(x, ROWS, WIDTH, STEPS), mask=real)
