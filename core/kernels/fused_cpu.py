"""The fused CPU kernel: one read of the inputs for all losses and gradients, on own threads.

A series longer than ``CHUNK`` is cut at multiples of ``CHUNK`` from its own start, and its partial
sums are added in order; so the bits depend neither on the batch nor on the number of threads.
The loops are in ``core.kernels.fused_loops``.

All three losses are one pass; one loss is one pass; two are a pass each, which keeps the number of
specialisations at 10 per dtype and per way with missing elements. A specialisation that was not
warmed up is compiled by its first call. It is not served by the plain kernel meanwhile: that sums
in another order, and the same request would change its last bits once the compiler is done.
"""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.buffers import BufferPool
from core.cores import available_cores
from core.forks import renew_in_children
from core.kernels.fused_loops import LANES, sweep
from core.kernels.interface import Scores
from core.options import ALL_LOSSES, LOSSES, LossSpec, ScoreOptions
from core.ragged import Buffer, as_array

CHUNK = 1 << 16
SHARE = 1 << 18
"""Elements below which a thread is not worth waking (50-75 microseconds)."""
_QUOTIENTS = tuple(name for name, loss in LOSSES.items() if loss.has_quotient)
_NONE_KNOWN = np.empty((0, len(LOSSES)), np.int64)
_OUTPUTS = BufferPool(retain_bytes=256 << 20)
"""Three gradients of a batch of 4 Mi float64 are 96 MiB; two such answers may be under way."""
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class _Pass:
    """What one sweep computes, worked out once for each way of asking."""

    names: tuple[str, ...]
    quotients: tuple[str, ...]
    gradients: bool
    skip_missing: bool
    skip_zero: bool
    full: bool | None
    """Whether sMAPE's denominator has a gradient; None, and not False, prunes the branch."""

    @classmethod
    def of(cls, specs: tuple[LossSpec, ...], options: ScoreOptions) -> "_Pass":
        names = tuple(spec.name for spec in specs)
        full = options.gradients and any(not spec.block_denom_grad for spec in specs)
        return cls(
            names,
            tuple(name for name in names if name in _QUOTIENTS),
            options.gradients,
            options.missing == "skip",
            options.zero_division == "skip",
            full or None,
        )


@lru_cache(maxsize=256)
def _passes(options: ScoreOptions) -> tuple[_Pass, ...]:
    if len(options.losses) == len(LOSSES):
        return (_Pass.of(options.losses, options),)
    return tuple(_Pass.of((spec,), options) for spec in options.losses)


class Scratch(threading.local):
    """The lanes of one thread, each on cache lines of its own.

    An accumulator that straddles two lines is loaded and stored twice in every block, which was
    measured to cost MAE two thirds of its speed.
    """

    def __init__(self) -> None:
        counts = [(kind, name) for kind in (np.int32, np.int64) for name in ("", *LOSSES)]
        block = np.empty((len(LOSSES) + len(counts)) * 8 * LANES + 64, np.uint8)
        aligned = block[-block.ctypes.data % 64 :]
        lanes = (aligned[i * 8 * LANES :][: 8 * LANES] for i in itertools.count())
        self.sums: Columns = {name: next(lanes).view(np.float64) for name in LOSSES}
        self.tallies: dict[tuple[type, str], NDArray[Any]] = {
            (kind, name): next(lanes).view(kind)[:LANES] for kind, name in counts
        }

    def lanes(
        self, names: tuple[str, ...], itemsize: int, *, skip_missing: bool
    ) -> list[NDArray[Any] | None]:
        """Return what ``sweep`` counts and adds in, in the order of its arguments."""
        # As wide as an element, so that counting fills the same vectors as adding.
        integer = np.int32 if itemsize == 4 else np.int64
        return [
            self.tallies[integer, ""] if skip_missing else None,
            *(self.sums[name] if name in names else None for name in LOSSES),
            *(self.tallies[integer, name] if name in names else None for name in _QUOTIENTS),
        ]


