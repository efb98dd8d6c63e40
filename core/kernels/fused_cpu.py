"""The fused CPU kernel: one read of the inputs for all losses and gradients, on threads of its own.

The losses are parted in threes, in the order of the table; those of one three that are asked for
are one loop. Loops take turns on ``TILE`` elements, so that all but the first find them in the
cache. A loop of twelve losses would take a minute to compile, and there would be thousands of them;
one of three takes three seconds, and there are seven for each three.

A series longer than ``CHUNK`` is cut at multiples of ``CHUNK`` from its own start, and its partial
sums are added in pairs; so the bits depend neither on the batch nor on the number of threads.
The loops are in ``core.kernels.fused_loops``.

Gradients come in the same pass as losses where what they are multiplied by is known beforehand:
1 / n. It is not where elements leave the mean, with weights, or for a loss that is no plain mean;
there a second pass follows the sums.

A loop is compiled by the first call that needs it, unless ``compile_for`` was called before, and is
then on disk for all processes. The plain kernel does not serve meanwhile: it sums in another order,
and the same request would change its last bits later.

The loop needs a microsecond for a small batch, so the Python around it decides what that costs.
What depends on the options alone is worked out once for each thread (``Plan``). A batch then takes
a look-up of its plan, an allocation for each column, and a call of the loop.
"""

import itertools
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loss_scoring.core import compiled
from loss_scoring.core.buffers import BufferPool
from loss_scoring.core.forks import renew_in_children
from loss_scoring.core.kernels.finish import finish
from loss_scoring.core.kernels.fused_loops import LEVELS, Lanes, Outputs, sweep_of
from loss_scoring.core.kernels.interface import LANES, Scores
from loss_scoring.core.losses import BUILT_IN, LOSSES
from loss_scoring.core.machine import available_cores
from loss_scoring.core.options import LossSpec, Missing, ScoreOptions, usual_losses
from loss_scoring.core.ragged import Buffer, as_array

CHUNK = 1 << 16
SHARE = 1 << 18
"""Elements below which a thread is not worth waking (50-75 microseconds)."""
SIZES = 4, 8
"""Of elements, in bytes; they share no loop, and so no file of the cache."""
TOGETHER = 3
TILE = 1 << 15
_OUTPUTS = BufferPool(retain_bytes=256 << 20)
"""Three gradients of a batch of 4 Mi float64 are 96 MiB; two such answers may be under way."""
Array = NDArray[Any]


_COMPILED: set[tuple[Any, tuple[int, bool]]] = set()
_COMPILE_USUAL = """
import sys
from loss_scoring.core.kernels.fused_cpu import compile_usual
compile_usual(int(sys.argv[1]))
"""
_COMPILE_SCRIPT = """
import pickle, sys
from loss_scoring.core.kernels.fused_cpu import compile_here
options, size, weighted, large = pickle.load(sys.stdin.buffer)
compile_here(options, size, weighted=weighted, large=large)
"""


class _Batch(NamedTuple):
    """The elements of a batch, and where its series, or the pieces of its series, are."""

    p: Array
    y: Array
    weights: Array
    offsets: Array


class _Written(NamedTuple):
    """What a pass writes, a row a loss in the order of the table."""

    outputs: Outputs
    gradients: tuple[Array, ...]
    """Each flat, in the order of the elements; empty if they are not wanted."""


_NO_COUNTS, _NO_SUMS = np.empty((0, 0), np.int64), np.empty((0, 0))
_NO_FACTORS = np.empty((0, 0))
_NO_WEIGHTS = np.empty(0)


