"""The fused CUDA kernel: all losses and gradients of a batch in one launch a width.

A series is one piece, in a row of a tile as wide as its length needs; a long one is cut into pieces
from its own start, and a second launch adds their sums in order. Which of these happens to a series
depends on its length alone. The device code is in ``core.kernels.fused_tiles``.
"""

import subprocess
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from triton.runtime import driver

from loss_scoring.core.kernels.fused_tiles import COLUMNS, join_pieces, score_tiles
from loss_scoring.core.kernels.interface import Scores
from loss_scoring.core.options import LOSSES, LossSpec, ScoreOptions
from loss_scoring.core.ragged import Buffer, as_array

WIDTHS = (32, 256, 512)
"""Widths of tiles; a longer series is cut into pieces of the last."""
_TILE = 512
"""Elements of a tile: 4 a thread, as one vectorised load of float32 brings."""
LAUNCH = {"num_warps": 4, "enable_fp_fusion": False}
"""Beside the constants. A fused multiply-add would round once where the contract rounds twice."""
_ALIGNED = 4
_JOINED = 128
_NAMES = tuple(LOSSES)
_COLUMNS = {"mape": 3, "smape": 4}
_PRESENT = 5


class Pieces(NamedTuple):
    """The pieces of a batch, those of one width together and those of one series in order.

    Attributes:
        starts: The first element of each.
        sizes: How many elements.
        owners: The series of each.
        spans: For each width in use, its first piece and the one after its last.
        firsts: The first piece of each series.
        counts: How many pieces each series has.
    """

    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    owners: NDArray[np.int64]
    spans: dict[int, tuple[int, int]]
    firsts: NDArray[np.int64]
    counts: NDArray[np.int64]


