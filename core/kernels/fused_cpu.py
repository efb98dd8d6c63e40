"""The fused CPU kernel: one read of the inputs for all losses and gradients, on threads of its own.

Up to ``TOGETHER`` losses are one loop. More are several, which take turns on ``TILE`` elements, so
that all but the first find them in the cache: a loop of twelve takes a minute to compile, one of
three takes three seconds and is compiled once for all requests that need it.

A series longer than ``CHUNK`` is cut at multiples of ``CHUNK`` from its own start, and its partial
sums are added in pairs; so the bits depend neither on the batch nor on the number of threads.
The loops are in ``core.kernels.fused_loops``.

Gradients come in the same pass as losses where what they are multiplied by is known beforehand:
1 / n. It is not where elements leave the mean, with weights, or for a loss that is no plain mean;
there a second pass follows the sums.

A set of losses that was not compiled yet (``is_compiled``) is compiled by its first call. The plain
kernel does not serve it meanwhile: it sums in another order, and the same request would change its
last bits later.

The loop needs a microsecond for a small batch, so the Python around it decides what that costs.
What depends on the options alone is worked out once for each thread (``Plan``). A batch then takes a
look-up of its plan, an allocation for each column, and a call of the loop.
"""

import itertools
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from loss_scoring.core.buffers import BufferPool
from loss_scoring.core.forks import renew_in_children
from loss_scoring.core.kernels.finish import finish
from loss_scoring.core.kernels.fused_loops import LANES, LEVELS, State, sweep_of
from loss_scoring.core.kernels.interface import Arrays, Scores
from loss_scoring.core.losses import DEFAULT_LOSSES, LOSSES
from loss_scoring.core.machine import available_cores
from loss_scoring.core.options import LossSpec, ScoreOptions
from loss_scoring.core.ragged import Buffer, as_array

CHUNK = 1 << 16
SHARE = 1 << 18
"""Elements below which a thread is not worth waking (50-75 microseconds)."""
TOGETHER = 3
TILE = 1 << 15
_OUTPUTS = BufferPool(retain_bytes=256 << 20)
"""Three gradients of a batch of 4 Mi float64 are 96 MiB; two such answers may be under way."""
Array = NDArray[Any]


_NONE: Arrays = MappingProxyType({})


class Columns(NamedTuple):
    """What a pass writes, by loss; an empty dictionary is not written."""

    values: Arrays
    masked: Arrays
    divisors: Arrays
    slopes: Arrays
    present: Array | None


class _Sides(NamedTuple):
    """The elements of a batch."""

    p: Array
    y: Array
    weights: Array | None


class Plan:
    """What the options decide, with the lanes of one thread."""

    def __init__(self, options: ScoreOptions, weighted: bool) -> None:  # noqa: FBT001 - a cache key
        losses = {spec.name: spec.loss for spec in options.losses}
        self.options = options
        self.losses = losses
        self.names = tuple(losses)
        self.quotients = tuple(name for name in self.names if losses[name].has_quotient)
        self.bases = tuple(name for name in self.names if weighted or losses[name].denominator)
        self.skip_missing = options.missing == "skip"
        self.skip_zero = options.zero_division == "skip"
        self.gradients = options.gradients
        self.weighted = weighted
        self.masked = tuple(name for name in self.names if weighted or losses[name].can_be_masked)
        self.is_mean = not self.bases and all(loss.is_mean for loss in losses.values())
        """Whether each loss is a sum over a count, so that the loop divides."""
        may_leave = self.skip_missing or (self.skip_zero and bool(self.quotients))
        self.is_one_pass = self.is_mean and not may_leave
        """Whether gradients need no sums first."""
        order = list(LOSSES)
        specs = sorted(options.losses, key=lambda spec: order.index(spec.name))
        self._loops = [
            _Loop(specs[i : i + TOGETHER], self.bases)
            for i in range(0, len(specs), TOGETHER)
        ]
        self._present = {size: _aligned(count) for size, count in ((4, np.int32), (8, np.int64))}

    def run(  # noqa: PLR0913, PLR0917 - one private call
        self,
        sides: _Sides,
        offsets: Array,
        first: int,
        last: int,
        columns: Columns,
        factors: Arrays,
        divide: bool,  # noqa: FBT001
    ) -> None:
        """Score the series, or the pieces of series, from ``first`` to ``last``, exclusive."""
        size = sides.p.itemsize
        fixed = LANES, self.skip_zero, divide, self._present[size] if self.skip_missing else None
        calls = [(loop.sweep, loop.states(size, columns, factors)) for loop in self._loops]
        cuts = [first, last]
        if len(calls) > 1 and offsets[last] - offsets[first] > TILE:
            marks = np.arange(offsets[first] + TILE, offsets[last], TILE)
            inner = np.searchsorted(offsets[first : last + 1], marks) + first
            cuts = np.unique([first, *inner, last]).tolist()
        for start, stop in itertools.pairwise(cuts):
            for sweep, states in calls:
                sweep(*sides, offsets, start, stop, *fixed, columns.present, states)


