"""The messages between a front end and the device worker, and how an answer lies in memory.

The worker greets a front end with ``{"worker": [id, ending]}``: how the one before it ended. The
front end answers ``{"table": start}``, the descriptor of its arena beside it, and from then on
sends ``{"submit": [row], "withdraw": [number]}``. The worker answers
``{"done": [[number, queue_s, compute_s]], "failed": [[number, kind, detail, retry_after_s]],
"gone": [number], "batches": [[slices, elements, seconds]]}``. Once a request is done, failed or
gone, the worker no longer writes to its memory.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from loss_scoring.core import LossSpec, ScoreOptions, Scores

_LINE = 64


def aligned(size: int) -> int:
    """Round up to whole cache lines."""
    return -(-size // _LINE) * _LINE


class Row(NamedTuple):
    """One request: what to compute, and where its numbers lie.

    Attributes:
        number: The front end's, never used again.
        options: As ``pack_options`` returns them.
        itemsize: The bytes of an element: 4 or 8.
        deadline: On the monotonic clock, which is the same in all processes; None if never.
        alone: Whether nothing else may be on the device beside it.
        traceparent: Its span, if it is traced.
        offsets: Where in the arena ``series + 1`` int64 begin.
        sides: Where prediction and target begin.
        doubles: Where weights and scales begin, float64; None if there are none.
        answer: Where the scores go.
    """

    number: int
    options: str
    itemsize: int
    series: int
    elements: int
    deadline: float | None
    alone: bool
    traceparent: str | None
    offsets: int
    sides: Sequence[int]
    doubles: Sequence[int | None]
    answer: int


@lru_cache(maxsize=256)
def pack_options(options: ScoreOptions) -> str:
    """Return options as text, for ``unpack_options``."""
    losses = [{"name": spec.name, **spec.parameters} for spec in options.losses]
    packed = [losses, options.gradients, options.missing, options.zero_division]
    return orjson.dumps(packed).decode()


@lru_cache(maxsize=256)
def unpack_options(text: str) -> ScoreOptions:
    """Return the options that ``pack_options`` was given."""
    losses, gradients, missing, zero_division = orjson.loads(text)
    return ScoreOptions(tuple(map(LossSpec.of, losses)), gradients, missing, zero_division)


class AnswerLayout:
    """Where the columns of an answer lie, one after another, each on cache lines of its own."""

    def __init__(
        self,
        options: ScoreOptions,
        itemsize: int,
        series: int,
        elements: int,
        *,
        weighted: bool = False,
    ) -> None:
        names = [spec.name for spec in options.losses]
        self._groups = (
            (names, series, np.dtype(np.float64)),
            (options.masked(weighted=weighted), series, np.dtype(np.int64)),
            (names if options.gradients else [], elements, np.dtype(f"f{itemsize}")),
        )
        self.size = sum(
            len(group) * aligned(length * kind.itemsize) for group, length, kind in self._groups
        )

    def scores(self, block: NDArray[np.uint8]) -> Scores:
        """Return the scores in a block of ``size`` bytes, as views."""
        columns: list[dict[str, NDArray[Any]]] = []
        start = 0
        for group, length, kind in self._groups:
            columns.append({})
            size = length * kind.itemsize
            for name in group:
                columns[-1][name] = block[start : start + size].view(kind)
                start += aligned(size)
        return Scores(*columns)

    def write(self, block: NDArray[np.uint8], scores: Scores) -> None:
        """Copy scores into a block."""
        for copies, columns in zip(self.scores(block).arrays(), scores.arrays(), strict=True):
            for name, copy in copies.items():
                copy[:] = columns[name]


class InFlightTable:
    """Which requests are on the device, in memory that outlives the worker.

    Args:
        cells: uint64; a request's number is in the cell of that number modulo their count.
    """

    CELLS = 1 << 15

    def __init__(self, cells: NDArray[np.uint64]) -> None:
        self._cells = memoryview(cells)  # type: ignore[arg-type]

    def marker(self, number: int) -> Callable[[bool], None]:
        """Return what is to be called when a request comes to the device, and when it leaves."""
        cells, cell = self._cells, number % self.CELLS

        def mark(on_device: bool) -> None:  # noqa: FBT001 - the one thing it says
            cells[cell] = number if on_device else 0

        return mark

    def __contains__(self, number: int) -> bool:
        return self._cells[number % self.CELLS] == number

    def clear(self) -> None:
        self._cells[:] = memoryview(np.zeros(self.CELLS, np.uint64))  # type: ignore[arg-type]