def pieces_of(offsets: NDArray[np.int64]) -> Pieces:
    """Cut series into pieces.

    Example:
        >>> pieces = pieces_of(np.array([0, 3, 3, 1203]))
        >>> pieces.starts.tolist(), pieces.sizes.tolist(), pieces.spans
        ([0, 3, 515, 1027], [3, 512, 512, 176], {32: (0, 1), 512: (1, 4)})
    """
    lengths = np.diff(offsets)
    counts = -(-lengths // WIDTHS[-1])
    width = np.searchsorted(WIDTHS, np.minimum(lengths, WIDTHS[-1]))
    order = np.argsort(width, kind="stable")
    owners = np.repeat(order, counts[order])
    before = np.cumsum(counts[order]) - counts[order]
    firsts = np.empty_like(counts)
    firsts[order] = before
    starts = (np.arange(len(owners)) - firsts[owners]) * WIDTHS[-1]
    sizes = np.minimum(lengths[owners] - starts, WIDTHS[-1])
    cuts = np.searchsorted(width[owners], range(len(WIDTHS) + 1)).tolist()
    spans = {size: (cuts[i], cuts[i + 1]) for i, size in enumerate(WIDTHS) if cuts[i + 1] > cuts[i]}
    return Pieces(starts + offsets[:-1][owners], sizes, owners, spans, firsts, counts)


@torch.inference_mode()
def fused_cuda_kernel(
    prediction: Tensor, target: Tensor, offsets: Buffer, options: ScoreOptions
) -> Scores:
    """Score every series; see ``core.kernels.interface.Kernel``."""
    # Triton launches on the current device and its stream, wherever the pointers lead.
    with torch.cuda.device_of(prediction):  # type: ignore[no-untyped-call]
        return _score(_Batch(prediction, target, offsets, options), options)


def _score(batch: "_Batch", options: ScoreOptions) -> Scores:
    quotients = any(LOSSES[spec.name].has_quotient for spec in options.losses)
    uncertain = options.missing == "skip" or (quotients and options.zero_division == "skip")
    divisors = batch.lengths.expand(len(_NAMES), -1).contiguous()
    # What a series is divided by is only known after its sums, if elements may leave the mean.
    first_pass_slopes = options.gradients and not uncertain
    sums, slopes = batch.launch(divisors, sums=True, slopes=first_pass_slopes)
    totals = batch.join(sums)
    masked = {
        name: totals[_COLUMNS[name]].long()
        for name in (spec.name for spec in options.losses)
        if name in _COLUMNS
    }
    if options.missing == "skip":
        divisors[:] = totals[_PRESENT].long()
    if options.zero_division == "skip":
        for name, column in masked.items():
            divisors[_NAMES.index(name)] -= column
    if options.gradients and uncertain:
        slopes = batch.launch(divisors, sums=False, slopes=True)[1]
    values = {}
    for spec in options.losses:
        row = _NAMES.index(spec.name)
        values[spec.name] = totals[row] / divisors[row]
    return Scores(
        values, masked, {spec.name: slopes[spec.name] for spec in options.losses if slopes}
    )


class _Batch:
    """A batch on its device, with its pieces."""

    def __init__(
        self, prediction: Tensor, target: Tensor, offsets: Buffer, options: ScoreOptions
    ) -> None:
        self.sides = prediction, target
        self.device = prediction.device
        offsets = as_array(offsets)
        self.pieces = pieces_of(offsets)
        self.series = len(offsets) - 1
        self.aligned = not (offsets % _ALIGNED).any()
        self.options = options
        self.lengths = self._on_device(np.diff(offsets))
        self.starts, self.sizes, self.owners = map(self._on_device, self.pieces[:3])

    def _on_device(self, array: NDArray[np.int64]) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":  # out of pageable memory the host would wait for the copy
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def launch(
        self, divisors: Tensor, *, sums: bool, slopes: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Score all pieces; returns their sums and the gradients."""
        specs: dict[str, LossSpec] = {spec.name: spec for spec in self.options.losses}
        prediction = self.sides[0]
        total = len(self.pieces.owners)
        columns = torch.zeros(COLUMNS, total, dtype=torch.float64, device=self.device)
        made = {name: torch.empty_like(prediction) for name in specs if slopes}
        unused = prediction.new_empty(1)
        choices = (
            *(int(name in specs) for name in _NAMES),
            int(any(not spec.block_denom_grad for spec in specs.values())),
            int(self.options.missing == "skip"),
            int(sums),
            int(slopes),
        )
        for width, (first, stop) in self.pieces.spans.items():
            fixed = constants(width, prediction.dtype, aligned=self.aligned)
            score_tiles[(-(-(stop - first) // fixed["ROWS"]),)](
                *self.sides,
                self.starts,
                self.sizes,
                self.owners,
                divisors,
                columns,
                *(made.get(name, unused) for name in _NAMES),
                first,
                stop,
                total,
                self.series,
                *choices,
                **fixed,
                **LAUNCH,
            )
        return columns, made

    def join(self, sums: Tensor) -> Tensor:
        """Add up the pieces of each series: ``[COLUMNS, series]``."""
        totals = torch.zeros(COLUMNS, self.series, dtype=torch.float64, device=self.device)
        if self.series:
            join_pieces[(-(-self.series // _JOINED), COLUMNS)](
                sums,
                self._on_device(self.pieces.firsts),
                self._on_device(self.pieces.counts),
                totals,
                sums.shape[1],
                self.series,
                ROWS=_JOINED,
                **LAUNCH,
            )
        return totals


def constants(width: int, dtype: torch.dtype, *, aligned: bool) -> dict[str, Any]:
    """Return the compile-time constants of one specialisation of ``score_tiles``."""
    return {
        "ROWS": _TILE // width,
        "WIDTH": width,
        "STEPS": width.bit_length() - 1,
        "ALIGNED": _ALIGNED if aligned else 1,
        "MOST": torch.finfo(dtype).max,
    }


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


def warm_up(device: torch.device) -> None:
    """Compile every specialisation: one for each width, dtype and alignment."""
    for dtype in (torch.float32, torch.float64):
        for length in (*WIDTHS, *(width - 1 for width in WIDTHS)):
            ones = torch.ones(length, dtype=dtype, device=device)
            fused_cuda_kernel(ones, ones, torch.tensor([0, length]), ScoreOptions(gradients=True))
