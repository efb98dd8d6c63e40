"""The fused CPU kernel: one read of the inputs for all losses and gradients, on threads of its own.

A series longer than ``CHUNK`` is cut at multiples of ``CHUNK`` from its own start, and its partial
sums are added in order; so the bits depend neither on the batch nor on the number of threads.
The loops are in ``core.kernels.fused_loops``.

All losses together are one pass, and so is a single loss; any other choice takes a pass for each
loss, which limits the specialisations to 10 per dtype and per treatment of missing elements. A
specialisation that was not warmed up is compiled by its first call. The plain kernel does not serve
it meanwhile: it sums in another order, and the same request would change its last bits later.

The loop needs a microsecond for a small batch, so the Python around it decides what that costs.
What depends on the options alone is worked out once for each thread (``Plan``): which accumulators
a pass takes, and which columns it writes. A batch then takes a look-up of its plan, an allocation
for each column, and a call for each pass.
"""

import itertools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from loss_scoring.core.buffers import BufferPool
from loss_scoring.core.forks import renew_in_children
from loss_scoring.core.kernels.fused_loops import LANES, sweep
from loss_scoring.core.kernels.interface import Arrays, Scores
from loss_scoring.core.machine import available_cores
from loss_scoring.core.options import ALL_LOSSES, LOSSES, LossSpec, ScoreOptions
from loss_scoring.core.ragged import Buffer, as_array

CHUNK = 1 << 16
SHARE = 1 << 18
"""Elements below which a thread is not worth waking (50-75 microseconds)."""
_QUOTIENTS = tuple(name for name, loss in LOSSES.items() if loss.has_quotient)
_UNKNOWN = np.empty((0, len(LOSSES)), np.int64)
_OUTPUTS = BufferPool(retain_bytes=256 << 20)
"""Three gradients of a batch of 4 Mi float64 are 96 MiB; two such answers may be under way."""
Array = NDArray[Any]


def _columns(
    values: Iterable[str], masked: Iterable[str], slopes: Iterable[str]
) -> list[tuple[int, str]]:
    """Return kind and name of each column of a batch, in order."""
    return [(kind, name) for kind, names in enumerate((values, masked, slopes)) for name in names]


class _Pass(NamedTuple):
    """What ``sweep`` takes besides the batch, in the order of its arguments."""

    fixed: dict[int, tuple[Any, ...]]
    """Flags and lanes, by the size of an element."""
    outputs: Callable[[list[Array | None]], tuple[Array | None, ...]]
    """Chooses what is written: from None, the counts of what is present, and the columns."""


class Plan:
    """What the options decide, with the lanes of one thread."""

    def __init__(self, options: ScoreOptions, lanes: "Lanes") -> None:
        self.options = options
        self.names = tuple(spec.name for spec in options.losses)
        self.quotients = tuple(name for name in self.names if name in _QUOTIENTS)
        self.slopes = self.names if options.gradients else ()
        self.skip_missing = options.missing == "skip"
        together = len(options.losses) == len(LOSSES)
        self._passes = [
            self._pass(specs, lanes)
            for specs in ([options.losses] if together else zip(options.losses))
        ]

    def _pass(self, specs: tuple[LossSpec, ...], lanes: "Lanes") -> _Pass:
        names = {spec.name for spec in specs}
        full = bool(self.slopes) and any(not spec.block_denom_grad for spec in specs)
        # None, and not False, prunes the branch.
        flags = self.options.zero_division == "skip", full or None
        fixed = {
            size: (*flags, *lanes.of(names, kind, skip_missing=self.skip_missing))
            for size, kind in ((4, np.int32), (8, np.int64))
        }
        columns = _columns(self.names, self.quotients, self.slopes)
        places = [
            columns.index(column) + 2 if column in columns and column[1] in names else 0
            for column in _columns(LOSSES, _QUOTIENTS, LOSSES)  # as sweep takes them
        ]
        return _Pass(fixed, itemgetter(1, *places))

    def run(  # noqa: PLR0913, PLR0917 - one private call
        self,
        p: Array,
        y: Array,
        offsets: Array,
        first: int,
        last: int,
        known: Array,
        columns: list[Array | None],
    ) -> None:
        """Score the series, or the pieces of series, from ``first`` to ``last``, exclusive."""
        for fixed, outputs in self._passes:
            sweep(p, y, offsets, first, last, LANES, known, *fixed[p.itemsize], *outputs(columns))


class Lanes:
    """Accumulators, each on cache lines of its own.

    One that straddles two lines is loaded and stored twice in every block, which was measured to
    cost MAE two thirds of its speed.
    """

    def __init__(self) -> None:
        counts = [(kind, name) for kind in (np.int32, np.int64) for name in ("", *LOSSES)]
        block = np.empty((len(LOSSES) + len(counts)) * 8 * LANES + 64, np.uint8)
        aligned = block[-block.ctypes.data % 64 :]
        lanes = (aligned[i * 8 * LANES :][: 8 * LANES] for i in itertools.count())
        self._sums = {name: next(lanes).view(np.float64) for name in LOSSES}
        self._tallies: dict[tuple[type[np.signedinteger[Any]], str], Array] = {
            (kind, name): next(lanes).view(kind)[:LANES] for kind, name in counts
        }

    def of(
        self, names: set[str], kind: type[np.signedinteger[Any]], *, skip_missing: bool
    ) -> list[Array | None]:
        """Return those for some losses, in the order in which ``sweep`` takes them.

        Args:
            names: Of the losses.
            kind: Integers as wide as an element, so that counting fills the same vectors as adding.
            skip_missing: Whether present elements are counted.
        """
        return [
            self._tallies[kind, ""] if skip_missing else None,
            *(self._sums[name] if name in names else None for name in LOSSES),
            *(self._tallies[kind, name] if name in names else None for name in _QUOTIENTS),
        ]


