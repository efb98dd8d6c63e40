"""The fused CUDA kernel: all losses and gradients of a batch in one launch a width.

A series is one piece, in a row of a tile as wide as its length needs; a long one is cut into pieces
from its own start, and further launches add their sums in pairs. Which of these happens to a series
depends on its length alone. The device code is in ``core.kernels.fused_tiles``.

Gradients come in the same launch as losses where what they are multiplied by is known beforehand:
1 / n. It is not where elements leave the mean, with weights, or for a loss that is no plain mean;
there a second launch follows the sums.
"""

import subprocess
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from triton.runtime import driver

from loss_scoring.core.kernels.finish import finish
from loss_scoring.core.kernels.fused_tiles import join_pieces, score_tiles, tile_losses
from loss_scoring.core.kernels.interface import Scores
from loss_scoring.core.options import LossSpec, ScoreOptions, usual_losses
from loss_scoring.core.ragged import Buffer, as_array, as_tensor

WIDTHS = (32, 256, 512)
"""Widths of tiles; a longer series is cut into pieces of the last."""
_TILE = 512
"""Elements of a tile: 4 a thread, as one vectorised load of float32 brings."""
LAUNCH = {
    "num_warps": 4,
    "maxnreg": 128,
    "enable_fp_fusion": False,
    "enable_reflect_ftz": False,
}
"""Beside the constants. A fused multiply-add would round once where the contract rounds twice, and
CUDA's exp and log1p would take subnormal numbers for 0. With a bound on the registers of a thread,
which leaves four blocks to a processor, the assembler does not spill some for the sake of a fifth.
"""
_ALIGNED = 4
JOINED = 64
"""How many pieces of a series a row adds up."""
Ints = NDArray[np.int64]


class Cuts(NamedTuple):
    """Runs of something, cut from their own starts into parts; parts are in the order of runs.

    Attributes:
        starts: The first of each part.
        sizes: How many it has.
        owners: The run of each.
        firsts: The first part of each run.
        counts: How many parts each run has: one or more.
    """

    starts: Ints
    sizes: Ints
    owners: Ints
    firsts: Ints
    counts: Ints


