"""Series between the caller's form and that of the wire."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


class Key(NamedTuple):
    """What the caller calls a series."""

    id: object
    cutoff: object = None


def of_python(value: object) -> object:
    """Return what a scalar of numpy holds; times as they are, since Python's hold less.

    Example:
        >>> of_python(np.float64(1.5)), of_python(np.datetime64("2026-01-31", "ns"))
        (1.5, np.datetime64('2026-01-31T00:00:00.000000000'))
    """
    is_time = isinstance(value, np.datetime64 | np.timedelta64)
    return value.item() if isinstance(value, np.generic) and not is_time else value


@dataclass(frozen=True, eq=False)
class Forecasts:
    """Series flat, one after the other: the predictions of some models for one target.

    Attributes:
        offsets: int64, one more than there are series; series ``i`` is ``offsets[i]:offsets[i+1]``.
        target: The actual values, float32 or float64; a missing one is NaN.
        models: The name of each model, None where the caller gave no name.
        predictions: For each model its values, over the same offsets.
        key_of: Returns what the caller calls a series, given its number.
        doubles: ``weight`` and ``scale``, those that there are: a float64 for each element.
        rows: The caller's row of each element; None where nothing was reordered.
        in_rows: Whether the caller's series lie in the rows of a frame.
        shapes: Of each series as the caller nests it; None where each is a plain list of elements.
    """

    offsets: npt.NDArray[np.int64]
    target: Floats
    models: tuple[str | None, ...]
    predictions: tuple[Floats, ...]
    key_of: Callable[[int], Key]
    rows: npt.NDArray[np.int64] | None = None
    in_rows: bool = False
    shapes: Sequence[tuple[int, ...]] | None = None
    doubles: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row_of(self, series: int, position: int) -> int | None:
        """Return the row of the caller's frame that holds an element, None without a frame."""
        if not self.in_rows:
            return None
        element = int(self.offsets[series]) + position
        return element if self.rows is None else int(self.rows[element])

    def index_of(self, series: int, position: int) -> tuple[int, ...] | None:
        """Return the place of an element in a series that is nested, None in a plain one."""
        if self.shapes is None or len(self.shapes[series]) < 2:
            return None
        return tuple(int(i) for i in np.unravel_index(position, self.shapes[series]))
