"""What every kernel takes and returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from core.options import LOSSES, ScoreOptions


@dataclass(frozen=True, eq=False)
class Scores:
    """Losses of n series, as columns.

    Attributes:
        values: For each loss, float64 of length n. NaN where no element was left to average.
        masked: For each loss with a quotient, int64 of length n: how many elements had a
            quotient that was NaN or infinite (elements skipped as missing are not counted).
        gradients: For each loss, flat, of the prediction's dtype and layout; empty unless asked
            for. Element j holds the derivative of its own series' loss.
    """

    values: dict[str, Tensor]
    masked: dict[str, Tensor]
    gradients: dict[str, Tensor]

    @classmethod
    def empty(cls, options: ScoreOptions, dtype: torch.dtype) -> "Scores":
        """Return the scores of no series."""
        names = [spec.name for spec in options.losses]
        return cls(
            {name: torch.empty(0, dtype=torch.float64) for name in names},
            {
                name: torch.empty(0, dtype=torch.int64)
                for name in names
                if LOSSES[name].has_quotient
            },
            {name: torch.empty(0, dtype=dtype) for name in names if options.gradients},
        )

    @classmethod
    def cat(cls, parts: Sequence["Scores"]) -> "Scores":
        """Concatenate scores of consecutive series; a single part is returned as it is."""
        if len(parts) == 1:
            return parts[0]

        def join(columns: list[dict[str, Tensor]]) -> dict[str, Tensor]:
            return {name: torch.cat([column[name] for column in columns]) for name in columns[0]}

        return cls(
            join([part.values for part in parts]),
            join([part.masked for part in parts]),
            join([part.gradients for part in parts]),
        )

    def slice(self, series: slice, elements: slice) -> "Scores":
        """Return the scores of some consecutive series, as views."""
        return Scores(
            {name: column[series] for name, column in self.values.items()},
            {name: column[series] for name, column in self.masked.items()},
            {name: column[elements] for name, column in self.gradients.items()},
        )

    def to(self, device: torch.device | str) -> "Scores":
        """Return the scores on another device."""
        return Scores(
            {name: column.to(device) for name, column in self.values.items()},
            {name: column.to(device) for name, column in self.masked.items()},
            {name: column.to(device) for name, column in self.gradients.items()},
        )


class Kernel(Protocol):
    """Scores flat buffers that are known to be sound.

    A kernel promises: element terms and gradients in the inputs' dtype, in the order of
    operations that the design gives; sums in float64; and the same bits for a series whatever
    stands beside it.
    """

    def __call__(
        self, prediction: Tensor, target: Tensor, offsets: Tensor, options: ScoreOptions
    ) -> Scores:
        """Score every series.

        Args:
            prediction: Flat float32 or float64.
            target: The same dtype, length and device.
            offsets: int64 on the CPU, as in ``Ragged``.
            options: What to compute; ``missing="error"`` is treated as ``propagate``, and the
                caller looks at the scores for what is missing (``core.find_missing``).
        """
        ...