def cut(starts: Ints, lengths: Ints, width: int) -> Cuts:
    """Cut runs into parts of at most ``width``.

    Example:
        >>> cut(np.array([0, 3]), np.array([3, 5]), 4).starts.tolist()
        [0, 3, 7]
    """
    counts = np.maximum(-(-lengths // width), 1)
    firsts = np.cumsum(counts) - counts
    owners = np.repeat(np.arange(len(counts)), counts)
    done = (np.arange(len(owners)) - firsts[owners]) * width
    sizes = np.minimum(lengths[owners] - done, width)
    return Cuts(starts[owners] + done, sizes, owners, firsts, counts)


def pieces_of(offsets: Ints) -> tuple[Cuts, dict[int, tuple[int, int]]]:
    """Cut series into pieces, those of one width together and those of one series in order.

    Returns:
        The pieces, ``firsts`` and ``counts`` in the order of the series; and for each width in use,
        its first piece and the one after its last.

    Example:
        >>> pieces, spans = pieces_of(np.array([0, 3, 3, 1203]))
        >>> pieces.starts.tolist(), pieces.sizes.tolist(), spans
        ([0, 3, 3, 515, 1027], [3, 0, 512, 512, 176], {32: (0, 2), 512: (2, 5)})
    """
    lengths = np.diff(offsets)
    width = np.searchsorted(WIDTHS, np.minimum(lengths, WIDTHS[-1]))
    order = np.argsort(width, kind="stable")
    starts, sizes, owners, firsts, counts = cut(offsets[:-1][order], lengths[order], WIDTHS[-1])
    owners = order[owners]
    place = np.argsort(order)
    cuts = np.searchsorted(width[owners], range(len(WIDTHS) + 1)).tolist()
    spans = {size: (cuts[i], cuts[i + 1]) for i, size in enumerate(WIDTHS) if cuts[i + 1] > cuts[i]}
    return Cuts(starts, sizes, owners, firsts[place], counts[place]), spans


class Plan:
    """What the options decide.

    The losses are in the order of their names, so that a set of them is compiled once.
    """

    def __init__(self, options: ScoreOptions, weighted: bool) -> None:  # noqa: FBT001 - a cache key
        self.options = options
        self.weighted = weighted
        self.specs = sorted(options.losses, key=lambda spec: spec.name)
        losses = [spec.loss for spec in self.specs]
        flagged = tuple((spec.loss, spec.flags) for spec in self.specs)
        self.tile = tile_losses(flagged, weighted=weighted)
        self.numbers = np.array([v for spec in self.specs for v in spec.numbers], np.float64)
        self.skip_missing = options.missing == "skip"
        self.skip_zero = options.zero_division == "skip"
        may_leave = self.skip_missing or (
            self.skip_zero and any(loss.has_quotient for loss in losses)
        )
        is_mean = not weighted and all(loss.is_mean for loss in losses)
        self.is_one_launch = is_mean and not may_leave
        """Whether gradients need no sums first."""


_plan_of = lru_cache(maxsize=256)(Plan)


@torch.inference_mode()
def fused_cuda_kernel(
    prediction: Tensor,
    target: Tensor,
    offsets: Buffer,
    options: ScoreOptions,
    weights: Buffer | None = None,
    scales: Buffer | None = None,
) -> Scores:
    """Score every series; see ``core.kernels.interface.Kernel``."""
    plan = _plan_of(options, weights is not None)
    # Triton launches on the current device and its stream, wherever the pointers lead.
    with torch.cuda.device_of(prediction):  # type: ignore[no-untyped-call]
        batch = Batch(prediction, target, offsets, weights, plan)
        return _score(batch, plan, None if scales is None else batch.on_device(scales))


def _score(batch: "Batch", plan: Plan, scales: Tensor | None) -> Scores:
    kind, lengths = batch.sides[0].dtype, batch.lengths
    gradients = plan.options.gradients
    factors = (1 / lengths.to(kind)).double().expand(len(plan.specs), -1)
    in_first = gradients and plan.is_one_launch
    sums, slopes = batch.launch(factors, sums=True, slopes=in_first)
    totals = batch.join(sums)
    counts = totals[-1].long() if plan.skip_missing else lengths
    values, masks, steepness = {}, {}, []
    for spec, place in zip(plan.specs, plan.tile, strict=True):
        name, loss, divisors = spec.name, spec.loss, counts
        masked = torch.zeros_like(lengths)
        if place.masked is not None:
            masked = totals[place.masked].long()
        if place.base is not None:
            divisors = totals[place.base]
        elif plan.skip_zero:
            divisors = counts - masked
        values[name], factor, is_void = finish(torch, loss, totals[place.total], divisors, scales)
        masks[name] = masked
        if place.base is not None or loss.scaled:
            masks[name] = torch.where(is_void, lengths, masked)
        if place.base is None and loss.is_mean:
            factor = 1 / divisors.to(kind)  # rounded once, as darts does
        elif not plan.weighted:
            most = torch.finfo(kind).max
            factor = factor.clamp(-most, most).to(kind)
        steepness.append(factor.double())
    if gradients and not in_first:
        slopes = batch.launch(torch.stack(steepness), sums=False, slopes=True)[1]
    specs = plan.options.losses
    return Scores(
        {spec.name: values[spec.name] for spec in specs},
        {spec.name: masks[spec.name] for spec in specs if plan.weighted or spec.loss.can_be_masked},
        {spec.name: slopes[plan.specs.index(spec)] for spec in specs if gradients},
    )


class Batch:
    """A batch on its device, with its pieces."""

    def __init__(
        self,
        prediction: Tensor,
        target: Tensor,
        offsets: Buffer,
        weights: Buffer | None,
        plan: Plan,
    ) -> None:
        self.sides = prediction, target
        self.device = prediction.device
        offsets = as_array(offsets)
        self.pieces, self.spans = pieces_of(offsets)
        self.series = len(offsets) - 1
        self.aligned = not (offsets % _ALIGNED).any()
        self.plan = plan
        self.lengths = self.on_device(np.diff(offsets))
        self.starts, self.sizes, self.owners = map(self.on_device, self.pieces[:3])
        self.numbers = self.on_device(plan.numbers)
        self.weights = None if weights is None else self.on_device(weights)

    def on_device(self, buffer: Buffer) -> Tensor:
        """Copy a buffer there, if it is elsewhere."""
        tensor = as_tensor(buffer)
        if tensor.device.type != self.device.type == "cuda":
            tensor = tensor.pin_memory()  # out of pageable memory the host would wait for the copy
        return tensor.to(self.device, non_blocking=True)

    def launch(
        self, factors: Tensor, *, sums: bool, slopes: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Score all pieces; returns their sums, and the gradients by loss."""
        plan, prediction = self.plan, self.sides[0]
        total, losses = len(self.pieces.owners), len(plan.specs)
        rows = plan.tile.rows + plan.skip_missing if sums else 0
        columns = torch.empty(rows, total, dtype=torch.float64, device=self.device)
        unused = prediction.new_empty(1)  # aligned as what is used
        made = [torch.empty_like(prediction) if slopes else unused for _ in range(losses)]
        for width, (first, stop) in self.spans.items():
            fixed = constants(width, prediction.dtype, aligned=self.aligned)
            score_tiles[(-(-(stop - first) // fixed["ROWS"]),)](
                *self.sides, self.weights, self.starts, self.sizes, self.owners, factors,
                self.numbers, columns, tuple(made), first, stop, total, factors.stride(0),
                int(plan.skip_missing), int(plan.skip_zero), int(sums), int(slopes), plan.tile,
                **fixed, **LAUNCH,
            )  # fmt: skip
        return columns, tuple(made)

    def join(self, sums: Tensor) -> Tensor:
        """Add up the pieces of each series: ``[rows, series]``."""
        firsts, counts = self.pieces.firsts, self.pieces.counts
        while (counts > 1).any():
            groups = cut(firsts, counts, JOINED)
            joined = sums.new_empty(len(sums), len(groups.owners))
            join_pieces[(-(-len(groups.owners) // (_TILE // JOINED)), len(sums))](
                sums, *map(self.on_device, groups[:2]), joined, sums.shape[1],
                len(groups.owners), **_rows_of(JOINED), **LAUNCH,
            )  # fmt: skip
            sums, firsts, counts = joined, groups.firsts, groups.counts
        return sums[:, self.on_device(firsts)]


def _rows_of(width: int) -> dict[str, int]:
    return {"ROWS": _TILE // width, "WIDTH": width, "STEPS": width.bit_length() - 1}


def constants(width: int, dtype: torch.dtype, *, aligned: bool) -> dict[str, Any]:
    """Return the compile-time constants of a specialisation of ``score_tiles``, besides losses."""
    most = torch.finfo(dtype).max
    return {**_rows_of(width), "ALIGNED": _ALIGNED if aligned else 1, "MOST": most}


def build_launcher() -> None:
    """Load Triton's launcher, which it compiles once, in C, and keeps in its cache.

    Raises:
        RuntimeError: There is neither a launcher nor a C compiler and Python's headers to build
            one, or no GPU.
    """
    try:
        driver.active.utils  # noqa: B018 - made when first read
    except (AssertionError, ImportError, OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(str(error)) from error


def warm_up(device: torch.device | str, *, rare: bool = False) -> None:
    """Compile the default losses, for each width, dtype and alignment.

    Other sets of losses, and those with weights, are compiled by their first batch.

    Args:
        device: Where.
        rare: Also each loss alone, and both values of flags.
    """
    together, alone = usual_losses()
    for losses in (*together, *alone) if rare else together[:1]:
        compile_for(device, losses)


def compile_for(
    device: torch.device | str, losses: tuple[LossSpec, ...], *, weighted: bool = False
) -> None:
    """Compile every specialisation for some losses, and what joins pieces."""
    options, scale = ScoreOptions(losses, gradients=True), torch.ones(1, dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        for length in (*WIDTHS, *(width - 1 for width in WIDTHS), 2 * WIDTHS[-1]):
            ones = torch.ones(length, dtype=dtype, device=device)
            weights = torch.ones(length, dtype=torch.float64, device=device) if weighted else None
            fused_cuda_kernel(ones, ones, np.array([0, length]), options, weights, scale)