_SCRATCH = Scratch()


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
        """Take a new pool of threads, which start when they are wanted."""
        others = max(self.threads - 1, 1)
        self._pool = ThreadPoolExecutor(others, thread_name_prefix="fused-cpu")

    takes_arrays = True
    """Arrays will do for tensors, and save what a view of one as the other costs."""

    def __call__(
        self, prediction: Buffer, target: Buffer, offsets: Buffer, options: ScoreOptions
    ) -> Scores:
        """Score every series."""
        p, y, edges = _ordinary(prediction), _ordinary(target), _ordinary(offsets)
        bounds, owner = _pieces(edges)
        columns: tuple[Columns, Columns, Columns] = ({}, {}, {})
        for what in _passes(options):
            if owner is None:
                values, masked, _, slopes = self._sweep(
                    p, y, bounds, what, gradients=what.gradients
                )
            else:
                values, masked, slopes = self._score_pieces(p, y, edges, bounds, owner, what)
            for column, part in zip(columns, (values, masked, slopes), strict=True):
                column.update(part)
        return Scores(*columns)

    def _score_pieces(  # noqa: PLR0913, PLR0917 - one private call
        self,
        p: NDArray[Any],
        y: NDArray[Any],
        offsets: NDArray[np.int64],
        bounds: NDArray[np.int64],
        owner: NDArray[np.int64],
        what: _Pass,
    ) -> tuple[Columns, Columns, Columns]:
        """Score where some series is in several pieces: their sums decide what is divided by."""
        n = len(offsets) - 1
        counts = np.repeat(np.diff(offsets)[:, None], len(LOSSES), axis=1)
        totals, pieces_masked, present, slopes = self._sweep(
            p, y, bounds, what, counts[owner], gradients=False
        )

        def join(column: NDArray[Any]) -> NDArray[np.float64]:
            """Add up the pieces of each series, in order."""
            return np.bincount(owner, weights=column, minlength=n).astype(np.float64, copy=False)

        masked = {name: join(column).astype(np.int64) for name, column in pieces_masked.items()}
        if present is not None:
            counts[:] = join(present).astype(np.int64)[:, None]
        if what.skip_zero:
            for name, column in masked.items():
                counts[:, list(LOSSES).index(name)] -= column
        with np.errstate(invalid="ignore"):
            values = {
                name: join(column) / counts[:, list(LOSSES).index(name)]
                for name, column in totals.items()
            }
        if what.gradients:
            slopes = self._sweep(p, y, bounds, what, counts[owner], gradients=True)[3]
        return values, masked, slopes

    def _sweep(  # noqa: PLR0913 - one private call
        self,
        p: NDArray[Any],
        y: NDArray[Any],
        bounds: NDArray[np.int64],
        what: _Pass,
        known: NDArray[np.int64] = _NONE_KNOWN,
        *,
        gradients: bool,
    ) -> tuple[Columns, Columns, NDArray[np.int64] | None, Columns]:
        """Sweep all pieces once, sharing them among threads by elements."""
        n, names = len(bounds) - 1, what.names
        values: Columns = {name: np.empty(n) for name in names}
        masked: Columns = {name: np.empty(n, np.int64) for name in what.quotients}
        slopes: Columns = (
            {name: _OUTPUTS.empty(len(p), p.dtype) for name in names} if gradients else {}
        )
        present = np.empty(n, np.int64) if what.skip_missing else None
        full = what.full if gradients else None
        outputs = (
            present,
            *map(values.get, LOSSES),
            *map(masked.get, _QUOTIENTS),
            *map(slopes.get, LOSSES),
        )

        def run(first: int, last: int) -> None:
            lanes = _SCRATCH.lanes(names, p.itemsize, skip_missing=what.skip_missing)
            sweep(
                *(p, y, bounds, first, last, LANES, known, what.skip_zero, full, *lanes, *outputs)
            )

        shares = min(self.threads, len(p) // SHARE)
        if shares <= 1:
            run(0, n)
            return values, masked, present, slopes
        cuts = np.searchsorted(bounds, np.arange(1, shares) * (len(p) // shares)).tolist()
        spans = list(zip([0, *cuts], [*cuts, n], strict=True))
        waiting = [self._pool.submit(run, *span) for span in spans[1:]]
        try:
            run(*spans[0])
        finally:
            for future in waiting:  # never return while a thread still writes
                future.result()
        return values, masked, present, slopes


def _ordinary(side: Buffer) -> NDArray[Any]:
    """View a buffer; copy what would be another type: unaligned, or read-only."""
    array = as_array(side)
    return array if array.flags.carray else np.require(array, None, ("C", "A", "W"))


def _pieces(offsets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Cut long series; returns the bounds and, if any was cut, the series of each piece."""
    if len(offsets) == 1 or offsets[-1] <= CHUNK:
        return offsets, None
    lengths = np.diff(offsets)
    if lengths.max() <= CHUNK:
        return offsets, None
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
        one = torch.ones(1, dtype=dtype)
        for losses in (*together, *((spec,) for spec in specs)):
            for gradients in (False, True):
                for missing in ("error", "skip") if rare else ("error",):
                    options = ScoreOptions(losses, gradients, missing)
                    fused_cpu_kernel(one, one, offsets, options)