class _Plans(threading.local):
    """The plans of one thread, which share its lanes."""

    def __init__(self) -> None:
        lanes = Lanes()
        self.plan_of = lru_cache(maxsize=256)(lambda options: Plan(options, lanes))


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
        self, prediction: Buffer, target: Buffer, offsets: Buffer, options: ScoreOptions
    ) -> Scores:
        """Score every series."""
        p, y, offsets = [
            side if isinstance(side, np.ndarray) and side.flags.carray else _writable(side)
            for side in (prediction, target, offsets)
        ]
        plan = _PLANS.plan_of(options)
        if len(p) <= CHUNK or (offsets[1:] - offsets[:-1]).max() <= CHUNK:
            values, masked, _, slopes = self._sweep(p, y, offsets, plan)
        else:
            values, masked, slopes = self._score_pieces(p, y, offsets, plan)
        return Scores(values, masked, slopes)

    def _score_pieces(
        self, p: Array, y: Array, offsets: Array, plan: Plan
    ) -> tuple[Arrays, Arrays, Arrays]:
        """Score where some series is in several pieces: their sums decide what is divided by."""
        options, n = plan.options, len(offsets) - 1
        divisors = dict.fromkeys(LOSSES, np.diff(offsets))
        offsets, owner = _pieces(offsets)

        def known() -> Array:
            """Return the divisors of each piece."""
            return np.stack(list(divisors.values()), axis=1)[owner]

        def join(column: Array, dtype: type) -> Array:
            """Add up the pieces of each series, in order."""
            return np.bincount(owner, weights=column, minlength=n).astype(dtype, copy=False)

        sums_only = _PLANS.plan_of(replace(options, gradients=False))
        totals, tallies, present, _ = self._sweep(p, y, offsets, sums_only, known())
        masked = {name: join(column, np.int64) for name, column in tallies.items()}
        if present is not None:
            divisors = dict.fromkeys(LOSSES, join(present, np.int64))
        if options.zero_division == "skip":
            divisors |= {name: divisors[name] - column for name, column in masked.items()}
        with np.errstate(invalid="ignore"):
            values = {
                name: join(column, np.float64) / divisors[name] for name, column in totals.items()
            }
        slopes = self._sweep(p, y, offsets, plan, known())[3] if options.gradients else {}
        return values, masked, slopes

    def _sweep(
        self, p: Array, y: Array, offsets: Array, plan: Plan, known: Array = _UNKNOWN
    ) -> tuple[Arrays, Arrays, Array | None, Arrays]:
        """Sweep all series or pieces, sharing them among threads by elements."""
        n, elements = len(offsets) - 1, len(p)
        values = {name: np.empty(n) for name in plan.names}
        masked = {name: np.empty(n, np.int64) for name in plan.quotients}
        slopes = {name: _OUTPUTS.empty(elements, p.dtype) for name in plan.slopes}
        present = np.empty(n, np.int64) if plan.skip_missing else None
        columns = [None, present, *values.values(), *masked.values(), *slopes.values()]
        if elements < 2 * SHARE or self.threads == 1:
            plan.run(p, y, offsets, 0, n, known, columns)
            return values, masked, present, slopes

        def run(first: int, last: int) -> None:
            _PLANS.plan_of(plan.options).run(p, y, offsets, first, last, known, columns)

        shares = min(self.threads, elements // SHARE)
        cuts = np.searchsorted(offsets, np.arange(1, shares) * (elements // shares)).tolist()
        spans = list(zip([0, *cuts], [*cuts, n], strict=True))
        waiting = [self._pool.submit(run, *span) for span in spans[1:]]
        try:
            run(*spans[0])
        finally:
            for future in waiting:  # never return while a thread still writes
                future.result()
        return values, masked, present, slopes


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


fused_cpu_kernel = FusedCpuKernel()


def warm_up(*, rare: bool = False) -> None:
    """Compile, or load from the cache, what requests need, so that none waits for a compiler.

    Args:
        rare: Also ``missing="skip"`` and ``block_denom_grad=False``, which then need no compiler
            either.
    """
    offsets = torch.tensor([0, 1])
    specs = [*ALL_LOSSES, *([LossSpec("smape", block_denom_grad=False)] if rare else [])]
    together = [ALL_LOSSES, (*ALL_LOSSES[:2], specs[-1])] if rare else [ALL_LOSSES]
    for dtype in (torch.float32, torch.float64):
        element = torch.ones(1, dtype=dtype)
        for losses in (*together, *((spec,) for spec in specs)):
            for gradients in (False, True):
                for missing in ("error", "skip") if rare else ("error",):
                    options = ScoreOptions(losses, gradients, missing)
                    fused_cpu_kernel(element, element, offsets, options)