class _Loop:
    """A loop over a few losses, with the lanes of one thread."""

    def __init__(self, specs: Sequence[LossSpec], bases: Collection[str]) -> None:
        self._names = [spec.name for spec in specs]
        self._bases = bases
        self.sweep = sweep_of(tuple((spec.loss, spec.flags) for spec in specs))
        self._lanes = {
            size: [self._lanes_of(spec, kind, count) for spec in specs]
            for size, kind, count in ((4, np.float32, np.int32), (8, np.float64, np.int64))
        }

    def _lanes_of(self, spec: LossSpec, kind: type, count: type) -> State:
        """Return the lanes of a loss; integers as wide as an element fill the same vectors."""
        has_bases = spec.name in self._bases
        return State(
            numbers=tuple(map(kind, spec.numbers)),
            sums=_aligned(np.float64),
            waiting=np.empty(LEVELS),
            masks=_aligned(count) if spec.loss.has_quotient else None,
            bases=_aligned(np.float64) if has_bases else None,
            waiting_bases=np.empty(LEVELS) if has_bases else None,
        )

    def states(self, size: int, columns: Columns, factors: Arrays) -> Any:
        """Return the states that ``sweep`` takes: of the first loss, and of the rest, as a pair."""
        states: Any = None
        values, masked, divisors, slopes, _ = columns
        for name, lanes in zip(reversed(self._names), reversed(self._lanes[size]), strict=True):
            of_sums = lanes[2:7] if values else (None,) * 5
            state = (
                *(lanes.numbers, factors.get(name), *of_sums),
                *(values.get(name), masked.get(name), divisors.get(name), slopes.get(name)),
            )
            states = state if states is None else (state, states)
        return states


def _aligned(kind: type) -> Array:
    """Return lanes on cache lines of their own.

    Lanes that straddle two are loaded and stored twice in every block, which was measured to cost
    MAE two thirds of its speed.
    """
    block = np.empty(LANES * 8 + 64, np.uint8)
    lanes: Array = block[-block.ctypes.data % 64 :][: LANES * 8].view(kind)[:LANES]
    return lanes


class _Plans(threading.local):
    """The plans of one thread, which share nothing with those of another."""

    def __init__(self) -> None:
        self.plan_of = lru_cache(maxsize=256)(Plan)


_PLANS = _Plans()


