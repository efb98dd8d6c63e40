"""Many series of different lengths in one flat buffer, in the layout of Arrow's List.

torch is imported once a tensor is asked for: it takes seconds, which scoring on a CPU does without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, TypeAlias, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Buffer: TypeAlias = Union["Tensor", NDArray[Any]]
"""A tensor or, in the memory of the host, an array."""
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def as_tensor(buffer: Buffer) -> Tensor:
    """View a buffer as a tensor."""
    if not isinstance(buffer, np.ndarray):
        return buffer
    import torch  # noqa: PLC0415 - see above

    return torch.from_numpy(buffer)


def as_array(buffer: Buffer) -> NDArray[Any]:
    """View a buffer as an array.

    Raises:
        TypeError: If it is in the memory of a device.
    """
    if isinstance(buffer, np.ndarray):
        return buffer
    return (buffer.detach() if buffer.requires_grad else buffer).numpy()


def concatenate(buffers: Sequence[Buffer]) -> Buffer:
    """Join buffers; to an array where all are in the memory of the host."""
    if all(isinstance(buffer, np.ndarray) or buffer.device.type == "cpu" for buffer in buffers):
        return np.concatenate([as_array(buffer) for buffer in buffers])
    import torch  # noqa: PLC0415 - see above

    return torch.cat([as_tensor(buffer) for buffer in buffers])


def _is_contiguous(buffer: Buffer) -> bool:
    if isinstance(buffer, np.ndarray):
        return buffer.flags.c_contiguous
    return buffer.is_contiguous()


def _check_dtype(values: Buffer) -> None:
    if isinstance(values, np.ndarray):
        is_valid = values.dtype in _FLOATS
    else:
        is_valid = values.is_floating_point() and values.itemsize in {4, 8}
    if not is_valid:
        raise TypeError(f"values must be float32 or float64, not {values.dtype}")


class Ragged:
    """One contiguous buffer of values cut into series by offsets.

    Series i is ``values[offsets[i]:offsets[i + 1]]``. The values may be on any device. The offsets
    are on the CPU, since every part of the service that cuts batches reads them.

    An array stays an array until a tensor is asked for, and the other way round; each conversion is
    a view. A small request costs less than a few calls into torch.

    Args:
        values: One-dimensional float32 or float64, all elements of all series in order.
        offsets: int64, one longer than the number of series, from 0 to ``len(values)``, never
            decreasing.

    Raises:
        TypeError: If the values are neither float32 nor float64.
        ValueError: If values or offsets break the other rules above.

    Example:
        >>> import torch
        >>> r = Ragged.from_series([torch.tensor([1.0, 2.0]), torch.tensor([3.0])])
        >>> len(r), r.offsets.tolist(), r[0].tolist()
        (2, [0, 2, 3], [1.0, 2.0])
    """

    __slots__ = ("__weakref__", "_values", "elements", "offsets")

    offsets: NDArray[np.int64]
    """Where series start and end."""
    elements: int
    """How many elements there are."""

    def __init__(self, values: Buffer, offsets: Buffer) -> None:
        _check_dtype(values)
        if values.ndim != 1 or not _is_contiguous(values):
            raise ValueError("values must be one-dimensional and contiguous")
        if not isinstance(offsets, np.ndarray) and offsets.device.type != "cpu":
            raise ValueError("offsets must be on the CPU")
        offsets = as_array(offsets)
        if offsets.ndim != 1 or offsets.dtype != np.int64 or len(offsets) == 0:
            raise ValueError("offsets must be one-dimensional, int64 and not empty")
        if offsets[0] != 0 or offsets[-1] != values.shape[0]:
            raise ValueError("offsets must run from 0 to the number of values")
        if (offsets[1:] < offsets[:-1]).any():
            raise ValueError("offsets must not decrease")
        self._values = values
        self.elements = len(values)
        self.offsets = offsets

    @classmethod
    def trusted(cls, values: Buffer, offsets: NDArray[np.int64]) -> Self:
        """Make a ragged buffer of parts that are known to be valid, without checking them."""
        made = object.__new__(cls)
        made._values = values
        made.elements = len(values)
        made.offsets = offsets
        return made

    @classmethod
    def from_lengths(cls, values: Buffer, lengths: ArrayLike | Tensor) -> Self:
        """Cut ``values`` into series of the given lengths."""
        sizes = np.asarray(lengths, np.int64)
        offsets = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=offsets[1:])
        return cls(values, offsets)

    @classmethod
    def from_series(cls, series: Sequence[Tensor]) -> Self:
        """Copy a sequence of one-dimensional tensors, at least one, into a flat buffer."""
        import torch  # noqa: PLC0415 - see above

        return cls.from_lengths(torch.cat(list(series)), list(map(len, series)))

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
        start = parts[0].elements
        for part in parts[1:]:
            offsets.append(part.offsets[1:] + start)
            start += part.elements
        buffers = [part._values for part in parts]  # noqa: SLF001 - of this class
        if out is None:
            return cls.trusted(concatenate(buffers), np.concatenate(offsets))
        import torch  # noqa: PLC0415 - see above

        values = torch.cat([as_tensor(buffer) for buffer in buffers], out=out)
        return cls.trusted(values, np.concatenate(offsets))

    def like(self, values: Buffer) -> Self:
        """Return other values over the same offsets.

        Raises:
            TypeError: If they are neither float32 nor float64.
            ValueError: If they differ in shape from these.
        """
        _check_dtype(values)
        if values.shape != self._values.shape or not _is_contiguous(values):
            raise ValueError("values must be contiguous and as many as those they are to be like")
        return self.trusted(values, self.offsets)

    @property
    def values(self) -> Tensor:
        """All elements, as a tensor."""
        return as_tensor(self._values)

    @property
    def array(self) -> NDArray[Any]:
        """All elements, as an array; raises TypeError if they are on a device."""
        values = self._values
        return values if isinstance(values, np.ndarray) else as_array(values)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the elements."""
        values = self._values
        if not isinstance(values, np.ndarray):
            return values.dtype
        import torch  # noqa: PLC0415 - see above

        return torch.float32 if values.itemsize == 4 else torch.float64

    @property
    def device(self) -> torch.device:
        """Where the elements are."""
        values = self._values
        if not isinstance(values, np.ndarray):
            return values.device
        import torch  # noqa: PLC0415 - see above

        return torch.device("cpu")

    @property
    def itemsize(self) -> int:
        """The bytes of an element: 4 or 8."""
        return int(self._values.dtype.itemsize)

    @property
    def on_host(self) -> bool:
        """Whether the elements are in the memory of the host."""
        values = self._values
        return isinstance(values, np.ndarray) or values.device.type == "cpu"

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of elements of each series."""
        return self.offsets[1:] - self.offsets[:-1]

    def __len__(self) -> int:
        """Return the number of series."""
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Tensor:
        """Return series ``index`` as a view."""
        if not 0 <= index < len(self):
            raise IndexError(f"no series {index} among {len(self)}")
        return as_tensor(self._values[int(self.offsets[index]) : int(self.offsets[index + 1])])

    def slice(self, start: int, stop: int) -> Self:
        """Return series ``start`` to ``stop`` (exclusive); the values are a view."""
        if (start, stop) == (0, len(self)):
            return self
        offsets = self.offsets[start : stop + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        return self.trusted(self._values[first:last], offsets - first)
