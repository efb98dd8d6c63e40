"""Many series of different lengths in one flat buffer, in the layout of Arrow's List."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Ragged:
    """One contiguous buffer of values cut into series by offsets.

    Attributes:
        values: One-dimensional, all elements of all series in order.
        offsets: int64, one longer than the number of series, from 0 to ``len(values)``, never
            decreasing. Series i is ``values[offsets[i]:offsets[i + 1]]``. On the CPU whatever the
            device of the values, since every part of the service that cuts batches reads it.

    Raises:
        ValueError: If values or offsets break the rules above.

    Example:
        >>> import torch
        >>> r = Ragged.from_series([torch.tensor([1.0, 2.0]), torch.tensor([3.0])])
        >>> len(r), r.offsets.tolist(), r[0].tolist()
        (2, [0, 2, 3], [1.0, 2.0])
    """

    values: Tensor
    offsets: Tensor

    def __post_init__(self) -> None:
        values, offsets = self.values, self.offsets
        if values.dim() != 1 or not values.is_contiguous():
            raise ValueError("values must be one-dimensional and contiguous")
        if offsets.dim() != 1 or offsets.dtype != torch.int64 or len(offsets) == 0:
            raise ValueError("offsets must be one-dimensional, int64 and not empty")
        if offsets.device.type != "cpu":
            raise ValueError("offsets must be on the CPU")
        edges = offsets.numpy()  # an operation of numpy costs a tenth of one of torch
        if edges[0] != 0 or edges[-1] != values.shape[0]:
            raise ValueError("offsets must run from 0 to the number of values")
        if (edges[1:] < edges[:-1]).any():
            raise ValueError("offsets must not decrease")

    @classmethod
    def trusted(cls, values: Tensor, offsets: Tensor) -> Self:
        """Make one of parts that are known to keep the rules, without looking at them again."""
        made = object.__new__(cls)
        object.__setattr__(made, "values", values)
        object.__setattr__(made, "offsets", offsets)
        return made

    @classmethod
    def from_lengths(cls, values: Tensor, lengths: Sequence[int] | Tensor) -> Self:
        """Cut ``values`` into series of the given lengths."""
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(np.asarray(lengths, np.int64), out=offsets[1:])
        return cls(values, torch.from_numpy(offsets))

    @classmethod
    def from_series(cls, series: Sequence[Tensor]) -> Self:
        """Copy a sequence of one-dimensional tensors, at least one, into a flat buffer."""
        return cls.from_lengths(torch.cat(list(series)), [len(one) for one in series])

    @classmethod
    def cat(cls, parts: Sequence[Self], out: Tensor | None = None) -> Self:
        """Concatenate; a single part is returned as it is, without a copy, unless ``out`` is given.

        Args:
            parts: At least one.
            out: Where the values go; of their dtype and number.
        """
        if len(parts) == 1 and out is None:
            return parts[0]
        offsets = [parts[0].offsets]
        start = len(parts[0].values)
        for part in parts[1:]:
            offsets.append(part.offsets[1:] + start)
            start += len(part.values)
        values = torch.cat([part.values for part in parts], out=out)
        return cls.trusted(values, torch.cat(offsets))

    def like(self, values: Tensor) -> Self:
        """Return other values over the same offsets.

        Raises:
            ValueError: If they differ in shape from these.
        """
        if values.shape != self.values.shape or not values.is_contiguous():
            raise ValueError("values must be contiguous and as many as those they are to be like")
        return self.trusted(values, self.offsets)

    def __len__(self) -> int:
        """Return the number of series."""
        return self.offsets.shape[0] - 1

    def __getitem__(self, index: int) -> Tensor:
        """Return series ``index`` as a view."""
        if not 0 <= index < len(self):
            raise IndexError(f"no series {index} among {len(self)}")
        return self.values[int(self.offsets[index]) : int(self.offsets[index + 1])]

    def slice(self, start: int, stop: int) -> Self:
        """Return series ``start`` to ``stop`` (exclusive); the values are a view."""
        if (start, stop) == (0, len(self)):
            return self
        offsets = self.offsets[start : stop + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        return self.trusted(self.values[first:last], offsets - first)

    @property
    def lengths(self) -> Tensor:
        """The number of elements of each series, int64."""
        edges = self.offsets.numpy()
        return torch.from_numpy(edges[1:] - edges[:-1])