class FusedCpuKernel:
    """Scores on the CPU; see ``core.kernels.interface.Kernel``.

    Args:
        threads: How many threads share a large batch, the caller included; by default one for
            each processor that this process may use.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = available_cores() if threads is None else threads
        if self.threads < 1:
            raise ValueError(f"threads is at least 1, not {self.threads}")
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Take a new pool of threads, which start when they are needed."""
        others = max(self.threads - 1, 1)
        self._pool = ThreadPoolExecutor(others, thread_name_prefix="fused-cpu")

    takes_arrays = True

    def __call__(
        self,
        prediction: Buffer,
        target: Buffer,
        offsets: Buffer,
        options: ScoreOptions,
        weights: Buffer | None = None,
        scales: Buffer | None = None,
    ) -> Scores:
        """Score every series."""
        p, y, offsets = [
            side if isinstance(side, np.ndarray) and side.flags.carray else _writable(side)
            for side in (prediction, target, offsets)
        ]
        sides = _Sides(p, y, None if weights is None else _writable(weights))
        plan = _PLANS.plan_of(options, weights is not None)
        is_cut = len(p) > CHUNK and (offsets[1:] - offsets[:-1]).max() > CHUNK
        if plan.is_mean and not is_cut and (plan.is_one_pass or not plan.gradients):
            columns = self._sweep(sides, offsets, plan, slopes=plan.gradients, divide=True)
            return Scores(columns.values, columns.masked, columns.slopes)
        return self._score_by_sums(sides, offsets, plan, scales, is_cut=is_cut)

    def _score_by_sums(
        self, sides: _Sides, offsets: Array, plan: Plan, scales: Buffer | None, *, is_cut: bool
    ) -> Scores:
        """Score where some series is in several pieces, or a loss is not its sum over a count."""
        kind, lengths = sides.p.dtype, np.diff(offsets)
        owners = np.arange(len(lengths))
        if is_cut:
            offsets, owners = _pieces(offsets)
        known = {}
        if plan.gradients and plan.is_one_pass:
            known = dict.fromkeys(plan.names, (1 / lengths.astype(kind))[owners])
        columns = self._sweep(sides, offsets, plan, slopes=bool(known), factors=known)
        totals, tallies, sums, slopes, present = columns

        def join(column: Array) -> Array:
            return _join(column, owners, len(lengths)) if is_cut else column

        masked = {name: join(column) for name, column in tallies.items()}
        counts = lengths if present is None else join(present)
        values, factors = {}, {}
        with np.errstate(all="ignore"):
            for name, loss in plan.losses.items():
                divisors = counts
                if name in sums:
                    divisors = join(sums[name])
                elif plan.skip_zero and name in masked:
                    divisors = counts - masked[name]
                finished = finish(
                    *(np, loss, join(totals[name]), divisors),
                    None if scales is None else as_array(scales),
                )
                values[name], factors[name], is_void = finished
                if name in plan.masked:
                    masked[name] = np.where(is_void, lengths, masked.get(name, 0))
                if plan.weighted:
                    continue
                if name not in sums and loss.is_mean:
                    factors[name] = 1 / divisors.astype(kind)  # rounded once, as darts does
                else:
                    most = np.finfo(kind).max
                    factors[name] = factors[name].clip(-most, most).astype(kind)
        if plan.gradients and not known:
            factors = {name: column[owners] for name, column in factors.items()}
            slopes = self._sweep(
                sides, offsets, plan, sums=False, slopes=True, factors=factors
            ).slopes
        return Scores(values, {name: masked[name] for name in plan.masked}, slopes)

    def _sweep(  # noqa: PLR0913 - what one pass computes
        self,
        sides: _Sides,
        offsets: Array,
        plan: Plan,
        *,
        sums: bool = True,
        slopes: bool = False,
        divide: bool = False,
        factors: Arrays = _NONE,
    ) -> Columns:
        """Sweep all series or pieces, sharing them among threads by elements."""
        n, elements = len(offsets) - 1, len(sides.p)
        columns = Columns(
            {name: np.empty(n) for name in plan.names if sums},
            {name: np.empty(n, np.int64) for name in plan.quotients if sums},
            {name: np.empty(n) for name in plan.bases if sums},
            {name: _OUTPUTS.empty(elements, sides.p.dtype) for name in plan.names if slopes},
            np.empty(n, np.int64) if plan.skip_missing else None,
        )
        if elements < 2 * SHARE or self.threads == 1:
            plan.run(sides, offsets, 0, n, columns, factors, divide)
            return columns

        def run(first: int, last: int) -> None:
            own = _PLANS.plan_of(plan.options, plan.weighted)
            own.run(sides, offsets, first, last, columns, factors, divide)

        shares = min(self.threads, elements // SHARE)
        cuts = np.searchsorted(offsets, np.arange(1, shares) * (elements // shares)).tolist()
        spans = list(zip([0, *cuts], [*cuts, n], strict=True))
        waiting = [self._pool.submit(run, *span) for span in spans[1:]]
        try:
            run(*spans[0])
        finally:
            for future in waiting:  # never return while a thread still writes
                future.result()
        return columns


def _writable(side: Buffer) -> Array:
    """View a buffer; copy what would be another type: unaligned, or read-only."""
    return np.require(as_array(side), None, ("C", "A", "W"))


def _pieces(offsets: Array) -> tuple[Array, Array]:
    """Cut long series; returns the offsets of the pieces, and the series of each."""
    lengths = np.diff(offsets)
    pieces = np.maximum(-(-lengths // CHUNK), 1)
    owner = np.repeat(np.arange(len(lengths)), pieces)
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    return np.append(offsets[:-1][owner] + rank * CHUNK, offsets[-1]), owner


def _join(column: Array, owners: Array, series: int) -> Array:
    """Add up the pieces of each series in pairs, and those sums in pairs, until one is left."""
    while len(column) > series:
        firsts = np.flatnonzero(np.diff(owners, prepend=-1))
        rank = np.arange(len(owners)) - np.repeat(firsts, np.diff(firsts, append=len(owners)))
        is_left = rank % 2 == 0
        paired = column[is_left]
        has_right = np.append(~is_left, False)[1:][is_left]
        paired[has_right] += column[~is_left]
        column, owners = paired, owners[is_left]
    return column


fused_cpu_kernel = FusedCpuKernel()


def is_compiled(options: ScoreOptions, dtype: torch.dtype, *, weighted: bool = False) -> bool:
    """Tell whether a request with these options waits for no compiler, in any process so far."""
    raise NotImplementedError


def warm_up(*, rare: bool = False) -> None:
    """Compile, or load from the cache, what requests need, so that none waits for a compiler.

    Args:
        rare: Also ``missing="skip"`` and other values of flags, which then need no compiler either.
    """
    offsets = np.array([0, 1])
    default = ScoreOptions().losses
    alone = [LossSpec(name) for name in (LOSSES if rare else DEFAULT_LOSSES)]
    flagged = [
        LossSpec(name, **{flag: not rule.default})
        for name, loss in LOSSES.items()
        for flag, rule in loss.parameters.items()
        if rare and rule.is_flag
    ]
    swapped = [
        tuple(other if other.name == spec.name else spec for spec in default) for other in flagged
    ]
    for dtype in (np.float32, np.float64):
        element = np.ones(1, dtype)
        for losses in (default, *swapped, *((spec,) for spec in (*alone, *flagged))):
            for gradients in (False, True):
                for missing in ("error", "skip") if rare else ("error",):
                    fused_cpu_kernel(element, element, offsets, ScoreOptions(losses, gradients, missing))
