"""Lifts the numbers out of a JSON body, without a Python object per number and without the GIL.

A body is nearly all numbers. One compiled pass parses every list of plain numbers (and nulls) into
one flat float64 buffer and writes the rest of the body, byte for byte, to a skeleton in which each
such list is ``[0]``. The skeleton is small, and an ordinary parser judges it. So the pass itself
need not know JSON beyond strings and lists of numbers; whatever else it meets it leaves alone, and
at anything unusual (an escape, a list of mixed kinds, a malformed number) it gives up.
"""

import functools
import math
import sys
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.buffers import BufferPool
from service.codecs.json_loops import HIGHEST, LOWEST, count_commas, deal_lists, lift_lists

_SCRATCH = BufferPool(retain_bytes=256 << 20)
_MOST_ODD = 4096
_LARGEST = {
    "float32": math.nextafter(2.0**128 - 2.0**103, 0),  # from there on it rounds to infinity
    "float64": sys.float_info.max,
}


class Lifted(NamedTuple):
    """A body in two parts.

    Attributes:
        skeleton: The body with ``[0]`` for each list of numbers.
        numbers: The numbers of all lists, float64, null as NaN.
        counts: How many stand in each list, in the order of the body.
        nulls: How many of them are null.
    """

    skeleton: bytes
    numbers: NDArray[np.float64]
    counts: NDArray[np.int64]
    nulls: int


def _power_of_five(exponent: int) -> int:
    """Return the upper 128 bits of a power of five; of a reciprocal up to 5**27 rounded up."""
    power: int = 5 ** abs(exponent)
    if exponent < 0:
        bits = power.bit_length() + 127 if exponent >= -27 else 2 * power.bit_length() + 128
        power = (1 << bits) // power + 1
    shift = 128 - power.bit_length()
    return power << shift if shift >= 0 else power >> -shift


@functools.cache
def _tables() -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.float64]]:
    powers = [_power_of_five(exponent) for exponent in range(LOWEST, HIGHEST + 1)]
    upper = np.array([power >> 64 for power in powers], np.uint64)
    lower = np.array([power & (2**64 - 1) for power in powers], np.uint64)
    return upper, lower, np.array([10.0**exponent for exponent in range(23)])


def lift(body: bytes | memoryview) -> Lifted | None:
    """Split a body; None if it is not one that this pass can read.

    Example:
        >>> lifted = lift(b'{"id": "a", "prediction": [1, 2.5], "target": [3, null]}')
        >>> lifted.skeleton, lifted.counts.tolist(), lifted.numbers[:3].tolist(), lifted.nulls
        (b'{"id": "a", "prediction": [0], "target": [0]}', [2, 2], [1.0, 2.5, 3.0], 1)
    """
    text = np.frombuffer(body, np.uint8)
    text.flags.writeable = False  # bytes or buffer: one type, so one compiled loop
    n = len(text)
    if n == 0 or text[-1] != ord("}"):
        return None
    most = count_commas(text) + 1
    skeleton = _SCRATCH.empty(n, np.uint8)
    numbers = _SCRATCH.empty(most, np.float64)
    counts = _SCRATCH.empty(most, np.int64)
    odd = np.empty((min(most, _MOST_ODD), 3), np.int64)
    size, lists, total, odds, nulls = lift_lists(
        text, skeleton, numbers, numbers.view(np.uint64), counts, odd, *_tables()
    )
    if size < 0:
        return None
    for element, start, stop in odd[:odds].tolist():
        numbers[element] = float(bytes(body[start:stop]))
    return Lifted(skeleton[:size].tobytes(), numbers[:total], counts[:lists], nulls)


class Dealt(NamedTuple):
    """The two sides of all series, flat, with the offsets and the row width of each."""

    prediction: NDArray[Any]
    target: NDArray[Any]
    offsets: NDArray[np.int64]
    widths: NDArray[np.int64]


def deal(
    lifted: Lifted, rows: NDArray[np.int64], target_first: NDArray[np.bool_], dtype: str
) -> Dealt | None:
    """Cut the numbers of a body into predictions and targets.

    Args:
        lifted: The numbers, whose lists are exactly those of the series.
        rows: For each series, how many lists its two sides have, in the order of the body.
        target_first: For each series, whether its target stands first.
        dtype: float32 or float64.

    Returns:
        None if two sides differ in shape, rows in width, or a number is too large for the dtype.
    """
    half = len(lifted.numbers) // 2
    prediction, target = _SCRATCH.empty(half, dtype), _SCRATCH.empty(half, dtype)
    sides = prediction, target, np.empty(len(rows) + 1, np.int64), np.empty(len(rows), np.int64)
    sound = deal_lists(lifted.numbers, lifted.counts, rows, target_first, *sides, _LARGEST[dtype])
    return Dealt(*sides) if sound else None
