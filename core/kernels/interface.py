"""What every kernel takes and returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

from loss_scoring.core.options import ScoreOptions
from loss_scoring.core.ragged import Buffer, as_array, as_tensor, concatenate

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from loss_scoring.core.kernels.fused_cpu import FusedCpuKernel

Columns: TypeAlias = Mapping[str, Buffer]
Arrays: TypeAlias = Mapping[str, NDArray[Any]]
LANES = 16
"""How many accumulators a series has on a CPU, and how many elements a block has."""
GROUP = 8 * LANES
"""After how many elements they are folded."""
SHORT = 64
"""Series up to which a Python loop costs less than a reduction (2 microseconds)."""


class Scores:
    """Losses of n series, as columns: all tensors, or all arrays, which read as tensors.

    Args:
        values: For each loss, float64 of length n. NaN where no element was left to average.
        masked: For each loss that can be masked, with weights for each, int64 of length n: how many
            elements had a quotient that was NaN or infinite (elements skipped as missing are not
            counted); all of a series whose divisor is 0 or whose scale is not positive.
        gradients: For each loss, flat, of the prediction's dtype and layout; empty unless asked
            for. Element j holds the derivative of its own series' loss.
    """

    __slots__ = ("columns",)

    columns: tuple[Columns, Columns, Columns]
    """Values, masked counts and gradients as they are: tensors on a device, or arrays."""

    def __init__(self, values: Columns, masked: Columns, gradients: Columns) -> None:
        self.columns = values, masked, gradients

    @classmethod
    def empty(cls, options: ScoreOptions, itemsize: int, *, weighted: bool = False) -> Scores:
        """Return the scores of no series, whose elements would have so many bytes."""
        names = [spec.name for spec in options.losses]
        masked = options.masked(weighted=weighted)
        return cls(
            {name: np.empty(0) for name in names},
            {name: np.empty(0, np.int64) for name in masked},
            {name: np.empty(0, f"f{itemsize}") for name in names if options.gradients},
        )

    @classmethod
    def cat(cls, parts: Sequence[Scores]) -> Scores:
        """Concatenate scores of consecutive series; a single part is returned as it is."""
        if len(parts) == 1:
            return parts[0]

        def join(kind: int) -> Columns:
            columns = [part.columns[kind] for part in parts]
            return {name: concatenate([column[name] for column in columns]) for name in columns[0]}

        return cls(*map(join, range(3)))

    def slice(self, series: slice, elements: slice) -> Scores:
        """Return the scores of some consecutive series, as views."""
        cuts = (series, series, elements)
        return self._map(lambda kind, column: column[cuts[kind]])

    def to(self, device: torch.device | str) -> Scores:
        """Return the scores on another device; arrays stay what they are on the CPU."""
        is_arrays = isinstance(next(iter(self.columns[0].values())), np.ndarray)
        if is_arrays and str(device) == "cpu":
            return self
        return self._map(lambda _, column: as_tensor(column).to(device))

    def arrays(self) -> tuple[Arrays, Arrays, Arrays]:
        """Return values, masked counts and gradients as arrays; they are on the CPU."""
        if isinstance(next(iter(self.columns[0].values())), np.ndarray):
            return cast("tuple[Arrays, Arrays, Arrays]", self.columns)
        values, masked, gradients = (
            {name: as_array(column) for name, column in part.items()} for part in self.columns
        )
        return values, masked, gradients

    def masked_elements(self) -> dict[str, int]:
        """Return for each loss with a quotient how many elements are masked in all."""
        return {
            name: sum(column.tolist()) if len(column) <= SHORT else int(column.sum())
            for name, column in self.columns[1].items()
        }

    @property
    def values(self) -> dict[str, Tensor]:
        """For each loss, a value a series."""
        return {name: as_tensor(column) for name, column in self.columns[0].items()}

    @property
    def masked(self) -> dict[str, Tensor]:
        """For each loss with a quotient, a count a series."""
        return {name: as_tensor(column) for name, column in self.columns[1].items()}

    @property
    def gradients(self) -> dict[str, Tensor]:
        """For each loss, a derivative an element, if they were asked for."""
        return {name: as_tensor(column) for name, column in self.columns[2].items()}

    def _map(self, change: Callable[[int, Buffer], Buffer]) -> Scores:
        values, masked, gradients = (
            {name: change(kind, column) for name, column in part.items()}
            for kind, part in enumerate(self.columns)
        )
        return Scores(values, masked, gradients)


class Kernel(Protocol):
    """Scores flat buffers that are known to be valid.

    A kernel promises: element terms and gradients in the inputs' dtype, in the order of
    operations that the plain kernel has; sums in float64; and the same bits for a series whatever
    else is in the batch.
    """

    def __call__(
        self,
        prediction: Tensor,
        target: Tensor,
        offsets: Buffer,
        options: ScoreOptions,
        weights: Buffer | None = None,
        scales: Buffer | None = None,
    ) -> Scores:
        """Score every series.

        Args:
            prediction: Flat float32 or float64.
            target: The same dtype, length and device.
            offsets: int64 on the CPU, as in ``Ragged``.
            options: What to compute; ``missing="error"`` is treated as ``propagate``, and the
                caller finds missing elements by the scores (``core.find_missing``).
            weights: Flat float64, finite and not negative, for each element. The loss is then the
                sum of weighted terms over the sum of the weights of the elements that count.
            scales: float64, for each series, for the losses that are ``scaled``.
        """
        ...


def takes_arrays(kernel: Kernel) -> TypeGuard[FusedCpuKernel]:
    """Tell whether a kernel takes arrays as well, which saves the cost of views as tensors."""
    return getattr(kernel, "takes_arrays", False)


def is_compiled_kernel(kernel: Kernel) -> TypeGuard[FusedCpuKernel]:
    """Tell whether a kernel compiles what a set of options needs, once."""
    return hasattr(kernel, "compile_for")