class Plan:
    """What the options decide, with the lanes of one thread."""

    def __init__(self, options: ScoreOptions, weighted: bool) -> None:  # noqa: FBT001 - a cache key
        order = list(LOSSES)
        specs = sorted(options.losses, key=lambda spec: order.index(spec.name))
        self.options = options
        self.weighted = weighted
        self.losses = [spec.loss for spec in specs]
        self.has_bases = [weighted or loss.denominator is not None for loss in self.losses]
        self.skips_missing = options.missing == "skip"
        self.skips_masked = options.zero_division == "skip"
        self.is_mean = not any(self.has_bases) and all(loss.is_mean for loss in self.losses)
        """Whether each loss is a sum over a count, so that the loop divides."""
        may_leave = any(loss.has_quotient for loss in self.losses) and self.skips_masked
        knows_counts = self.is_mean and not self.skips_missing and not may_leave
        self.is_one_pass = self.is_mean and (knows_counts or not options.gradients)
        self.shape = len(specs), any(loss.has_quotient for loss in self.losses), any(self.has_bases)
        self._rows = [
            (spec.name, specs.index(spec), weighted or spec.loss.can_be_masked)
            for spec in options.losses
        ]
        threes = [order.index(spec.name) // TOGETHER for spec in specs]
        cuts = [threes.index(three) for three in dict.fromkeys(threes)]
        self.loops = [
            _Loop(self, specs, slice(*rows)) for rows in itertools.pairwise([*cuts, len(specs)])
        ]
        self.compiled_as = (
            *(loop.losses for loop in self.loops),
            *(options.gradients, self.skips_missing, self.is_one_pass, weighted),
        )

        self.compiled: set[tuple[int, bool]] = set()
        """Of which size and whether large, as far as this thread knows."""

    def scores(self, values: Array, masked: Array, gradients: Sequence[Array]) -> Scores:
        """Return the columns of the answer, in the order that was asked for."""
        return Scores(
            {name: values[row] for name, row, _ in self._rows},
            {name: masked[row] for name, row, can_be_masked in self._rows if can_be_masked},
            {name: gradients[row] for name, row, _ in self._rows} if gradients else {},
        )

    def run(
        self,
        batch: _Batch,
        first: int,
        last: int,
        written: _Written,
        factors: Array,
        divide: bool,  # noqa: FBT001
    ) -> None:
        """Score the series, or the pieces of series, from ``first`` to ``last``, exclusive."""
        offsets, loops = batch.offsets, self.loops
        if len(loops) == 1:
            loops[0].run(batch, first, last, written, factors, divide)
            return
        marks = np.arange(offsets[first] + TILE, offsets[last], TILE)
        cuts = np.unique([first, *np.searchsorted(offsets[first : last + 1], marks) + first, last])
        for start, stop in itertools.pairwise(cuts.tolist()):
            for loop in loops:
                loop.run(batch, start, stop, loop.rows_of(written), factors[loop.rows], divide)


class _Loop:
    """A loop over a few of the losses of a plan, with the lanes of one thread."""

    def __init__(self, plan: Plan, specs: Sequence[LossSpec], rows: slice) -> None:
        own = specs[rows]
        self.rows = rows
        self.losses = tuple((spec.loss, spec.flags) for spec in own)
        self._plan = plan
        self._has_bases = any(plan.has_bases[rows])
        self._sweeps: dict[tuple[int, bool, bool], Any] = {}
        self._by_size: dict[int, tuple[Lanes, tuple[tuple[Any, ...], ...]]] = {}
        # Integers as wide as an element, so that counting fills the same vectors as adding.
        for size, kind, count in ((4, np.float32, np.int32), (8, np.float64, np.int64)):
            lanes = Lanes(
                _aligned(count, 1, LANES),
                _aligned(np.float64, len(own), LANES + LEVELS),
                _aligned(count, len(own), LANES),
                _aligned(np.float64, len(own), LANES + LEVELS),
            )
            self._by_size[size] = lanes, tuple(tuple(map(kind, spec.numbers)) for spec in own)

    def rows_of(self, written: _Written) -> _Written:
        """Return what this loop writes of all."""
        present, *others = written.outputs
        outputs = Outputs(present, *(column[self.rows] for column in others))
        return _Written(outputs, written.gradients[self.rows])

    def run(
        self,
        batch: _Batch,
        first: int,
        last: int,
        written: _Written,
        factors: Array,
        divide: bool,  # noqa: FBT001
    ) -> None:
        """Score some series, or pieces."""
        outputs, gradients = written
        lanes, numbers = self._by_size[batch.p.itemsize]
        self.sweep(batch.p.itemsize, bool(gradients), bool(factors.size))(
            *(*batch, first, last, LANES, self._plan.skips_masked, divide),
            *(*lanes, *outputs, factors, numbers, gradients),
        )

    def sweep(self, size: int, gradients: bool, known: bool) -> Any:  # noqa: FBT001 - one private call
        """Return the compiled loop; ``known``, sums were made, and gradients follow from them."""
        kind = size, gradients, known
        if kind not in self._sweeps:
            plan, with_sums = self._plan, not known
            further = plan.weighted, plan.skips_missing, with_sums and self._has_bases
            self._sweeps[kind] = sweep_of(
                self.losses, (with_sums, gradients, known, *further), size
            )
        return self._sweeps[kind]


def _aligned(kind: type, rows: int, lanes: int) -> Array:
    """Return lanes on cache lines of their own.

    Lanes that straddle two are loaded and stored twice in every block, which was measured to cost
    MAE two thirds of its speed.
    """
    width = np.dtype(kind).itemsize
    padded = -(-lanes * width // 64) * 64
    block = np.empty(rows * padded + 64, np.uint8)
    start = -block.ctypes.data % 64
    whole: Array = block[start : start + rows * padded].view(kind)
    return whole.reshape(rows, padded // width)


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
        batch = _Batch(p, y, _NO_WEIGHTS if weights is None else _writable(weights), offsets)
        plan = _PLANS.plan_of(options, weights is not None)
        if not plan.is_one_pass or _is_cut(offsets, len(p)):
            return self._score_by_sums(batch, plan, None if scales is None else as_array(scales))
        (_, values, masked, _), gradients = self._sweep(
            batch, plan, with_gradients=options.gradients, divide=True
        )
        return plan.scores(values, masked, gradients)

    def is_compiled(
        self, options: ScoreOptions, size: int, elements: int, *, weighted: bool
    ) -> bool:
        """Tell whether scoring waits for no compiler in this process.

        Args:
            options: What to compute.
            size: Bytes of an element.
            elements: How many there are.
            weighted: Whether they have weights.
        """
        plan = _PLANS.plan_of(options, weighted)
        kind = size, elements > CHUNK and options.gradients
        if kind not in plan.compiled and (plan.compiled_as, kind) in _COMPILED:
            plan.compiled.add(kind)
        return kind in plan.compiled

    @compiled.with_spare_descriptor
    def compile_for(
        self, options: ScoreOptions, size: int, elements: int, *, weighted: bool
    ) -> None:
        """Compile what ``is_compiled`` misses, or load it from the cache, in milliseconds.

        Another process compiles, as far as the cache can be written and it knows the losses: the
        compiler would hold up the threads of this one for seconds, and leave 15 MB behind for each
        loop.
        """
        large = elements > CHUNK
        is_known = all(spec.name in BUILT_IN for spec in options.losses)
        if is_known and not _is_cached(_PLANS.plan_of(options, weighted), size, large=large):
            arguments = pickle.dumps((options, size, weighted, large))
            subprocess.run([sys.executable, "-c", _COMPILE_SCRIPT], input=arguments, check=False)  # noqa: S603 - ours
        compile_here(options, size, weighted=weighted, large=large)

    @compiled.with_spare_descriptor
    def load_for(self, options: ScoreOptions, size: int, elements: int, *, weighted: bool) -> None:
        """Load what ``is_compiled`` misses, if the cache has it."""
        large = elements > CHUNK
        if _is_cached(_PLANS.plan_of(options, weighted), size, large=large):
            compile_here(options, size, weighted=weighted, large=large)

    def _score_by_sums(  # noqa: C901 - the cases of the contract
        self, batch: _Batch, plan: Plan, scales: Array | None
    ) -> Scores:
        """Score where some series is in several pieces, or a loss is not its sum over a count."""
        kind, lengths = batch.p.dtype, np.diff(batch.offsets)
        owners = None
        if _is_cut(batch.offsets, len(batch.p)):
            offsets, owners = _pieces(batch.offsets)
            batch = batch._replace(offsets=offsets)
        outputs, _ = self._sweep(batch, plan)
        if owners is not None:
            outputs = Outputs(*(_join(column, owners, len(lengths)) for column in outputs))
        counts = outputs.present[0] if plan.skips_missing else lengths
        rows = len(plan.losses)
        values, factors = np.empty((rows, len(lengths))), np.empty((rows, len(lengths)))
        masked = np.zeros((rows, len(lengths)), np.int64)
        with np.errstate(all="ignore"):
            for row, loss in enumerate(plan.losses):
                divisors = counts
                if loss.has_quotient:
                    masked[row] = outputs.masked[row]
                    divisors = counts - masked[row] if plan.skips_masked else counts
                if plan.has_bases[row]:
                    divisors = outputs.divisors[row]
                finished = finish(np, loss, outputs.values[row], divisors, scales)
                values[row], factors[row], is_void = finished
                if plan.has_bases[row] or loss.scaled:
                    masked[row] = np.where(is_void, lengths, masked[row])
                if loss.is_mean and not plan.weighted:
                    factors[row] = 1 / divisors.astype(kind)  # rounded once, as darts does
        gradients: Sequence[Array] = ()
        if plan.options.gradients:
            if not plan.weighted:
                factors = factors.clip(max=np.finfo(kind).max).astype(kind)
            if owners is not None:
                factors = np.take(factors, owners, axis=1)  # in C's order, as the loop takes them
            gradients = self._sweep(batch, plan, with_gradients=True, factors=factors).gradients
        return plan.scores(values, masked, gradients)

    def _sweep(
        self,
        batch: _Batch,
        plan: Plan,
        *,
        with_gradients: bool = False,
        divide: bool = False,
        factors: Array = _NO_FACTORS,
    ) -> _Written:
        """Sweep all series or pieces, sharing them among threads by elements.

        With ``factors`` the sums are known, and only gradients are written.
        """
        n, elements = len(batch.offsets) - 1, len(batch.p)
        rows, has_masks, has_bases = plan.shape
        outputs = Outputs(
            np.empty((1, n), np.int64) if plan.skips_missing else _NO_COUNTS,
            np.empty((rows, n)),
            np.empty((rows, n), np.int64) if has_masks else _NO_COUNTS,
            np.empty((rows, n)) if has_bases else _NO_SUMS,
        )
        gradients = [_OUTPUTS.empty(elements, batch.p.dtype) for _ in range(rows * with_gradients)]
        written = _Written(outputs, tuple(gradients))
        if elements < 2 * SHARE or self.threads == 1:
            plan.run(batch, 0, n, written, factors, divide)
            return written

        def run(first: int, last: int) -> None:
            own = _PLANS.plan_of(plan.options, plan.weighted)
            own.run(batch, first, last, written, factors, divide)

        shares = min(self.threads, elements // SHARE)
        cuts = np.searchsorted(batch.offsets, np.arange(1, shares) * (elements // shares)).tolist()
        spans = list(zip([0, *cuts], [*cuts, n], strict=True))
        waiting = [self._pool.submit(run, *span) for span in spans[1:]]
        try:
            run(*spans[0])
        finally:
            for future in waiting:  # never return while a thread still writes
                future.result()
        return written


def _is_cut(offsets: Array, elements: int) -> bool:
    """Tell whether some series is in several pieces."""
    return elements > CHUNK and bool((offsets[1:] - offsets[:-1]).max() > CHUNK)


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


def _join(columns: Array, owners: Array, series: int) -> Array:
    """Add up the pieces of each series in pairs, and those sums in pairs, until one is left."""
    while columns.shape[1] > series:
        firsts = np.flatnonzero(np.diff(owners, prepend=-1))
        rank = np.arange(len(owners)) - np.repeat(firsts, np.diff(firsts, append=len(owners)))
        is_left = rank % 2 == 0
        paired = columns[:, is_left]
        has_right = np.append(~is_left, False)[1:][is_left]
        paired[:, has_right] += columns[:, ~is_left]
        columns, owners = paired, owners[is_left]
    return columns


fused_cpu_kernel = FusedCpuKernel()


def _is_cached(plan: Plan, size: int, *, large: bool) -> bool:
    """Tell whether the cache on disk has the loops that ``compile_here`` would compile."""
    gradients = plan.options.gradients
    passes = [(gradients, False)]
    if gradients and (large or not plan.is_one_pass):
        passes = [(False, False), (True, True)]
    return all(
        compiled.is_cached(loop.sweep(size, *each)) for loop in plan.loops for each in passes
    )


def compile_here(options: ScoreOptions, size: int, *, weighted: bool, large: bool) -> None:
    """Compile in this process, or load from the cache, by scoring ones.

    Args:
        options: What to compute.
        size: Bytes of an element.
        weighted: Whether elements have weights.
        large: Whether there are more elements than ``CHUNK``, of which a series may be cut.
    """
    elements = np.ones(CHUNK + 1 if large else 1, f"f{size}")
    weights = np.ones(len(elements)) if weighted else None
    offsets = np.array([0, len(elements)])
    fused_cpu_kernel(elements, elements, offsets, options, weights, np.ones(1))
    plan = _PLANS.plan_of(options, weighted)
    _COMPILED.add((plan.compiled_as, (size, large and options.gradients)))


def warm_up() -> None:
    """Compile, or load from the cache, what requests need that name no losses."""
    for size, gradients in itertools.product(SIZES, (False, True)):
        compile_here(ScoreOptions(gradients=gradients), size, weighted=False, large=False)


def compile_all() -> None:
    """Put what most requests need into the cache, with a process for each size of elements."""
    arguments = [sys.executable, "-c", _COMPILE_USUAL]
    running = [subprocess.Popen([*arguments, str(size)]) for size in SIZES]  # noqa: S603 - ours
    for process in running:
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, process.args)


def compile_usual(size: int) -> None:
    """Compile what most requests need: the default losses together, and each loss."""
    together, alone = usual_losses()
    missings: tuple[Missing, ...] = ("error", "skip")
    for gradients in (False, True):
        for losses, missing in itertools.product(together, missings):
            options = ScoreOptions(losses, gradients, missing)
            compile_here(options, size, weighted=False, large=False)
            if gradients:  # of cut series, by loops of their own
                compile_here(options, size, weighted=False, large=True)
        for loss in alone:
            compile_here(ScoreOptions(loss, gradients), size, weighted=False, large=False)
